{{/* Arguments of the gateway, a YAML list. Defaults of the binary are left out where no value names them. */}}
{{- define "wicketgate.arguments" -}}
{{- $gateway := .Values.gateway -}}
- serve
- --listen={{ $gateway.bindHost }}:8001
{{- if .Values.tls.enabled }}
- --listen-tls={{ $gateway.bindHost }}:{{ .Values.tls.containerPort }}
- --tls-cert=/etc/wicketgate/tls/tls.crt
- --tls-key=/etc/wicketgate/tls/tls.key
{{- end }}
{{- if .Values.rkllama.enabled }}
- --port={{ .Values.rkllama.port }}
{{- end }}
{{- with include "wicketgate.watchNamespaces" . }}
- --watch-namespaces={{ splitList "\n" . | join "," }}
{{- end }}
{{- with $gateway.workers }}
- --workers={{ int64 . }}
{{- end }}
- --drain-delay={{ int64 .Values.shutdown.delaySeconds }}s
- --drain-timeout={{ int64 .Values.shutdown.drainSeconds }}s
- --prefix-index-bytes={{ int64 $gateway.prefixIndexBytes }}
- --body-memory-bytes={{ int64 $gateway.bodyMemoryBytes }}
- --policy-instances={{ int64 $gateway.policyInstances }}
- --engine-scrape-interval={{ $gateway.engineScrapeInterval }}
- --model-refresh-interval={{ $gateway.modelRefreshInterval }}
- --policy-dir=/policies
- --log-format={{ $gateway.logFormat }}
{{- if $gateway.engineControl }}
- --engine-control
{{- end }}
{{- if $gateway.answerHeaders }}
- --answer-headers
{{- end }}
{{- if $gateway.requestLog }}
- --request-log
{{- end }}
{{- end -}}

{{/* Environment of the gateway, a YAML list. */}}
{{- define "wicketgate.environment" -}}
- name: KUBERNETES_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: GATEWAY_SERVICE
  value: {{ include "wicketgate.fullname" . }}
- name: METRICS_ADDR
  value: {{ ternary (printf "%s:9090" .Values.gateway.bindHost) "0" .Values.metrics.enabled | quote }}
- name: HEALTH_PROBE_ADDR
  value: {{ printf "%s:8081" .Values.gateway.bindHost | quote }}
- name: LEADER_ELECTION_ENABLED
  value: {{ .Values.leaderElection.enabled | quote }}
- name: WICKETGATE_LOG
  value: {{ .Values.gateway.logLevel | quote }}
{{- with .Values.gateway.gpuMetricsEndpoint }}
- name: GPU_METRICS_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Ports of the container, a YAML list. */}}
{{- define "wicketgate.containerPorts" -}}
- {name: http, containerPort: 8001, protocol: TCP}
{{- if .Values.tls.enabled }}
- {name: https, containerPort: {{ .Values.tls.containerPort }}, protocol: TCP}
{{- end }}
{{- if .Values.rkllama.enabled }}
- {name: rkllama, containerPort: {{ .Values.rkllama.port }}, protocol: TCP}
{{- end }}
- {name: health, containerPort: 8081, protocol: TCP}
{{- if .Values.metrics.enabled }}
- {name: metrics, containerPort: 9090, protocol: TCP}
{{- end }}
{{- end -}}

{{/* Volumes and their mounts, a map of two lists. */}}
{{- define "wicketgate.volumes" -}}
{{- $volumes := list -}}
{{- $mounts := list -}}
{{- if .Values.policyFiles -}}
{{- $volumes = append $volumes (dict "name" "policies" "configMap" (dict "name" (include "wicketgate.suffixed" (list . "policies")))) -}}
{{- $mounts = append $mounts (dict "name" "policies" "mountPath" "/policies" "readOnly" true) -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" .Values.tls.existingSecret "defaultMode" 288)) -}}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/wicketgate/tls" "readOnly" true) -}}
{{- end -}}
{{- dict "volumes" (concat $volumes .Values.extraVolumes) "mounts" (concat $mounts .Values.extraVolumeMounts) | toYaml -}}
{{- end -}}
