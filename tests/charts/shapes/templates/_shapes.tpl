{{- define "shapes.name" -}}
{{- printf "%s-%s" .Release.Name (.Values.nameOverride | default .Chart.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "shapes.labels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Values.global.partOf | default "nothing" }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "shapes.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "shapes.name" . }}
  labels:
    {{- include "shapes.labels" . | nindent 4 }}
{{- end -}}
