{{- /* The chart's name, as a label and a part of names. */ -}}
{{- define "certrenewal.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The name of the release's objects: short enough for a label and for what is appended. */ -}}
{{- define "certrenewal.fullname" -}}
{{- $name := include "certrenewal.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The name of objects that are not in the release's namespace: releases of one name in two namespaces do not collide. */ -}}
{{- define "certrenewal.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "certrenewal.fullname" .) }}
{{- end }}

{{- define "certrenewal.selectorLabels" -}}
app.kubernetes.io/name: {{ include "certrenewal.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "certrenewal.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "certrenewal.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: certrenewal
{{- end }}

{{- define "certrenewal.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "certrenewal.fullname" .) }}
{{- else }}
{{- required "serviceAccount.name: name the ServiceAccount to use, as serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The subject of every binding. */ -}}
{{- define "certrenewal.subjects" -}}
- kind: ServiceAccount
  name: {{ include "certrenewal.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{- /* The names of the Service at which pods ask for tokens, as its certificate carries them. */ -}}
{{- define "certrenewal.tokenNames" -}}
{{- $name := printf "%s.%s" (include "certrenewal.fullname" .) .Release.Namespace }}
{{- printf "%s.svc,%s.svc.%s,%s" $name $name .Values.clusterDomain $name }}
{{- end }}

{{- /* The rights that are needed wherever certificates are kept fresh. */ -}}
{{- define "certrenewal.namespacedRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [certrenewal.dev]
  resources: [certrenewals]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [certrenewal.dev]
  resources: [certrenewals/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [list, watch, patch]
- apiGroups: [batch]
  resources: [cronjobs, jobs]
  verbs: [list, watch]
{{- range .Values.extraWorkloads }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource | quote }}]
  verbs: [list, watch, patch]
{{- end }}
{{- if or .Values.restarts.touchPods .Values.restarts.signal .Values.restarts.reportPods }}
- apiGroups: [""]
  resources: [pods]
  verbs: [{{ if .Values.restarts.touchPods }}list, patch{{ else }}list{{ end }}]
{{- end }}
{{- if .Values.restarts.signal }}
- apiGroups: [""]
  resources: [pods/exec]
  verbs: [get, create]
{{- end }}
{{- if .Values.restarts.verify }}
- apiGroups: [""]
  resources: [services]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
{{- end }}
{{- if .Values.trustBundles.enabled }}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames:
    {{- range prepend .Values.trustBundles.authorities .Values.authority.name | uniq }}
    - {{ printf "certrenewal-roots-%s" . | quote }}
    {{- end }}
  verbs: [patch, delete]
{{- end }}
{{- end }}

{{- /* The spec of the CertAuthority, from authority.*; what is missing is named. */ -}}
{{- define "certrenewal.authoritySpec" -}}
{{- with .Values.authority -}}
{{- if not .url }}
{{- fail "authority.url: write the CA's address, https://HOST or https://HOST:PORT, as authority.create is true" }}
{{- end }}
{{- if and (not .fingerprint) (not (trim .caBundle)) }}
{{- fail "authority.fingerprint: write what `step certificate fingerprint root_ca.crt` prints (or the root itself as authority.caBundle), as authority.create is true" }}
{{- end }}
{{- if and .fingerprint (trim .caBundle) }}
{{- fail "authority.fingerprint, authority.caBundle: write one of the two, not both" }}
{{- end -}}
url: {{ .url | quote }}
{{- if .fingerprint }}
fingerprint: {{ .fingerprint | quote }}
{{- else }}
caBundle: {{ .caBundle | quote }}
{{- end }}
{{- with .provisioner }}
{{- $ref := .passwordSecretRef }}
{{- if .name }}
provisioner:
  name: {{ .name | quote }}
  {{- with .kid }}
  kid: {{ . | quote }}
  {{- end }}
  passwordSecretRef:
    namespace: {{ required "authority.provisioner.passwordSecretRef.namespace: write the namespace of the Secret with the provisioner's password" $ref.namespace | quote }}
    name: {{ required "authority.provisioner.passwordSecretRef.name: write the name of the Secret with the provisioner's password" $ref.name | quote }}
    key: {{ $ref.key | quote }}
{{- else if or $ref.name .kid }}
{{- fail "authority.provisioner.name: write the provisioner that the password is for" }}
{{- end }}
{{- end }}
{{- with .policy }}
policy:
  {{- toYaml . | nindent 2 }}
{{- end }}
renewAfterExpiry: {{ .renewAfterExpiry }}
limits:
  concurrency: {{ int .limits.concurrency }}
  requestsPerSecond: {{ int .limits.requestsPerSecond }}
{{- end }}
{{- end }}

{{- /* A hook that removes the CertAuthority of that name, and itself. */ -}}
{{- define "certrenewal.removal" -}}
apiVersion: certrenewal.dev/v1alpha1
kind: CertAuthority
metadata:
  name: {{ .name | quote }}
  annotations:
    helm.sh/hook: {{ .on }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
spec:
  {{- toYaml .spec | nindent 2 }}
{{- end }}
