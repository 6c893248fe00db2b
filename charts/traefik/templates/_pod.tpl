{{/* The pod, the same in a Deployment and in a DaemonSet. */}}
{{- define "traefik.pod" -}}
{{- $deployment := .Values.deployment -}}
metadata:
  annotations:
    {{- include "traefik.podAnnotations" . | nindent 4 }}
  labels:
    {{- include "traefik.labels" . | nindent 4 }}
    {{- with $deployment.podLabels }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "traefik.serviceAccount" . }}
  automountServiceAccountToken: true
  terminationGracePeriodSeconds: {{ int $deployment.terminationGracePeriodSeconds }}
  hostNetwork: {{ .Values.hostNetwork }}
  {{- if $deployment.shareProcessNamespace }}
  shareProcessNamespace: true
  {{- end }}
  {{- if not (kindIs "invalid" $deployment.hostUsers) }}
  hostUsers: {{ $deployment.hostUsers }}
  {{- end }}
  {{- $placed := pick .Values "priorityClassName" "nodeSelector" "tolerations" }}
  {{- $chosen := pick $deployment "dnsPolicy" "dnsConfig" "hostAliases" "imagePullSecrets" "runtimeClassName" "initContainers" }}
  {{- range $key, $value := merge $placed $chosen }}
  {{- with $value }}
  {{ $key }}: {{ kindIs "string" . | ternary (toYaml .) (toYaml . | nindent 4) }}
  {{- end }}
  {{- end }}
  {{- range $key, $value := pick .Values "affinity" "topologySpreadConstraints" }}
  {{- with $value }}
  {{ $key }}: {{ tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "traefik.container" . | nindent 6 | trim }}
    {{- with $deployment.additionalContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes: {{ include "traefik.volumes" . | nindent 4 }}
{{- end -}}

{{- define "traefik.podAnnotations" -}}
{{- $found := dict -}}
{{- with (default dict .Values.metrics).prometheus -}}
{{- $port := default dict (index $.Values.ports .entryPoint) -}}
{{- if $port.port -}}
{{- $found = dict "prometheus.io/scrape" "true" "prometheus.io/path" "/metrics" "prometheus.io/port" (toString (int $port.port)) -}}
{{- end -}}
{{- end -}}
{{- with mergeOverwrite $found (default dict .Values.podAnnotations) (default dict .Values.deployment.podAnnotations) -}}
{{- tpl (toYaml .) $ -}}
{{- end -}}
{{- end -}}

{{- define "traefik.container" -}}
{{- $deployment := .Values.deployment -}}
name: {{ include "traefik.fullname" . }}
image: {{ include "traefik.image" . | quote }}
imagePullPolicy: {{ include "traefik.pullPolicy" . }}
args: {{ include "traefik.arguments" . | nindent 2 }}
env: {{ include "traefik.environment" . | nindent 2 }}
{{- with .Values.envFrom }}
envFrom: {{ toYaml . | nindent 2 }}
{{- end }}
ports: {{ include "traefik.containerPorts" . | nindent 2 }}
{{- range $kind, $path := dict "startup" $deployment.readinessPath "readiness" $deployment.readinessPath "liveness" $deployment.livenessPath }}
{{- $probe := index $.Values (printf "%sProbe" $kind) }}
{{- if $probe }}
{{ $kind }}Probe:
  {{- if not (or $probe.httpGet $probe.exec $probe.tcpSocket $probe.grpc) }}
  httpGet:
    {{- with default $.Values.ports.traefik.hostIP $deployment.healthchecksHost }}
    host: {{ . | quote }}
    {{- end }}
    path: {{ default "/ping" $path }}
    port: {{ default $.Values.ports.traefik.port $deployment.healthchecksPort }}
    scheme: {{ default "HTTP" $deployment.healthchecksScheme }}
  {{- end }}
  {{- toYaml $probe | nindent 2 }}
{{- end }}
{{- end }}
{{- with $deployment.lifecycle }}
lifecycle: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.securityContext }}
securityContext: {{ toYaml . | nindent 2 }}
{{- end }}
volumeMounts: {{ include "traefik.mounts" . | nindent 2 }}
{{- end -}}

