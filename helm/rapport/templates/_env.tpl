{{/* The variables of one component. Called with (dict "root" $ "name" "scorer" "component" $c). */}}
{{- define "rapport.env" -}}
{{- $values := .root.Values -}}
{{- $ports := index (include "rapport.ports" .root | fromYaml) .name -}}
{{- if $ports }}
- {name: RAPPORT_GRPC_ADDR, value: "0.0.0.0:{{ $ports.grpc }}"}
- {name: RAPPORT_ADMIN_ADDR, value: "0.0.0.0:{{ $ports.admin }}"}
{{- if $ports.http }}
- {name: RAPPORT_HTTP_ADDR, value: "0.0.0.0:{{ $ports.http }}"}
{{- end }}
- {name: RAPPORT_DRAIN_BUDGET, value: "{{ .component.drainSeconds }}s"}
- {name: RAPPORT_LOG, value: {{ $values.telemetry.logFilter | quote }}}
- {name: RAPPORT_LOG_FORMAT, value: {{ $values.telemetry.logFormat | quote }}}
{{- if $values.telemetry.otlpEndpoint }}
- {name: RAPPORT_OTLP_ENDPOINT, value: {{ $values.telemetry.otlpEndpoint | quote }}}
- {name: RAPPORT_TRACE_SAMPLE, value: {{ $values.telemetry.traceSample | quote }}}
{{- end }}
- {name: RAPPORT_DEFAULT_TENANT, value: {{ $values.defaultTenant | quote }}}
{{- end }}
{{ include "rapport.env.kafka" .root }}
{{- if has .name (list "cleaner" "feature-store" "scorer") }}
{{ include "rapport.env.redis" .root }}
{{- end }}
{{- if has .name (list "cleaner" "feature-store" "scorer") }}
- name: RAPPORT_HASH_KEY
  valueFrom: {secretKeyRef: {name: {{ $values.hashKey.existingSecret | quote }}, key: {{ $values.hashKey.existingSecretKey | quote }}}}
{{- end }}
{{- if eq .name "collector" }}
- name: RAPPORT_API_KEYS
  valueFrom: {secretKeyRef: {name: {{ $values.apiKeys.existingSecret | quote }}, key: {{ $values.apiKeys.existingSecretKey | quote }}}}
{{- end }}
{{- if .component.groupId }}
- {name: RAPPORT_GROUP_ID, value: {{ .component.groupId | quote }}}
{{- end }}
{{- if has .name (list "feature-store" "trainer") }}
- {name: RAPPORT_OFFLINE_URL, value: /var/lib/rapport/offline}
{{- end }}
{{- if has .name (list "trainer" "scorer") }}
- {name: RAPPORT_REGISTRY_DIR, value: /var/lib/rapport/registry}
{{- end }}
{{- if and $values.featureViews (has .name (list "feature-store" "scorer")) }}
- {name: RAPPORT_VIEWS, value: /etc/rapport/views/views.yaml}
{{- end }}
{{- range $name, $value := .component.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "rapport.env.kafka" -}}
- {name: RAPPORT_KAFKA_BROKERS, value: {{ .Values.kafka.brokers | quote }}}
- {name: RAPPORT_TOPIC_PREFIX, value: {{ .Values.kafka.topicPrefix | quote }}}
- {name: RAPPORT_KAFKA_PARTITIONS, value: {{ .Values.topics.partitions | quote }}}
- {name: RAPPORT_KAFKA_REPLICATION, value: {{ .Values.topics.replication | quote }}}
{{- if .Values.kafka.existingSecret }}
- name: RAPPORT_KAFKA_SETTINGS
  valueFrom: {secretKeyRef: {name: {{ .Values.kafka.existingSecret | quote }}, key: {{ .Values.kafka.existingSecretKey | quote }}}}
{{- else if .Values.kafka.settings }}
{{- $pairs := list }}
{{- range $key, $value := .Values.kafka.settings }}{{ $pairs = append $pairs (printf "%s=%v" $key $value) }}{{ end }}
- {name: RAPPORT_KAFKA_SETTINGS, value: {{ join "," $pairs | quote }}}
{{- end }}
{{- end -}}

{{- define "rapport.env.redis" -}}
{{- if .Values.redis.existingSecret }}
- name: RAPPORT_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.existingSecret | quote }}, key: {{ .Values.redis.existingSecretKey | quote }}}}
{{- else }}
- {name: RAPPORT_REDIS_URL, value: {{ .Values.redis.url | quote }}}
{{- end }}
- {name: RAPPORT_KEY_PREFIX, value: {{ .Values.redis.keyPrefix | quote }}}
{{- end -}}
