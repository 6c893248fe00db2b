{{- define "hooks.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* A Job for one point; takes a dict of root, point, weight. */}}
{{- define "hooks.job" -}}
{{- $root := .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ printf "%s-%s" $root.Release.Name .point }}
  labels:
    {{- include "hooks.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .point }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: {{ printf "before-hook-creation,%s" $root.Values.policy }}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels:
        {{- include "hooks.labels" $root | nindent 8 }}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      containers:
        - name: work
          image: docker.io/library/busybox:1.35
          imagePullPolicy: IfNotPresent
          {{- if eq $root.Values.fails .point }}
          command: ["sh", "-c", "echo {{ .point }} cannot be done; exit 3"]
          {{- else if eq $root.Values.hangs .point }}
          command: ["sleep", "3600"]
          {{- else }}
          command: ["true"]
          {{- end }}
{{- end -}}

{{/* A ConfigMap that says when it was made. */}}
{{- define "hooks.mark" -}}
{{- $root := .root -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ printf "%s-%s" $root.Release.Name .name }}
  labels:
    {{- include "hooks.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .point }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: {{ .policy | default "before-hook-creation" }}
data:
  revision: {{ $root.Release.Revision | quote }}
  upgrade: {{ $root.Release.IsUpgrade | quote }}
{{- end -}}
