{{- define "big.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "big.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 }}
{{- end -}}

{{- define "big.labels" -}}
{{ include "big.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Chart.AppVersion }}
app.kubernetes.io/version: {{ . | quote }}
{{- end }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of one object; takes a list of root and, where it has one, a suffix. */}}
{{- define "big.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "big.fullname" $root | trunc 58 | trimSuffix "-" }}{{ with index . 1 }}-{{ . }}{{ end }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "big.labels" $root | nindent 2 }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "big.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "big.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "big.render" -}}
{{- $value := typeIs "string" .value | ternary .value (.value | toYaml) -}}
{{- if contains "{{" $value -}}
{{- tpl $value .context -}}
{{- else -}}
{{- $value -}}
{{- end -}}
{{- end -}}

{{- define "big.pod" -}}
metadata:
  labels:
    {{- include "big.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include (print .Template.BasePath "/config.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "big.account" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automountServiceAccountToken }}
  terminationGracePeriodSeconds: 0
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- include "big.render" (dict "value" . "context" $) | nindent 4 }}
  {{- end }}
  containers:
    - name: main
      image: {{ printf "%s/%s:%s" .Values.image.registry .Values.image.repository (.Values.image.tag | toString) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: ["sleep", "3600"]
      {{- with .Values.extraEnvVars }}
      env: {{- include "big.render" (dict "value" . "context" $) | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8080
      {{- with .Values.resources }}
      resources: {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /config
  volumes:
    - name: config
      configMap:
        name: {{ include "big.fullname" . | trunc 58 | trimSuffix "-" }}-conf
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
