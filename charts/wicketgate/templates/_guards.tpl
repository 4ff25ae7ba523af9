{{/* Values that contradict each other are refused here, with what to do about it. */}}
{{- define "wicketgate.guards" -}}
{{- $shutdown := .Values.shutdown -}}
{{- $needed := add $shutdown.delaySeconds $shutdown.drainSeconds 5 -}}
{{- if lt (int (include "wicketgate.gracePeriodSeconds" .)) (int $needed) -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds must be at least %d: delaySeconds + drainSeconds + 5" (int $needed)) -}}
{{- end -}}
{{- if and .Values.watchNamespaces (eq .Values.rbac.scope "cluster") -}}
{{- fail "watchNamespaces needs rbac.scope=namespace: with rbac.scope=cluster all namespaces are watched" -}}
{{- end -}}
{{- $most := ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled -}}
{{- if and (not .Values.leaderElection.enabled) (gt (int $most) 1) -}}
{{- fail "leaderElection.enabled=false is for one replica: set replicaCount=1 and autoscaling.enabled=false, or elect a leader" -}}
{{- end -}}
{{- $scaling := .Values.autoscaling -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas must not exceed autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (kindIs "invalid" $scaling.targetCPUUtilizationPercentage) (kindIs "invalid" $scaling.targetRequestsInFlight) -}}
{{- fail "autoscaling needs targetCPUUtilizationPercentage or targetRequestsInFlight" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) -}}
{{- fail "tls.enabled needs tls.existingSecret, a Secret of type kubernetes.io/tls" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled" -}}
{{- end -}}
{{- include "wicketgate.guardPorts" . -}}
{{- include "wicketgate.guardArguments" . -}}
{{- end -}}

{{/* A port twice would be refused by the API server, with a worse message. */}}
{{- define "wicketgate.guardPorts" -}}
{{- $pod := list 8001 8081 9090 -}}
{{- $service := list (int .Values.service.port) 8001 -}}
{{- if eq (int .Values.service.port) 8001 -}}{{- $service = list 8001 -}}{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $pod = append $pod (int .Values.tls.containerPort) -}}
{{- $service = append $service (int .Values.tls.servicePort) -}}
{{- end -}}
{{- if .Values.rkllama.enabled -}}
{{- $pod = append $pod (int .Values.rkllama.port) -}}
{{- $service = append $service (int .Values.rkllama.port) -}}
{{- end -}}
{{- if or (ne (len $pod) (len (uniq $pod))) (ne (len $service) (len (uniq $service))) -}}
{{- fail "two of service.port, tls.containerPort, tls.servicePort and rkllama.port are equal, or one is 8001, 8081 or 9090" -}}
{{- end -}}
{{- end -}}

{{/* Arguments and variables that the chart sets must not come again: which one wins would be a riddle. */}}
{{- define "wicketgate.guardArguments" -}}
{{- $set := list -}}
{{- range fromYamlArray (include "wicketgate.arguments" .) -}}{{- $set = append $set (index (splitList "=" .) 0) -}}{{- end -}}
{{- $set = concat $set (list "--metrics-bind-address" "--health-probe-bind-address" "--namespace" "--leader-elect" "--manifests") -}}
{{- range .Values.gateway.extraArgs -}}
{{- if has (index (splitList "=" .) 0) $set -}}
{{- fail (printf "gateway.extraArgs: %s is set by a value of this chart" .) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range concat (fromYamlArray (include "wicketgate.environment" .)) .Values.extraEnv -}}
{{- if has .name $names -}}{{- fail (printf "extraEnv: %s is set twice" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
