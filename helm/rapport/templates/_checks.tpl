{{/* What the schema cannot say: values that depend on one another. Each message tells what to do. */}}
{{- define "rapport.checks" -}}
{{- if not .Values.kafka.brokers -}}
{{- fail "kafka.brokers is required: the bootstrap brokers of your Kafka, for example kafka-bootstrap.kafka:9092" -}}
{{- end -}}
{{- if and .Values.kafka.existingSecret .Values.kafka.settings -}}
{{- fail "set kafka.settings or kafka.existingSecret, not both: the Secret holds all settings" -}}
{{- end -}}
{{- range $key, $_ := .Values.kafka.settings -}}
{{- if or (contains "password" $key) (contains "secret" $key) (contains ".pem" $key) -}}
{{- fail (printf "kafka.settings.%s holds a secret: put all settings into a Secret and name it in kafka.existingSecret" $key) -}}
{{- end -}}
{{- end -}}
{{- $places := dict "RAPPORT_API_KEYS" "apiKeys.existingSecret or apiKeys.fileSecret" "RAPPORT_KAFKA_SASL_PASSWORD" "kafka.sasl.existingSecret" "RAPPORT_POLICIES" "policies" "RAPPORT_PLACEMENTS" "placements" "RAPPORT_HASH_KEY" "hashKey.existingSecret" "RAPPORT_OFFLINE_URL" "offline.url" "AWS_SECRET_ACCESS_KEY" "offline.s3.existingSecret" "RAPPORT_REDIS_URL" "redis.url or redis.existingSecret" "RAPPORT_KAFKA_SETTINGS" "kafka.settings or kafka.existingSecret" -}}
{{- range $variable, $place := $places -}}
{{- range $name, $c := merge (dict "default" $.Values.default) $.Values.components -}}
{{- if hasKey (default dict $c.env) $variable -}}
{{- fail (printf "%s.env.%s: set %s instead" $name $variable $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.redis.url) (not .Values.redis.existingSecret) -}}
{{- fail "redis.url is required (redis://host:6379), or redis.existingSecret when the URL holds a password" -}}
{{- end -}}
{{- if and .Values.redis.url .Values.redis.existingSecret -}}
{{- fail "set redis.url or redis.existingSecret, not both" -}}
{{- end -}}
{{- if not .Values.hashKey.existingSecret -}}
{{- fail "hashKey.existingSecret is required: kubectl create secret generic rapport-secrets --from-literal=hash-key=\"$(openssl rand -base64 32)\"" -}}
{{- end -}}
{{- if and .Values.offline.url (hasPrefix "http://" .Values.offline.s3.endpoint) (not .Values.offline.s3.allowHttp) -}}
{{- fail (printf "offline.s3.endpoint %s is not encrypted: offline.s3.allowHttp=true allows that" .Values.offline.s3.endpoint) -}}
{{- end -}}
{{- if and (not .Values.offline.url) .Values.offline.s3.existingSecret -}}
{{- fail "offline.s3.existingSecret is set and offline.url is not: the log would lie on a volume" -}}
{{- end -}}
{{- range $name := list "offline" "registry" -}}
{{- $storage := index $.Values.storage $name -}}
{{- $onVolume := or (eq $name "registry") (not $.Values.offline.url) -}}
{{- if and $onVolume (not $.Values.storage.oneNode) (not $storage.existingClaim) (not (has "ReadWriteMany" $storage.accessModes)) -}}
{{- $bucket := ternary "set offline.url to a bucket (s3://<bucket>/<prefix>), or " "" (eq $name "offline") -}}
{{- fail (printf "pods on several nodes share storage.%s: %sset its accessModes to [ReadWriteMany]; where everything runs on one node, storage.oneNode=true" $name $bucket) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.components.scorer.enabled .Values.components.scorer.gorse.enabled (not .Values.apiKeys.existingSecret) (not .Values.apiKeys.fileSecret) -}}
{{- fail "apiKeys.existingSecret or apiKeys.fileSecret is required while components.scorer.gorse is enabled" -}}
{{- end -}}
{{- if and .Values.components.collector.enabled (not .Values.apiKeys.existingSecret) (not .Values.apiKeys.fileSecret) -}}
{{- fail "apiKeys.existingSecret or apiKeys.fileSecret is required while the collector is enabled: a Secret with api-keys=\"<key>=<tenant>,...\", or one with keys.yaml" -}}
{{- end -}}
{{- if and (hasPrefix "sasl_" .Values.kafka.securityProtocol) (or (not .Values.kafka.sasl.username) (not .Values.kafka.sasl.existingSecret)) -}}
{{- fail (printf "kafka.sasl.username and kafka.sasl.existingSecret are required with kafka.securityProtocol=%s" .Values.kafka.securityProtocol) -}}
{{- end -}}
{{- if and .Values.kafka.mutualTls (not .Values.kafka.tlsSecret) -}}
{{- fail "kafka.mutualTls needs kafka.tlsSecret: a Secret with ca.crt, tls.crt and tls.key" -}}
{{- end -}}
{{- if and .Values.components.collector.tls.clientCa (not .Values.components.collector.tls.secret) -}}
{{- fail "components.collector.tls.clientCa needs components.collector.tls.secret: a Secret with ca.crt, tls.crt and tls.key" -}}
{{- end -}}
{{- range $name := include "rapport.enabled" . | fromJsonArray -}}
{{- $autoscaling := default dict (index $.Values.components $name).autoscaling -}}
{{- $hpa := default dict $autoscaling.hpa -}}
{{- $keda := default dict $autoscaling.keda -}}
{{- if and $hpa.enabled $keda.enabled -}}
{{- fail (printf "components.%s.autoscaling: enable hpa or keda, never both on one Deployment" $name) -}}
{{- end -}}
{{- range $scaler := list $hpa $keda -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- fail (printf "components.%s.autoscaling: minReplicas %d is more than maxReplicas %d" $name (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $keda.enabled (gt (int $keda.maxReplicas) (int $.Values.topics.partitions)) -}}
{{- fail (printf "components.%s.autoscaling.keda.maxReplicas %d is more than topics.partitions %d: the rest would idle" $name (int $keda.maxReplicas) (int $.Values.topics.partitions)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