{{/* What the values say comes last: of two with one name the last one counts. */}}
{{- define "traefik.environment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- $runtime := deepCopy (default dict .Values.runtime) }}
{{- with include "traefik.memoryLimit" . }}{{ $runtime = merge $runtime (dict "GOMEMLIMIT" .) }}{{ end }}
{{- range $name, $value := $runtime }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A share of the container's limit, for Go to collect harder before the kernel kills it. */}}
{{- define "traefik.memoryLimit" -}}
{{- $limit := include "traefik.scalar" (default "" (default dict (default dict .Values.resources).limits).memory) -}}
{{- $share := float64 (default 0 .Values.deployment.goMemLimitPercentage) -}}
{{- if and $limit $share -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $number := regexFind "^[0-9.]+" $limit -}}
{{- with index $units (trimPrefix $number $limit) }}{{ mulf (float64 $number) . $share | int64 }}B{{ end -}}
{{- end -}}
{{- end -}}

{{- define "traefik.containerPorts" -}}
{{- range $name, $port := .Values.ports }}
{{- if $port }}
{{- if and $.Values.hostNetwork $port.hostPort (ne (int $port.hostPort) (int $port.port)) }}
{{- fail (printf "ports.%s.hostPort must be ports.%s.port with hostNetwork" $name $name) }}
{{- end }}
- name: {{ include "traefik.portName" $name }}
  containerPort: {{ int (default $port.port $port.containerPort) }}
  protocol: {{ default "TCP" $port.protocol }}
  {{- with $port.hostPort }}
  hostPort: {{ int . }}
  {{- end }}
  {{- with $port.hostIP }}
  hostIP: {{ . | quote }}
  {{- end }}
{{- if (default dict $port.http3).enabled }}
- name: {{ include "traefik.portName" (printf "%s-http3" $name) }}
  containerPort: {{ int $port.port }}
  protocol: UDP
  {{- with $port.hostPort }}
  hostPort: {{ int (default . $port.http3.advertisedPort) }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "traefik.mounts" -}}
- name: {{ .Values.persistence.name }}
  mountPath: {{ .Values.persistence.path }}
  {{- with .Values.persistence.subPath }}
  subPath: {{ . }}
  {{- end }}
- name: tmp
  mountPath: /tmp
{{- if .Values.experimental.plugins }}
- name: plugins
  mountPath: /plugins-storage
{{- end }}
{{- range $name, $plugin := .Values.experimental.localPlugins }}
- name: {{ $name | replace "." "-" }}
  mountPath: {{ $plugin.mountPath }}
{{- end }}
{{- if .Values.providers.file.enabled }}
- name: dynamic
  mountPath: /etc/traefik/dynamic
  readOnly: true
{{- end }}
{{- range .Values.volumes }}
- name: {{ tpl .name $ | replace "." "-" }}
  mountPath: {{ .mountPath }}
  readOnly: true
{{- end }}
{{- with .Values.additionalVolumeMounts }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{- define "traefik.volumes" -}}
- name: {{ .Values.persistence.name }}
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (include "traefik.fullname" .) .Values.persistence.existingClaim }}
  {{- else }}
  emptyDir: {{ default dict .Values.persistence.emptyDir | toJson }}
  {{- end }}
- name: tmp
  emptyDir: {{ default dict (default dict .Values.deployment.tmpVolume).emptyDir | toJson }}
{{- if .Values.experimental.plugins }}
- name: plugins
  emptyDir: {}
{{- end }}
{{- range $name, $plugin := .Values.experimental.localPlugins }}
- name: {{ $name | replace "." "-" }}
  hostPath:
    path: {{ required (printf "experimental.localPlugins.%s: only those with a hostPath are supported" $name) $plugin.hostPath }}
{{- end }}
{{- if .Values.providers.file.enabled }}
- name: dynamic
  configMap:
    name: {{ include "traefik.fullname" . }}-file-provider
{{- end }}
{{- range .Values.volumes }}
- name: {{ tpl .name $ | replace "." "-" }}
  {{- if eq .type "secret" }}
  secret:
    secretName: {{ tpl .name $ }}
  {{- else if eq .type "configMap" }}
  configMap:
    name: {{ tpl .name $ }}
  {{- else }}
  {{ .type }}: {{ omit . "name" "mountPath" "type" | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .Values.deployment.additionalVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
