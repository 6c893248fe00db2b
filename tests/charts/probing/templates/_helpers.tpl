{{- define "probing.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- range $key, $value := .Values.labels }}
{{ $key }}: {{ tpl $value $ | quote }}
{{- end }}
{{- end -}}

{{/* What is there already under this key of this Secret, else what was made now. */}}
{{- define "probing.kept" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $data := ($found | default dict).data | default dict -}}
{{- index $data .key | default (.made | b64enc) -}}
{{- end -}}
