{{/*
The rights that the gateway uses, and no others. Each line is used by code: sources watch, the leader writes status,
ConfigMaps and Events. docs/operations.md has the list with reasons; a test runs the gateway with exactly these.
*/}}
{{- define "wicketgate.rules" -}}
# The custom resources, and their status.
- apiGroups: [production-stack.vllm.ai]
  resources: [inferencecaches, inferencegateways, inferenceservices, modelplacements, prefilldecodingdisaggregations, routingpolicies, speculativedecodings, staticroutes]
  verbs: [list, watch]
- apiGroups: [production-stack.vllm.ai]
  resources: [inferencecaches/status, inferencegateways/status, inferenceservices/status, modelplacements/status, prefilldecodingdisaggregations/status, routingpolicies/status, speculativedecodings/status, staticroutes/status]
  verbs: [patch]
# Where engines are.
- apiGroups: [""]
  resources: [services, pods]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [list, watch]
# Policies in ConfigMaps; the ConfigMap of a StaticRoute.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.secrets.enabled }}
# Credentials for engines and registries.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}
{{- if .Values.gatewayServices.enabled }}
# The Service of an InferenceGateway.
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
{{- end }}
{{- if .Values.gateway.engineControl }}
# The label `sleeping` of an engine's pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
{{- end -}}

{{/* The Lease's name: every replica of a release competes for it. */}}
{{- define "wicketgate.leaseName" -}}wicketgate{{- end -}}
