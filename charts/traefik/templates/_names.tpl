{{/* Names and labels are those that Traefik has on K3s: scripts and policies select by them. */}}

{{- define "traefik.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "traefik.fullname" -}}
{{- $name := include "traefik.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "traefik.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* Of cluster-scoped objects: two releases must not share one. */}}
{{- define "traefik.clusterName" -}}
{{- printf "%s-%s" (include "traefik.fullname" .) .Release.Namespace | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "traefik.serviceAccount" -}}
{{- default (include "traefik.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "traefik.ingressClass" -}}
{{- default (include "traefik.fullname" .) .Values.ingressClass.name -}}
{{- end -}}

{{- define "traefik.serviceName" -}}
{{- default (include "traefik.fullname" .) .Values.service.nameOverride -}}
{{- end -}}

{{- define "traefik.instance" -}}
{{- default (printf "%s-%s" .Release.Name .Release.Namespace) .Values.instanceLabelOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What workloads and Services select by: must never change during the life of a release. */}}
{{- define "traefik.selector" -}}
app.kubernetes.io/name: {{ include "traefik.name" . }}
app.kubernetes.io/instance: {{ include "traefik.instance" . }}
{{- end -}}

{{- define "traefik.labels" -}}
{{ include "traefik.selector" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The image that comes with the node, unless the values name another one: then what is left out
is as Docker Hub has it, so that "tag: v3.5" alone means traefik:v3.5 there. A repository that
begins with a host needs no registry.
*/}}
{{- define "traefik.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default .Values.global.systemDefaultRegistry $image.registry -}}
{{- $repository := default $image.name $image.repository -}}
{{- $version := default .Chart.AppVersion $image.tag -}}
{{- $chosen := or $repository $image.registry $image.tag $image.digest -}}
{{- $path := default (empty $chosen | ternary "traefik" "library/traefik") $repository -}}
{{- if not (regexMatch "^([^/]+[.:][^/]*|localhost)/" $path) -}}
{{ default (empty $chosen | ternary "pinnace.dev" "docker.io") $registry }}/
{{- end -}}
{{ $path }}{{ empty $image.digest | not | ternary (printf "@%s" $image.digest) (printf ":%s" (toString $version)) }}
{{- end -}}

{{/*
Where nothing but the node's own image is asked for, no registry is: the pod says what is missing.
*/}}
{{- define "traefik.pullPolicy" -}}
{{- $own := hasPrefix "pinnace.dev/" (include "traefik.image" .) -}}
{{- default ($own | ternary "Never" "IfNotPresent") .Values.image.pullPolicy -}}
{{- end -}}

{{/* Port names end at 15 characters. */}}
{{- define "traefik.portName" -}}
{{- lower . | trunc 15 | trimSuffix "-" -}}
{{- end -}}
