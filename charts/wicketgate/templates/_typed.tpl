{{/* Booleans and whole numbers that were given as text (`--set-string`, parameters of Argo CD) become what they mean: a
template would take the text "false" for true. Every template includes this first; a second time changes nothing. */}}
{{- define "wicketgate.typed" -}}
{{- range $path := list
  "gateway.requestLog" "gateway.answerHeaders" "gateway.engineControl" "tls.enabled"
  "tls.certificate.enabled" "rkllama.enabled" "gatewayServices.enabled" "secrets.enabled"
  "leaderElection.enabled" "rbac.create" "rbac.aggregatedRoles" "serviceAccount.create"
  "serviceAccount.automount" "metrics.enabled" "metrics.serviceMonitor.enabled" "metrics.serviceMonitor.honorLabels"
  "metrics.prometheusRule.enabled" "metrics.dashboard.enabled" "metrics.podMonitor.enabled" "metrics.podMonitor.honorLabels"
  "metrics.vmServiceScrape.enabled" "metrics.vmServiceScrape.honorLabels" "networkPolicy.enabled" "podDisruptionBudget.enabled"
  "autoscaling.enabled" "tests.enabled" "enabled" "ingress.enabled"
  "httpRoute.enabled" "keda.enabled" "hostNetwork" "policyCache.enabled"
  "policyCache.persistent" "crds.inTemplates" -}}
{{- include "wicketgate.typedAt" (list $.Values (splitList "." $path) "boolean") -}}
{{- end -}}
{{- range $path := list
  "replicaCount" "gateway.workers" "gateway.policyInstances" "gateway.hostPort"
  "tls.containerPort" "tls.servicePort" "tls.nodePort" "rkllama.port"
  "rkllama.nodePort" "shutdown.delaySeconds" "shutdown.drainSeconds" "shutdown.terminationGracePeriodSeconds"
  "service.port" "service.nodePort" "service.nodePort8001" "service.healthCheckNodePort"
  "podDisruptionBudget.maxUnavailable" "podDisruptionBudget.minAvailable" "autoscaling.minReplicas" "autoscaling.maxReplicas"
  "autoscaling.targetCPUUtilizationPercentage" "autoscaling.targetRequestsInFlight" "autoscaling.scaleDownStabilizationSeconds" "autoscaling.targetMemoryUtilizationPercentage"
  "livenessProbe.initialDelaySeconds" "livenessProbe.periodSeconds" "livenessProbe.timeoutSeconds" "livenessProbe.failureThreshold"
  "livenessProbe.successThreshold" "readinessProbe.initialDelaySeconds" "readinessProbe.periodSeconds" "readinessProbe.timeoutSeconds"
  "readinessProbe.failureThreshold" "readinessProbe.successThreshold" "keda.pollingInterval" "keda.cooldownPeriod"
  "revisionHistoryLimit" "minReadySeconds" "progressDeadlineSeconds" "startupProbe.initialDelaySeconds"
  "startupProbe.periodSeconds" "startupProbe.timeoutSeconds" "startupProbe.failureThreshold" "startupProbe.successThreshold" -}}
{{- include "wicketgate.typedAt" (list $.Values (splitList "." $path) "number") -}}
{{- end -}}
{{- end -}}

{{/* Takes a list: the values, the path of one of them, and what it is. */}}
{{- define "wicketgate.typedAt" -}}
{{- $at := index . 0 -}}
{{- $path := index . 1 -}}
{{- range initial $path -}}{{- if kindIs "map" $at -}}{{- $at = index $at . -}}{{- end -}}{{- end -}}
{{- if kindIs "map" $at -}}
{{- $name := last $path -}}
{{- $text := index $at $name -}}
{{- if kindIs "string" $text -}}
{{- if eq (index . 2) "boolean" -}}
{{- $_ := set $at $name (eq $text "true") -}}
{{- else if regexMatch "^[0-9]+$" $text -}}
{{- $_ := set $at $name (int64 $text) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A scalar as text: large whole numbers without an exponent. */}}
{{- define "wicketgate.text" -}}
{{- if kindIs "invalid" . -}}
{{- else if kindIs "float64" . -}}
{{- ternary (int64 . | toString) (toString .) (eq (floor .) .) -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A map of texts, YAML, with the templates in it rendered. Takes a list: the context and the map. */}}
{{- define "wicketgate.rendered" -}}
{{- $context := index . 0 -}}
{{- $rendered := dict -}}
{{- range $name, $value := index . 1 -}}
{{- $_ := set $rendered $name (tpl (include "wicketgate.text" $value) $context) -}}
{{- end -}}
{{- toYaml $rendered -}}
{{- end -}}

{{/* A quantity of memory in bytes. */}}
{{- define "wicketgate.bytes" -}}
{{- $text := include "wicketgate.text" . -}}
{{- $factors := dict "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- $factor := 1 -}}
{{- with $unit -}}{{- $factor = index $factors . -}}{{- end -}}
{{- mul (int64 (trimSuffix $unit $text)) $factor -}}
{{- end -}}
