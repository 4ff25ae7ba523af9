{{/* Values that contradict each other are refused here, with what to do about it. */}}
{{- define "wicketgate.guards" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled=false is for a parent chart that names it as `condition:` of this dependency; it does not, or this chart is installed by itself" -}}
{{- end -}}
{{- if kindIs "float64" .Values.image.tag -}}
{{- fail (printf "image.tag: %v is a number, and 1.10 would be read as 1.1: write it in quotes" .Values.image.tag) -}}
{{- end -}}
{{- include "wicketgate.guardScaling" . -}}
{{- include "wicketgate.guardEntries" . -}}
{{- $shutdown := .Values.shutdown -}}
{{- $needed := add $shutdown.delaySeconds $shutdown.drainSeconds 5 -}}
{{- if lt (int (include "wicketgate.gracePeriodSeconds" .)) (int $needed) -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds must be at least %d: delaySeconds + drainSeconds + 5" (int $needed)) -}}
{{- end -}}
{{- if and .Values.watchNamespaces (eq .Values.rbac.scope "cluster") -}}
{{- fail "watchNamespaces needs rbac.scope=namespace: with rbac.scope=cluster all namespaces are watched" -}}
{{- end -}}
{{- $most := ternary .Values.autoscaling.maxReplicas .Values.replicaCount (eq "true" (include "wicketgate.isScaled" .)) -}}
{{- if and (not .Values.leaderElection.enabled) (or (kindIs "invalid" $most) (gt (int $most) 1)) -}}
{{- fail "leaderElection.enabled=false is for one replica: set replicaCount=1 and autoscaling.enabled=false, or elect a leader" -}}
{{- end -}}
{{- $scaling := .Values.autoscaling -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas must not exceed autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (kindIs "invalid" $scaling.targetCPUUtilizationPercentage) (kindIs "invalid" $scaling.targetRequestsInFlight) (kindIs "invalid" $scaling.targetMemoryUtilizationPercentage) (not $scaling.metrics) -}}
{{- fail "autoscaling needs targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage, targetRequestsInFlight or metrics" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.tls.certificate.enabled) -}}
{{- fail "tls.enabled needs tls.existingSecret, a Secret of type kubernetes.io/tls, or tls.certificate.enabled" -}}
{{- end -}}
{{- if and .Values.tls.certificate.enabled (not .Values.tls.certificate.issuerRef) -}}
{{- fail "tls.certificate.enabled needs tls.certificate.issuerRef, such as {name: letsencrypt, kind: ClusterIssuer}" -}}
{{- end -}}
{{- range list "serviceMonitor" "podMonitor" "vmServiceScrape" -}}
{{- if and (index $.Values.metrics .).enabled (not $.Values.metrics.enabled) -}}
{{- fail (printf "metrics.%s.enabled needs metrics.enabled" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.enabled) -}}
{{- fail "metrics.prometheusRule.enabled needs metrics.enabled: an alert fires when no gateway is scraped" -}}
{{- end -}}
{{- include "wicketgate.guardNamespaces" . -}}
{{- include "wicketgate.guardPorts" . -}}
{{- include "wicketgate.guardArguments" . -}}
{{- end -}}

{{/* A resource in a namespace that nobody watches would wait for ever. */}}
{{- define "wicketgate.guardNamespaces" -}}
{{- $watched := include "wicketgate.watchNamespaces" . | splitList "\n" -}}
{{- if eq .Values.rbac.scope "namespace" -}}
{{- range concat .Values.gateways .Values.services .Values.policies -}}
{{- $namespace := default (include "wicketgate.namespace" $) .namespace -}}
{{- if not (has $namespace $watched) -}}
{{- fail (printf "%s is to be in the namespace %s, which is not watched: add it to watchNamespaces, or set its namespace" .name $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
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
{{- if .Values.policyCache.enabled -}}{{- $set = append $set "--policy-cache-dir" -}}{{- end -}}
{{- /* Flags behind variables that the chart sets, and those that need a port or a right that only a value gives. */ -}}
{{- $set = concat $set (list "--log-level" "--gateway-service" "--gpu-metrics-endpoint" "--engine-control" "--port" "--listen-tls") -}}
{{- range .Values.gateway.extraArgs -}}
{{- /* `-flag` is read as `--flag`. */ -}}
{{- if has (printf "--%s" (index (splitList "=" .) 0 | trimPrefix "-" | trimPrefix "-")) $set -}}
{{- fail (printf "gateway.extraArgs: %s is set by a value of this chart" .) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range concat (fromYamlArray (include "wicketgate.environment" .)) (fromYamlArray (include "wicketgate.extraEnv" .)) -}}
{{- if has .name $names -}}{{- fail (printf "extraEnv: %s is set twice" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{/* Two autoscalers of one Deployment would work against each other. */}}
{{- define "wicketgate.guardScaling" -}}
{{- if and .Values.keda.enabled .Values.autoscaling.enabled -}}
{{- fail "keda.enabled and autoscaling.enabled exclude each other: KEDA makes a HorizontalPodAutoscaler of its own" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.triggers) -}}
{{- fail "keda.enabled needs keda.triggers" -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas must not exceed autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}

{{/* Ways in from outside need to say from where. */}}
{{- define "wicketgate.guardEntries" -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs, such as [{name: GATEWAY, namespace: NAMESPACE}]" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts, such as [{host: llm.example.com}]; a host of \"\" means every name" -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (eq (include "wicketgate.text" .Values.podDisruptionBudget.minAvailable) "100%") -}}
{{- fail "podDisruptionBudget.minAvailable=100% would keep nodes from being drained for ever" -}}
{{- end -}}
{{- end -}}
