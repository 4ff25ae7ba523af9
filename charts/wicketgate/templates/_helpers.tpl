{{/* The chart's name, at most 63 characters. */}}
{{- define "wicketgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all namespaced objects, at most 63 characters. */}}
{{- define "wicketgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The namespace of everything that names none. */}}
{{- define "wicketgate.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* A name with a suffix, still at most 63 characters. Takes a list: the context and the suffix. */}}
{{- define "wicketgate.suffixed" -}}
{{- $suffix := index . 1 -}}
{{- printf "%s-%s" (include "wicketgate.fullname" (index . 0) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-") $suffix -}}
{{- end -}}

{{/* The name of cluster-wide objects: two releases of one name in two namespaces must not share them. */}}
{{- define "wicketgate.clusterName" -}}
{{- printf "%s:%s" (include "wicketgate.namespace" .) (include "wicketgate.fullname" .) -}}
{{- end -}}

{{- define "wicketgate.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selectors hold. They cannot be changed later, so nothing else belongs here. */}}
{{- define "wicketgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "wicketgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Labels of every object of the gateway. */}}
{{- define "wicketgate.labels" -}}
{{- include "wicketgate.labelsOf" (list . "gateway") -}}
{{- end -}}

{{/* Labels of an object of another component. Takes a list: the context and the component. */}}
{{- define "wicketgate.labelsOf" -}}
{{- $component := index . 1 -}}
{{- with index . 0 -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "wicketgate.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" (.Chart.AppVersion | replace "+" "_")
  "app.kubernetes.io/component" $component
  "app.kubernetes.io/part-of" "wicketgate"
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (include "wicketgate.chart" .) -}}
{{- include "wicketgate.rendered" (list . (merge $own .Values.commonLabels)) -}}
{{- end -}}
{{- end -}}

{{/* `annotations:` of an object. Takes a list: the context and the object's own annotations. */}}
{{- define "wicketgate.annotations" -}}
{{- $context := index . 0 -}}
{{- with merge (dict) (default (dict) (index . 1)) $context.Values.commonAnnotations -}}
annotations:
  {{- include "wicketgate.rendered" (list $context .) | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "wicketgate.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- with default $image.registry (default (dict) .Values.global).imageRegistry -}}{{- $name = printf "%s/%s" . $name -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion (include "wicketgate.text" $image.tag)) -}}
{{- end -}}
{{- end -}}

{{- define "wicketgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wicketgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are watched, one per line; none means all. */}}
{{- define "wicketgate.watchNamespaces" -}}
{{- if eq .Values.rbac.scope "namespace" -}}
{{- join "\n" (default (list (include "wicketgate.namespace" .)) .Values.watchNamespaces | uniq) -}}
{{- end -}}
{{- end -}}

{{/* Grace period of the pod, seconds. */}}
{{- define "wicketgate.gracePeriodSeconds" -}}
{{- $shutdown := .Values.shutdown -}}
{{- $needed := add $shutdown.delaySeconds $shutdown.drainSeconds -}}
{{- if kindIs "invalid" $shutdown.terminationGracePeriodSeconds -}}
{{- add $needed 10 -}}
{{- else -}}
{{- int64 $shutdown.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Whether an object of this chart scales the Deployment: "true" or nothing. */}}
{{- define "wicketgate.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{/* Whether there can be more than one replica: "true" or nothing. Without a number something else decides. */}}
{{- define "wicketgate.replicated" -}}
{{- $least := ternary .Values.autoscaling.minReplicas .Values.replicaCount (eq "true" (include "wicketgate.isScaled" .)) -}}
{{- if or (kindIs "invalid" $least) (gt (int $least) 1) -}}true{{- end -}}
{{- end -}}

{{/* Secret with the certificate of the TLS listener. */}}
{{- define "wicketgate.tlsSecret" -}}
{{- default (include "wicketgate.suffixed" (list . "tls")) .Values.tls.existingSecret -}}
{{- end -}}

{{/* Pull secrets, a YAML list: the parent chart's (`global`), as names or objects, and this chart's own. */}}
{{- define "wicketgate.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (default (list) (default (dict) .Values.global).imagePullSecrets) (default (list) .Values.imagePullSecrets) -}}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) -}}
{{- end -}}
{{- if $secrets -}}{{- uniq $secrets | toYaml -}}{{- end -}}
{{- end -}}

{{/* What each scrape of the metrics port says, as the kinds of the Prometheus operator spell it. Takes the monitor's values. */}}
{{- define "wicketgate.scrape" -}}
port: metrics
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
honorLabels: {{ .honorLabels }}
{{- with .scheme }}
scheme: {{ . }}
{{- end }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How fast replicas come and go. Streams last minutes: removing a pod is dearer than keeping it. */}}
{{- define "wicketgate.scalingBehavior" -}}
{{- $slow := dict "scaleDown" (dict "stabilizationWindowSeconds" (int .Values.autoscaling.scaleDownStabilizationSeconds)) -}}
{{- merge (deepCopy .Values.autoscaling.behavior) $slow | toYaml -}}
{{- end -}}
