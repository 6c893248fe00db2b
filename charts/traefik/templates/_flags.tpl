{{/*
From a map to command line flags, in the way of Traefik: a key is a step of the path, a list of
words is joined by commas, a list of maps is numbered, an empty map is switched on.
What is null, and a text or a list that is empty, is left to Traefik's default. The values'
own "enabled" switches the map that holds it, and is no flag.
Called with a dict: path, value.
*/}}
{{- define "traefik.flags" -}}
{{- if kindIs "map" .value -}}
{{- if or (not (hasKey .value "enabled")) .value.enabled -}}
{{- $path := .path -}}
{{- $inner := "" -}}
{{- range $key, $value := omit .value "enabled" -}}
{{- $inner = print $inner (include "traefik.flags" (dict "path" (printf "%s.%s" $path $key) "value" $value)) -}}
{{- end -}}
{{- if $inner }}{{ $inner }}{{ else if or (empty .value) (hasKey .value "enabled") }}{{ include "traefik.flag" (dict "path" .path "text" "true") }}{{ end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- if and .value (kindIs "map" (first .value)) -}}
{{- $path := .path -}}
{{- range $index, $value := .value -}}
{{- include "traefik.flags" (dict "path" (printf "%s[%d]" $path $index) "value" $value) -}}
{{- end -}}
{{- else if .value -}}
{{- include "traefik.flag" (dict "path" .path "text" (join "," .value)) -}}
{{- end -}}
{{- else if not (or (kindIs "invalid" .value) (eq (toString .value) "")) -}}
{{- include "traefik.flag" (dict "path" .path "text" (include "traefik.scalar" .value)) -}}
{{- end -}}
{{- end -}}

{{- define "traefik.flag" }}
- {{ printf "--%s=%s" .path .text | quote }}
{{- end -}}

{{/* Numbers come out of JSON as floats: 8000, not 8e+03. */}}
{{- define "traefik.scalar" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* All arguments of the program. */}}
{{- define "traefik.arguments" -}}
{{- $static := include "traefik.static" . | fromYaml -}}
{{- with $static.Error }}{{ fail . }}{{ end -}}
{{- range $key, $value := $static -}}
{{- include "traefik.flags" (dict "path" $key "value" $value) -}}
{{- end -}}
{{- range concat (default list .Values.globalArguments) (default list .Values.additionalArguments) }}
- {{ . | quote }}
{{- end -}}
{{- end -}}
