{{/*
What several kinds of Traefik have in common. Facts of Traefik 3.7: names, types, what is
required and which words are known; a duration is a number of seconds or a text such as 5s.
*/}}

{{- define "string" }}{type: string}{{ end -}}
{{- define "boolean" }}{type: boolean}{{ end -}}
{{- define "integer" }}{type: integer}{{ end -}}
{{- define "duration" }}{anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}{{ end -}}
{{- define "port" }}{anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}{{ end -}}
{{- define "strings" }}{type: array, items: {type: string}}{{ end -}}
{{- define "words" }}{type: object, additionalProperties: {type: string}}{{ end -}}

{{/* Something by its name, and by its namespace where that is another. */}}
{{- define "reference" -}}
{type: object, required: [name], properties: {name: {type: string}, namespace: {type: string}}}
{{- end -}}

{{- define "references" -}}
{type: array, items: {{ include "reference" . }}}
{{- end -}}

{{- define "cookie" -}}
type: object
properties:
  cookie:
    type: object
    properties:
      {{- include "fields" (list "{type: string}" "name" "domain" "path") | indent 6 }}
      {{- include "fields" (list "{type: boolean}" "httpOnly" "secure") | indent 6 }}
      maxAge: {type: integer}
      sameSite: {type: string, enum: [none, lax, strict, None, Lax, Strict]}
{{- end -}}

{{/* What requests are sent to: a Service, or a TraefikService. */}}
{{- define "target.properties" -}}
name: {type: string}
namespace: {type: string}
kind: {type: string, enum: [Service, TraefikService]}
port: {{ include "port" . }}
scheme: {type: string}
weight: {type: integer, minimum: 0}
strategy: {type: string, enum: [wrr, p2c, hrw, leasttime, RoundRobin]}
serversTransport: {type: string}
middlewares: {{ include "references" . }}
{{- include "fields" (list "{type: boolean}" "nativeLB" "nodePortLB" "passHostHeader") }}
responseForwarding: {type: object, properties: {flushInterval: {type: string}}}
sticky: {{ include "cookie" . | nindent 2 }}
healthCheck:
  type: object
  properties:
    {{- include "fields" (list "{type: string}" "hostname" "method" "mode" "path" "scheme") | indent 4 }}
    {{- include "fields" (list (include "duration" .) "interval" "timeout" "unhealthyInterval") | indent 4 }}
    {{- include "fields" (list "{type: integer}" "port" "status") | indent 4 }}
    followRedirects: {type: boolean}
    headers: {{ include "words" . }}
passiveHealthCheck:
  type: object
  properties:
    failureWindow: {{ include "duration" . }}
    maxFailedAttempts: {type: integer}
{{- end -}}

{{- define "target" -}}
type: object
required: [name]
properties:
  {{- include "target.properties" . | nindent 2 }}
{{- end -}}

{{/* Certificates of a route. */}}
{{- define "tls.properties" -}}
secretName: {type: string}
certResolver: {type: string}
options: {{ include "reference" . }}
store: {{ include "reference" . }}
domains:
  type: array
  items: {type: object, properties: {main: {type: string}, sans: {type: array, items: {type: string}}}}
{{- end -}}

{{/* How clients are told apart. */}}
{{- define "ipStrategy" -}}
type: object
properties:
  depth: {type: integer, minimum: 0}
  excludedIPs: {type: array, items: {type: string}}
  ipv6Subnet: {type: integer}
{{- end -}}

{{- define "sourceCriterion" -}}
type: object
properties:
  ipStrategy: {{ include "ipStrategy" . | nindent 4 }}
  requestHeaderName: {type: string}
  requestHost: {type: boolean}
{{- end -}}

{{/* Whom a server must prove to be. */}}
{{- define "peer.properties" -}}
{{- include "fields" (list "{type: string}" "serverName" "peerCertURI") }}
{{- include "fields" (list (include "strings" .) "rootCAsSecrets" "certificatesSecrets") }}
insecureSkipVerify: {type: boolean}
rootCAs:
  type: array
  items: {type: object, properties: {secret: {type: string}, configMap: {type: string}}}
peerCertSANs:
  type: array
  items: {type: object, properties: {type: {type: string}, value: {type: string}}}
spiffe: {type: object, properties: {ids: {type: array, items: {type: string}}, trustDomain: {type: string}}}
{{- end -}}
