{{/*
The values as Traefik's static configuration: the keys are those of its reference, so that a
part of the values that already has their form passes through as it is.
Source: the reference of Traefik 3, "Install Configuration".
*/}}
{{- define "traefik.static" -}}
{{- $values := .Values -}}
global: {{ omit $values.global "systemDefaultRegistry" "azure" | toYaml | nindent 2 }}
ping: {}
{{- with $values.api }}
api: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.core }}
core: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.ocsp }}
ocsp: {{ toYaml . | nindent 2 }}
{{- end }}
entryPoints:
{{- range $name, $port := $values.ports }}
{{- if $port }}
  {{ $name }}: {{ include "traefik.entryPoint" (dict "port" $port "ports" $values.ports) | nindent 4 }}
{{- end }}
{{- end }}
{{ include "traefik.providers" . }}
{{ include "traefik.observability" . }}
{{- with default $values.certResolvers $values.certificatesResolvers }}
certificatesResolvers: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with include "traefik.filled" (include "traefik.experimental" $values.experimental | fromYaml) }}
experimental: {{ . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of a plugin on the node's disk, where it lies is not Traefik's affair. */}}
{{- define "traefik.experimental" -}}
{{- $local := dict -}}
{{- range $name, $plugin := .localPlugins }}{{ $_ := set $local $name (pick $plugin "moduleName" "settings") }}{{ end -}}
{{- omit . "localPlugins" | merge (dict "localPlugins" $local) | toYaml -}}
{{- end -}}

{{/* One port of the values as an entry point. Called with a dict: port, ports. */}}
{{- define "traefik.entryPoint" -}}
{{- $port := .port -}}
{{- $host := default "" $port.hostIP -}}
address: {{ printf "%s:%v/%s" (contains ":" $host | ternary (printf "[%s]" $host) $host) (int $port.port) (lower (default "TCP" $port.protocol)) | quote }}
{{- with pick $port "asDefault" "allowACMEByPass" "reusePort" "transport" "proxyProtocol" "forwardedHeaders" "http2" "http3" "udp" "observability" }}
{{ toYaml . }}
{{- end }}
{{- with include "traefik.entryPointHttp" . }}
http: {{ . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "traefik.entryPointHttp" -}}
{{- $port := .port -}}
{{- $http := omit (default dict $port.http) "redirections" -}}
{{- with $port.tls }}{{ $_ := set $http "tls" (mergeOverwrite (deepCopy (default dict $http.tls)) .) }}{{ end -}}
{{- with $port.middlewares }}{{ $_ := set $http "middlewares" . }}{{ end -}}
{{- with include "traefik.redirection" . | fromYaml }}{{ $_ := set $http "redirections" (dict "entryPoint" .) }}{{ end -}}
{{- if $http }}{{ toYaml $http }}{{ end -}}
{{- end -}}

{{/*
Where a port sends on to, in any of the three ways in which the values have said it. The name of
another port is its number outside: clients know no other.
*/}}
{{- define "traefik.redirection" -}}
{{- $port := .port -}}
{{- $given := default dict (default dict (default (default dict $port.http).redirections $port.redirections)).entryPoint -}}
{{- if and (not $given) $port.redirectTo -}}
{{- $old := kindIs "string" $port.redirectTo | ternary (dict "port" $port.redirectTo) $port.redirectTo -}}
{{- $given = merge (dict "to" $old.port) (omit $old "port") (dict "permanent" true) -}}
{{- end -}}
{{- if $given.to -}}
{{- $target := default dict (index .ports $given.to) -}}
{{- $number := int (default (default 0 $target.port) $target.exposedPort) -}}
{{- toYaml (merge (dict "to" (empty $number | ternary $given.to (printf ":%d" $number))) $given (dict "scheme" "https")) -}}
{{- end -}}
{{- end -}}

