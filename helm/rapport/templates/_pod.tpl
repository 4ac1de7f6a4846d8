{{/*
The one pod template of every component and job.
Called with (dict "root" $ "name" "scorer" "component" $c), and for a job also
"args" (list), "restartPolicy", and "job" true: a job has no ports, probes or preStop.
*/}}
{{- define "rapport.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $c := .component -}}
{{- $ports := index (include "rapport.ports" .root | fromYaml) .name -}}
{{- $gpu := default dict $c.gpu -}}
metadata:
  labels:
    {{- include "rapport.labels" (dict "root" $root "name" (default .name .label)) | nindent 4 }}
    {{- with $c.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $c.podAnnotations (and $values.featureViews (has .name (list "feature-store" "scorer"))) }}
  annotations:
    {{- with $c.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if and $values.featureViews (has .name (list "feature-store" "scorer")) }}
    rapport/views-sha256: {{ $values.featureViews | sha256sum }}
    {{- end }}
  {{- end }}
spec:
  {{- if .job }}
  restartPolicy: {{ .restartPolicy }}
  {{- end }}
  {{- if not .hook }}
  serviceAccountName: {{ include "rapport.fullname" $root }}
  {{- end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add (int $c.preStopSeconds) (int $c.drainSeconds) 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with $c.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $c.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $c.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $c.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $c.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .job }}
  {{- with $c.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - topologyKey: {{ .topologyKey | quote }}
      maxSkew: {{ .maxSkew | int }}
      whenUnsatisfiable: {{ .whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "rapport.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "rapport.image" (dict "root" $root "name" .name "image" $c.image) | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      {{- with .args }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        privileged: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities: {drop: [ALL]}
        seccompProfile: {type: RuntimeDefault}
      env:
        {{- include "rapport.env" . | trim | nindent 8 }}
      {{- if not .job }}
      ports:
        {{- range $port, $number := $ports }}
        - {name: {{ $port }}, containerPort: {{ $number | int }}, protocol: TCP}
        {{- end }}
      {{- include "rapport.probes" . | nindent 6 }}
      lifecycle:
        preStop: {sleep: {seconds: {{ $c.preStopSeconds | int }}}}
      {{- end }}
      resources:
        {{- $resources := deepCopy (default dict $c.resources) }}
        {{- if $gpu.enabled }}
        {{- $limits := merge (dict $gpu.resource (int $gpu.count)) (default dict $resources.limits) }}
        {{- $resources = set $resources "limits" $limits }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if and (eq .name "feature-store") (not $values.offline.url) }}
        - {name: offline, mountPath: /var/lib/rapport/offline}
        {{- end }}
        {{- if eq .name "trainer" }}
        {{- if not $values.offline.url }}
        - {name: offline, mountPath: /var/lib/rapport/offline, readOnly: true}
        {{- end }}
        - {name: registry, mountPath: /var/lib/rapport/registry}
        {{- end }}
        {{- if eq .name "scorer" }}
        - {name: registry, mountPath: /var/lib/rapport/registry, readOnly: true}
        {{- end }}
        {{- if and $values.featureViews (has .name (list "feature-store" "scorer")) }}
        - {name: views, mountPath: /etc/rapport/views, readOnly: true}
        {{- end }}
        {{- if and $values.policies (has .name (list "collector" "cleaner")) }}
        - {name: policies, mountPath: /etc/rapport/policies, readOnly: true}
        {{- end }}
        {{- if and $values.placements (has .name (list "scorer" "feature-store")) }}
        - {name: placements, mountPath: /etc/rapport/placements, readOnly: true}
        {{- end }}
        {{- if $values.kafka.tlsSecret }}
        - {name: kafka-tls, mountPath: /etc/rapport/kafka-tls, readOnly: true}
        {{- end }}
        {{- if and $values.apiKeys.fileSecret (or (eq .name "collector") $ports.gorse) }}
        - {name: keys, mountPath: /etc/rapport/keys, readOnly: true}
        {{- end }}
        {{- if eq .name "collector" }}
        {{- if $c.tls.secret }}
        - {name: tls, mountPath: /etc/rapport/tls, readOnly: true}
        {{- end }}
        {{- if $c.spool.enabled }}
        - {name: spool, mountPath: /var/lib/rapport/spool}
        {{- end }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- if and (has .name (list "feature-store" "trainer")) (not $values.offline.url) }}
    - name: offline
      persistentVolumeClaim: {claimName: {{ include "rapport.claim" (dict "root" $root "name" "offline") }}}
    {{- end }}
    {{- if has .name (list "trainer" "scorer") }}
    - name: registry
      persistentVolumeClaim: {claimName: {{ include "rapport.claim" (dict "root" $root "name" "registry") }}}
    {{- end }}
    {{- if and $values.featureViews (has .name (list "feature-store" "scorer")) }}
    - name: views
      configMap: {name: {{ include "rapport.fullname" $root }}-views}
    {{- end }}
    {{- if and $values.policies (has .name (list "collector" "cleaner")) }}
    - name: policies
      configMap: {name: {{ include "rapport.fullname" $root }}-policies}
    {{- end }}
    {{- if and $values.placements (has .name (list "scorer" "feature-store")) }}
    - name: placements
      configMap: {name: {{ include "rapport.fullname" $root }}-placements}
    {{- end }}
    {{- if $values.kafka.tlsSecret }}
    - name: kafka-tls
      secret: {secretName: {{ $values.kafka.tlsSecret | quote }}}
    {{- end }}
    {{- if and $values.apiKeys.fileSecret (or (eq .name "collector") $ports.gorse) }}
    - name: keys
      secret: {secretName: {{ $values.apiKeys.fileSecret | quote }}}
    {{- end }}
    {{- if eq .name "collector" }}
    {{- if $c.tls.secret }}
    - name: tls
      secret: {secretName: {{ $c.tls.secret | quote }}}
    {{- end }}
    {{- if $c.spool.enabled }}
    - name: spool
      emptyDir: {sizeLimit: {{ $c.spool.size }}}
    {{- end }}
    {{- end }}
{{- end -}}

{{/*
Liveness and readiness have health names of their own, so that a pod that is not ready is left
alone and only a pod that hangs is restarted. Cleaner and trainer open gRPC only when Kafka has
answered, so they are asked on the admin port, which is there from the start; a collector with TLS
too, since Kubernetes' gRPC probes speak none.
*/}}
{{- define "rapport.probes" -}}
{{- $ports := index (include "rapport.ports" .root | fromYaml) .name -}}
{{- if or (has .name (list "cleaner" "trainer")) (and (eq .name "collector") .component.tls.secret) -}}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  initialDelaySeconds: 5
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- else -}}
{{- if eq .name "scorer" -}}
startupProbe:
  grpc: {port: {{ $ports.grpc | int }}, service: liveness}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div (add (int .component.startup.timeoutSeconds) 4) 5 }}
{{ end -}}
livenessProbe:
  grpc: {port: {{ $ports.grpc | int }}, service: liveness}
  initialDelaySeconds: 5
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  grpc: {port: {{ $ports.grpc | int }}, service: readiness}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
{{- end -}}
