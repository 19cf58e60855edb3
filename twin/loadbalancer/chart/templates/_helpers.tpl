{{- define "controller.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "controller.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "controller.prefix" -}}
{{ default (.Chart.Name | trimSuffix "-controller") .Values.nameOverride | trunc 42 | trimSuffix "-" }}
{{- end -}}

{{- define "controller.selector" -}}
app.kubernetes.io/name: {{ include "controller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "controller.labels" -}}
{{ include "controller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "controller.serviceAccount" -}}
{{ .Values.serviceAccount.create | ternary (default (include "controller.fullname" .) .Values.serviceAccount.name) (default "default" .Values.serviceAccount.name) }}
{{- end -}}

{{- define "controller.webhookService" -}}
{{ include "controller.prefix" . }}-webhook-service
{{- end -}}

{{- define "controller.certificateSecret" -}}
{{ include "controller.prefix" . }}-tls
{{- end -}}

{{/* Certificate of the webhooks: given, kept from the Secret (keepTLSSecret), or made anew at each upgrade. */}}
{{- define "controller.certificate" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "controller.certificateSecret" .) -}}
{{- if and .Values.webhookTLS.caCert .Values.webhookTLS.cert .Values.webhookTLS.key -}}
ca: {{ .Values.webhookTLS.caCert | b64enc }}
certificate: {{ .Values.webhookTLS.cert | b64enc }}
key: {{ .Values.webhookTLS.key | b64enc }}
{{- else if and .Values.keepTLSSecret $secret -}}
ca: {{ index $secret.data "ca.crt" }}
certificate: {{ index $secret.data "tls.crt" }}
key: {{ index $secret.data "tls.key" }}
{{- else -}}
{{- $service := printf "%s.%s" (include "controller.webhookService" .) .Release.Namespace -}}
{{- $names := list $service (printf "%s.svc" $service) (printf "%s.svc.%s" $service .Values.cluster.dnsDomain) -}}
{{- $authority := genCA (printf "%s-ca" (include "controller.name" .)) 3650 -}}
{{- $pair := genSignedCert (include "controller.fullname" .) (list "127.0.0.1") $names 3650 $authority -}}
ca: {{ $authority.Cert | b64enc }}
certificate: {{ $pair.Cert | b64enc }}
key: {{ $pair.Key | b64enc }}
{{- end -}}
{{- end -}}

{{/* clientConfig of one webhook: (list root certificate path) */}}
{{- define "controller.client" -}}
{{- $root := index . 0 -}}
caBundle: {{ index . 1 }}
{{- if $root.Values.twinWebhookURL }}
url: {{ $root.Values.twinWebhookURL }}{{ index . 2 }}
{{- else }}
service:
  name: {{ include "controller.webhookService" $root }}
  namespace: {{ $root.Release.Namespace }}
  path: {{ index . 2 }}
{{- end }}
{{- end -}}

{{/* Selector of the pods that the webhooks of this chart may be asked about. */}}
{{- define "controller.pods" -}}
matchExpressions:
  - key: app.kubernetes.io/name
    operator: NotIn
    values: [{{ include "controller.name" . }}]
  {{- with .Values.objectSelector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.objectSelector.matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "controller.newPods" -}}
- apiGroups: [""]
  apiVersions: [v1]
  operations: [CREATE]
  resources: [pods]
{{- end -}}