{{- define "traefik.providers" -}}
providers:
{{- range $key := list "kubernetesCRD" "kubernetesIngress" "kubernetesGateway" "kubernetesIngressNGINX" "knative" }}
{{- $given := deepCopy (default dict (index $.Values.providers $key)) }}
{{- if $given.enabled }}
{{- if and $.Values.rbac.namespaced (not $given.namespaces) }}{{ $_ := set $given "namespaces" (list (include "traefik.namespace" $)) }}{{ end }}
{{- $published := include "traefik.published" (dict "root" $ "key" $key "given" $given) | fromYaml }}
  {{ $key }}: {{ omit (mergeOverwrite $given $published) "publishedService" | toYaml | nindent 4 }}
{{- end }}
{{- end }}
{{- with $.Values.providers.file }}
{{- if .enabled }}
  file: {directory: /etc/traefik/dynamic, watch: {{ .watch }}}
{{- end }}
{{- end }}
{{- with $.Values.providers.precedence }}
  precedence: {{ toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Whose addresses go into the status of what is routed. */}}
{{- define "traefik.published" -}}
{{- $own := printf "%s/%s" (include "traefik.namespace" .root) (include "traefik.serviceName" .root) -}}
{{- if and (eq .key "kubernetesIngress") (default dict .given.publishedService).enabled -}}
ingressEndpoint:
  publishedService: {{ default $own .given.publishedService.pathOverride }}
{{- else if eq .key "kubernetesIngressNGINX" -}}
publishService: {{ (default dict .given.publishService).enabled | ternary (default $own (default dict .given.publishService).pathOverride) "" | quote }}
{{- else if and (eq .key "kubernetesGateway") (not (default dict .given.statusAddress).ip) (not (default dict .given.statusAddress).hostname) -}}
statusAddress:
  service:
    enabled: true
    name: {{ default (include "traefik.serviceName" .root) (default dict (default dict .given.statusAddress).service).name }}
    namespace: {{ default (include "traefik.namespace" .root) (default dict (default dict .given.statusAddress).service).namespace }}
{{- end -}}
{{- end -}}

{{/* logs.general and logs.access are the older names of log and accessLog. */}}
{{- define "traefik.observability" -}}
{{- $logs := default dict .Values.logs -}}
{{- with mergeOverwrite (deepCopy (default dict .Values.log)) (default dict $logs.general) }}
log: {{ toYaml . | nindent 2 }}
{{- end }}
accessLog: {{ include "traefik.accessLog" (mergeOverwrite (deepCopy (default dict .Values.accessLog)) (default dict $logs.access)) | nindent 2 }}
{{- with include "traefik.metrics" (default dict .Values.metrics) }}
metrics: {{ . | nindent 2 }}
{{- end }}
{{- with .Values.tracing }}
tracing: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "traefik.metrics" -}}
{{- $kept := deepCopy . -}}
{{- with $kept.prometheus }}{{ $_ := set $kept "prometheus" (omit . "service" "serviceMonitor" "prometheusRule" "disableAPICheck") }}{{ end -}}
{{- include "traefik.filled" $kept -}}
{{- end -}}

{{/* A part of the values without what is empty in it: there an empty map switches nothing on. */}}
{{- define "traefik.filled" -}}
{{- $kept := dict -}}
{{- range $key, $value := . }}{{ if $value }}{{ $_ := set $kept $key $value }}{{ end }}{{ end -}}
{{- if $kept }}{{ toYaml $kept }}{{ end -}}
{{- end -}}

{{/* The keys of older charts (statuscodes, fields.general.defaultmode) are those of today in lower case. */}}
{{- define "traefik.accessLog" -}}
{{- $fields := omit (default dict .fields) "general" -}}
{{- with (default dict .fields).general }}{{ $fields = mergeOverwrite $fields . }}{{ end -}}
{{- $kept := merge (dict "enabled" (default false .enabled) "fields" $fields) (omit . "fields") -}}
{{- if not $fields }}{{ $kept = omit $kept "fields" }}{{ end -}}
{{- toYaml $kept | replace "defaultmode:" "defaultMode:" | replace "statuscodes:" "statusCodes:" | replace "retryattempts:" "retryAttempts:" | replace "minduration:" "minDuration:" -}}
{{- end -}}
