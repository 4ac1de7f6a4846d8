{{/* The variables of one component. Called with (dict "root" $ "name" "scorer" "component" $c). */}}
{{- define "rapport.env" -}}
{{- $values := .root.Values -}}
{{- $ports := index (include "rapport.ports" .root | fromYaml) .name -}}
{{- if $ports }}
- {name: RAPPORT_GRPC_ADDR, value: "0.0.0.0:{{ $ports.grpc }}"}
- {name: RAPPORT_ADMIN_ADDR, value: "0.0.0.0:{{ $ports.admin }}"}
{{- if $ports.http }}
- {name: {{ ternary "RAPPORT_FEAST_HTTP_ADDR" "RAPPORT_HTTP_ADDR" (eq .name "feature-store") }}, value: "0.0.0.0:{{ $ports.http }}"}
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
{{- if or (eq .name "collector") (and (eq .name "scorer") .component.gorse.enabled) }}
{{- if $values.apiKeys.existingSecret }}
- name: RAPPORT_API_KEYS
  valueFrom: {secretKeyRef: {name: {{ $values.apiKeys.existingSecret | quote }}, key: {{ $values.apiKeys.existingSecretKey | quote }}}}
{{- end }}
{{- if $values.apiKeys.fileSecret }}
- {name: RAPPORT_API_KEYS_FILE, value: /etc/rapport/keys/keys.yaml}
{{- end }}
{{- end }}
{{- if $ports.gorse }}
- {name: RAPPORT_GORSE_ADDR, value: "0.0.0.0:{{ $ports.gorse }}"}
{{- end }}
{{- if $ports.raw }}
- {name: RAPPORT_RAW_MODELS, value: "true"}
- {name: RAPPORT_RAW_MODELS_ADDR, value: "0.0.0.0:{{ $ports.raw }}"}
{{- end }}
{{- if eq .name "collector" }}
{{- if .component.tls.secret }}
- {name: RAPPORT_TLS_CERT, value: /etc/rapport/tls/tls.crt}
- {name: RAPPORT_TLS_KEY, value: /etc/rapport/tls/tls.key}
{{- if .component.tls.clientCa }}
- {name: RAPPORT_TLS_CLIENT_CA, value: /etc/rapport/tls/ca.crt}
{{- end }}
{{- end }}
{{- if .component.spool.enabled }}
- {name: RAPPORT_SPOOL_DIR, value: /var/lib/rapport/spool}
- {name: RAPPORT_SPOOL_BYTES, value: {{ include "rapport.spoolBytes" .component.spool.size | quote }}}
{{- end }}
{{- end }}
{{- if and $values.policies (has .name (list "collector" "cleaner")) }}
- {name: RAPPORT_POLICIES, value: /etc/rapport/policies}
{{- end }}
{{- if and $values.placements (has .name (list "scorer" "feature-store")) }}
- {name: RAPPORT_PLACEMENTS, value: /etc/rapport/placements}
{{- end }}
{{- if .component.groupId }}
- {name: RAPPORT_GROUP_ID, value: {{ .component.groupId | quote }}}
{{- end }}
{{- if has .name (list "feature-store" "trainer") }}
{{- if $values.offline.url }}
- {name: RAPPORT_OFFLINE_URL, value: {{ $values.offline.url | quote }}}
- {name: AWS_REGION, value: {{ $values.offline.s3.region | quote }}}
{{- with $values.offline.s3.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- if $values.offline.s3.allowHttp }}
- {name: AWS_ALLOW_HTTP, value: "true"}
{{- end }}
{{- with $values.offline.s3.existingSecret }}
{{- range $variable := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $values.offline.s3.existingSecret | quote }}, key: {{ $variable }}}}
{{- end }}
{{- end }}
{{- else }}
- {name: RAPPORT_OFFLINE_URL, value: /var/lib/rapport/offline}
{{- end }}
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
- {name: RAPPORT_KAFKA_SECURITY_PROTOCOL, value: {{ .Values.kafka.securityProtocol | quote }}}
{{- if .Values.kafka.tlsSecret }}
- {name: RAPPORT_KAFKA_CA, value: /etc/rapport/kafka-tls/ca.crt}
{{- if .Values.kafka.mutualTls }}
- {name: RAPPORT_KAFKA_CERT, value: /etc/rapport/kafka-tls/tls.crt}
- {name: RAPPORT_KAFKA_KEY, value: /etc/rapport/kafka-tls/tls.key}
{{- end }}
{{- end }}
{{- if hasPrefix "sasl_" .Values.kafka.securityProtocol }}
- {name: RAPPORT_KAFKA_SASL_MECHANISM, value: {{ .Values.kafka.sasl.mechanism | quote }}}
- {name: RAPPORT_KAFKA_SASL_USERNAME, value: {{ .Values.kafka.sasl.username | quote }}}
- name: RAPPORT_KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.kafka.sasl.existingSecret | quote }}, key: {{ .Values.kafka.sasl.existingSecretKey | quote }}}}
{{- end }}
{{- end -}}

{{/* Nine tenths of a volume's size in bytes: the rest is for the segment that is being removed. */}}
{{- define "rapport.spoolBytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[A-Za-z]+$" . -}}
{{- $bytes := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- div (mul $number (index $bytes $unit | int64) 9) 10 -}}
{{- end -}}

{{- define "rapport.env.redis" -}}
{{- if .Values.redis.existingSecret }}
- name: RAPPORT_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.existingSecret | quote }}, key: {{ .Values.redis.existingSecretKey | quote }}}}
{{- else }}
- {name: RAPPORT_REDIS_URL, value: {{ .Values.redis.url | quote }}}
{{- end }}
- {name: RAPPORT_KEY_PREFIX, value: {{ .Values.redis.keyPrefix | quote }}}
{{- if .Values.redis.replicas }}
- {name: RAPPORT_REDIS_REPLICAS, value: {{ .Values.redis.replicas | quote }}}
{{- end }}
{{- end -}}
