{{/* One name for all objects of a release; DNS labels end at 63 characters. */}}
{{- define "operators.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "operators.netpol" -}}
{{ include "operators.fullname" . }}-netpol
{{- end -}}

{{/* ClusterRoles of two releases must not meet. */}}
{{- define "operators.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "operators.fullname" .) -}}
{{- end -}}

{{/* What a Deployment selects by: must never change during the life of a release. */}}
{{- define "operators.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operators.labels" -}}
{{ include "operators.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "operators.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The operators of the Deployment, by the names that --operators takes. */}}
{{- define "operators.central" -}}
{{- $names := list -}}
{{- range $name := list "helm" "localpath" "servicelb" "upgrade" -}}
{{- if (index $.Values $name).enabled -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Who this pod is. */}}
{{- define "operators.environment" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: PINNACE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end -}}

{{/* What every operator may: see which kinds there are, who else runs, and tell of its work. */}}
{{- define "operators.watching" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
# Leases of nodes of Pinnace, which say what these run themselves.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
