{{/* Names and labels. A component is called with (dict "root" $ "name" "scorer"). */}}

{{- define "rapport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rapport.name" -}}
{{ include "rapport.fullname" .root }}-{{ .name }}
{{- end -}}

{{- define "rapport.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .name | quote }}
{{- end -}}

{{- define "rapport.labels" -}}
{{ include "rapport.selectorLabels" . }}
app.kubernetes.io/part-of: rapport
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* Ports of each component, as the services' own defaults. */}}
{{- define "rapport.ports" -}}
collector: {grpc: 7101, http: 7102, admin: 7103}
cleaner: {grpc: 7201, admin: 7203}
feature-store: {grpc: 7301, http: 7302, admin: 7303}
trainer: {grpc: 7401, admin: 7403}
{{- $scorer := .Values.components.scorer }}
scorer: {grpc: 7501, admin: 7503{{ if $scorer.gorse.enabled }}, gorse: 7502{{ end }}{{ if $scorer.rawModels.enabled }}, raw: 7504{{ end }}}
{{- end -}}

{{/* `default` with what the component says laid over it, as YAML. */}}
{{- define "rapport.component" -}}
{{- mergeOverwrite (deepCopy .root.Values.default) (index .root.Values.components .name) | toYaml -}}
{{- end -}}

{{/* The names of the enabled components, as a JSON list. */}}
{{- define "rapport.enabled" -}}
{{- $names := list -}}
{{- range $name := list "collector" "cleaner" "feature-store" "trainer" "scorer" -}}
{{- if (index $.Values.components $name).enabled -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* Called with (dict "root" $ "name" "scorer" "image" (dict ...)): a digest wins over a tag. */}}
{{- define "rapport.image" -}}
{{- $image := default dict .image -}}
{{- $repository := default (printf "%s%s" .root.Values.image.prefix .name) $image.repository -}}
{{- $registry := .root.Values.image.registry -}}
{{- $path := ternary (printf "%s/%s" $registry $repository) $repository (ne $registry "") -}}
{{- if $image.digest -}}
{{ $path }}@{{ $image.digest }}
{{- else -}}
{{ $path }}:{{ coalesce $image.tag .root.Values.image.tag .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "rapport.claim" -}}
{{- $storage := index .root.Values.storage .name -}}
{{- default (printf "%s-%s" (include "rapport.fullname" .root) .name) $storage.existingClaim -}}
{{- end -}}
