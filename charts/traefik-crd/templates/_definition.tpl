{{/*
A definition around the schema of its spec. Called with a dict: kind, plural, spec (the name of a
template).
With the release it stays: with a definition every object of its kind would go too.
*/}}
{{- define "definition" -}}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {{ .plural }}.traefik.io
  annotations:
    helm.sh/resource-policy: keep
spec:
  group: traefik.io
  scope: Namespaced
  names:
    kind: {{ .kind }}
    listKind: {{ .kind }}List
    plural: {{ .plural }}
    singular: {{ lower .kind }}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          required: [metadata, spec]
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              {{- include .spec . | nindent 14 }}
{{- end -}}

{{/* Properties of one type. Called with a list: the type as text, then the names. */}}
{{- define "fields" -}}
{{- $type := index . 0 -}}
{{- range rest . }}
{{ . }}: {{ $type }}
{{- end -}}
{{- end -}}
