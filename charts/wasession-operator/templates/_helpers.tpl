{{- define "wasession.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "wasession.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "wasession.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else if eq (include "wasession.name" .) (printf "%s-operator" .Release.Name) }}
{{- include "wasession.name" . }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "wasession.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What tells one component's pods from the release's others; takes a list of the component and the root. */}}
{{- define "wasession.selectorLabels" -}}
{{- $root := index . 1 -}}
app.kubernetes.io/name: {{ include "wasession.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 0 }}
{{- end }}

{{- define "wasession.labels" -}}
app.kubernetes.io/name: {{ include "wasession.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/part-of: wasession
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
An object's labels and annotations, of which the special ones win over the common ones; takes a dict
of the root and, where there are any, component, labels and annotations.
*/}}
{{- define "wasession.metadata" -}}
{{- $labels := include "wasession.labels" .root | fromYaml }}
{{- with .component }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end -}}
labels:
  {{- toYaml (mergeOverwrite $labels (default dict .labels)) | nindent 2 }}
{{- with merge dict (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The annotations by which Helm takes what a hook has created for its own. */}}
{{- define "wasession.owner" -}}
meta.helm.sh/release-name: {{ .Release.Name | quote }}
meta.helm.sh/release-namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{- define "wasession.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "wasession.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image by its digest, or else its tag; takes a list of the image's values and the root. */}}
{{- define "wasession.image" -}}
{{- $image := index . 0 }}
{{- $root := index . 1 }}
{{- with default $image.registry $root.Values.global.imageRegistry }}
{{- trimSuffix "/" . }}/
{{- end }}
{{- $image.repository }}
{{- if $image.digest }}
{{- printf "@%s" $image.digest }}
{{- else }}
{{- printf ":%s" (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* The pull secrets of the chart's pods. Parent charts list global ones by name alone, or as objects. */}}
{{- define "wasession.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat (default list .Values.global.imagePullSecrets) .Values.imagePullSecrets }}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- uniq $secrets | toYaml }}
{{- end }}

{{/* What the operator may do in the namespaces that it serves. README.md has the reasons. */}}
{{- define "wasession.rules" -}}
- apiGroups: [wasession.dev]
  resources: [whatsappsessions]
  verbs: [get, list, watch, patch]
- apiGroups: [wasession.dev]
  resources: [whatsappsessions/status]
  verbs: [patch]
- apiGroups: [wasession.dev]
  resources: [whatsappsessions/finalizers] # to name a session as the owner that blocks deletion
  verbs: [update]
- apiGroups: [wasession.dev]
  resources: [whatsappsessionbackups]
  verbs: [get, list, watch, create, patch, delete] # those of schedules, and those found in the store
- apiGroups: [wasession.dev]
  resources: [whatsappsessionbackups/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets] # applied, never read; garbage collection deletes them
  verbs: [create, patch]
{{- if .Values.backups.snapshots.enabled }}
- apiGroups: [snapshot.storage.k8s.io]
  resources: [volumesnapshots]
  verbs: [get, create] # garbage collection deletes them
{{- end }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* The Secret with the key that the session pods' tokens are derived from. */}}
{{- define "wasession.masterKeySecret" -}}
{{- default (printf "%s-master-key" (include "wasession.fullname" . | trunc 52 | trimSuffix "-")) .Values.masterKey.existingSecret }}
{{- end }}

{{/* User and groups of the chart's pods; without runAsUser the platform assigns them. */}}
{{- define "wasession.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "wasession.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Who may connect to session pods, as in a NetworkPolicy's ingress.from. */}}
{{- define "wasession.sessionPeers" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Release.Namespace }}
  podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .Release.Name | quote }}
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: [operator, gateway]
{{- with .Values.networkPolicy.extraFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "wasession.gateway.fullname" -}}
{{- printf "%s-gateway" (include "wasession.fullname" . | trimSuffix "-operator" | trunc 55 | trimSuffix "-") }}
{{- end }}

{{/* The Secret with the key that the tokens of the gateway's sessions are derived from; the operator writes it. */}}
{{- define "wasession.gateway.sessionKeySecret" -}}
{{- include "wasession.gateway.fullname" . }}-session-key
{{- end }}

{{- define "wasession.gateway.serviceAccountName" -}}
{{- with .Values.gateway.serviceAccount }}
{{- if .create }}
{{- default (include "wasession.gateway.fullname" $) .name }}
{{- else }}
{{- required "gateway.serviceAccount.name is needed when gateway.serviceAccount.create is false" .name }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where the gateway's sessions are. */}}
{{- define "wasession.gateway.namespace" -}}
{{- default .Release.Namespace .Values.gateway.namespace }}
{{- end }}

{{/* The Secret of HS256 tokens: a given one, a generated one, or none where an issuer's keys are all there is. */}}
{{- define "wasession.gateway.jwtSecret" -}}
{{- with .Values.gateway.jwt }}
{{- if .existingSecret }}
{{- .existingSecret }}
{{- else if not .jwksUrl }}
{{- include "wasession.gateway.fullname" $ }}-jwt
{{- end }}
{{- end }}
{{- end }}
