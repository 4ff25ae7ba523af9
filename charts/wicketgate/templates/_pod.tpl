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
- --prefix-index-bytes={{ include "wicketgate.bytes" $gateway.prefixIndexBytes }}
- --body-memory-bytes={{ include "wicketgate.bytes" $gateway.bodyMemoryBytes }}
- --policy-instances={{ int64 $gateway.policyInstances }}
- --engine-scrape-interval={{ $gateway.engineScrapeInterval }}
- --model-refresh-interval={{ $gateway.modelRefreshInterval }}
- --policy-dir=/policies
{{- if .Values.policyCache.enabled }}
- --policy-cache-dir=/var/cache/wicketgate
{{- end }}
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
- {name: http, containerPort: 8001, protocol: TCP{{ with .Values.gateway.hostPort }}, hostPort: {{ . }}{{ end }}}
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
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" (include "wicketgate.tlsSecret" .) "defaultMode" 288)) -}}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/wicketgate/tls" "readOnly" true) -}}
{{- end -}}
{{- if .Values.policyCache.enabled -}}
{{- $source := dict "emptyDir" (dict "sizeLimit" .Values.policyCache.size) -}}
{{- if .Values.policyCache.persistent -}}
{{- $source = dict "persistentVolumeClaim" (dict "claimName" (include "wicketgate.policyCacheClaim" .)) -}}
{{- end -}}
{{- $volumes = append $volumes (merge (dict "name" "policy-cache") $source) -}}
{{- $mounts = append $mounts (dict "name" "policy-cache" "mountPath" "/var/cache/wicketgate") -}}
{{- end -}}
{{- dict "volumes" (concat $volumes .Values.extraVolumes) "mounts" (concat $mounts .Values.extraVolumeMounts) | toYaml -}}
{{- end -}}

{{/* Claim of the policy cache. */}}
{{- define "wicketgate.policyCacheClaim" -}}
{{- default (include "wicketgate.suffixed" (list . "policies-cache")) .Values.policyCache.existingClaim -}}
{{- end -}}

{{/* The user's environment variables, a YAML list: given as such, or as a map of names to texts or to `{valueFrom: …}`. */}}
{{- define "wicketgate.extraEnv" -}}
{{- $list := list -}}
{{- if kindIs "map" .Values.extraEnv -}}
{{- range $name, $value := .Values.extraEnv -}}
{{- if kindIs "map" $value -}}
{{- $list = append $list (merge (dict "name" $name) $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $list = append $list (dict "name" $name "value" (include "wicketgate.text" $value)) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- range .Values.extraEnv -}}
{{- $list = append $list (ternary (merge (dict "value" (include "wicketgate.text" .value)) .) . (hasKey . "value")) -}}
{{- end -}}
{{- end -}}
{{- toYaml $list -}}
{{- end -}}

{{/* Settings of the pod that are passed on as they are, YAML; templates in them are rendered. */}}
{{- define "wicketgate.podSettings" -}}
{{- $settings := dict -}}
{{- range $name := list "priorityClassName" "runtimeClassName" "schedulerName" "hostAliases" "dnsConfig" "dnsPolicy" "nodeSelector" "tolerations" "affinity" "initContainers" -}}
{{- with index $.Values $name -}}{{- $_ := set $settings $name . -}}{{- end -}}
{{- end -}}
{{- if .Values.hostNetwork -}}
{{- $_ := set $settings "hostNetwork" true -}}
{{- $_ := set $settings "dnsPolicy" (default "ClusterFirstWithHostNet" .Values.dnsPolicy) -}}
{{- end -}}
{{- if $settings -}}{{- tpl (toYaml $settings) . -}}{{- end -}}
{{- end -}}
