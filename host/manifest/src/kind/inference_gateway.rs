//! `InferenceGateway`: which models are routed, by which policy chain, with which limits.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::opaque::{AnyValue, TopologyHint};
use super::reference::NameOrRef;
use super::status::CommonStatus;
use super::surface::{FurtherPath, GatewayCors};
use super::text::Span;

/// Which models are routed, by which policy chain, with which limits.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "InferenceGateway",
    plural = "inferencegateways",
    shortname = "igw",
    category = "inference",
    namespaced,
    status = "InferenceGatewayStatus",
    derive = "PartialEq",
    selectable = ".spec.routeStrategy",
    selectable = ".spec.schedulingPolicy",
    doc = "Which models are routed, by which policy chain, with which limits.",
    printcolumn(name = "Scheduling", type_ = "string", json_path = ".spec.schedulingPolicy"),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.routeStrategy"),
    printcolumn(name = "Affinity", type_ = "boolean", json_path = ".spec.sessionAffinity"),
    printcolumn(name = "Policies", type_ = "string", json_path = ".status.resolved.policies"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.policies) || size(self.policies) == 0 || !(has(self.routeStrategy) || has(self.schedulingPolicy) || has(self.sessionAffinity))",
    "message": "policies excludes routeStrategy, schedulingPolicy and sessionAffinity"
}]))]
pub struct InferenceGatewaySpec {
    /// Models and the services that serve them. Either list, or both. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<ModelRoute>,
    /// The same under the name of the Go dialect. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "atomic"))]
    pub model_routes: Vec<ModelRoute>,
    /// Second link of the policy chain: a built-in such as `PrefixHash`, `round-robin` or `least-loaded` (any spelling),
    /// or a RoutingPolicy of this namespace. Default: none; a gateway that names no policy at all uses `round-robin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub route_strategy: Option<String>,
    /// Last link of the policy chain, such as `gpu-load-aware`. Default: none; after `PrefixHash` it is `load-aware`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduling_policy: Option<String>,
    /// First link of the policy chain: requests of one session stay on one engine. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<bool>,
    /// The policy chain in its general form, in order; excludes the three fields above. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub policies: Vec<ChainEntry>,
    /// How the Go dialect's router finds engines. Accepted; discovery follows each service's backendRef. Default: k8s.
    #[serde(default)]
    pub service_discovery: ServiceDiscovery,
    /// Where the Go dialect's router should run. Kept, not acted upon. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_hint: Option<TopologyHint>,
    /// Host names that select this gateway, without port; compared without case. Its own name, `<name>.<namespace>` and
    /// `<name>.<namespace>.svc` do so anyway, before those that any other gateway lists. Names inside the cluster that are of
    /// another namespace are refused. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub hostnames: Vec<String>,
    /// A Service named after the gateway. Default: not created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<GatewayService>,
    /// Other names of routed models: from what clients send, to the model. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 4096))]
    pub aliases: BTreeMap<String, String>,
    /// Bounds, each per replica of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GatewayLimits>,
    /// Timeouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<GatewayTimeouts>,
    /// Failover before the first byte of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<GatewayRetries>,
    /// Shape of error bodies: Compat is `{"error":"…"}`, OpenAI an object with message, type, param and code. Default:
    /// Compat.
    #[serde(default)]
    pub error_format: ErrorFormat,
    /// Where a request's session name is found. Default: header `x-session-id`, then header or body field `session_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<SessionKey>,
    /// Which web pages may ask this gateway (CORS). Default: the gateway says nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<GatewayCors>,
    /// Paths of engines that are let through beyond those that every gateway serves; the first that matches counts. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<FurtherPath>,
}

/// A model and the service that serves it. The keys of both dialects may be mixed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.model) != has(self.modelName)",
    "message": "exactly one of model and modelName"
}]))]
pub struct ModelRoute {
    /// The name that clients send, 1 to 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub model: Option<String>,
    /// The same under the name of the Go dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub model_name: Option<String>,
    /// The InferenceService. Exactly one of this and serviceRef is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_service_ref: Option<NameOrRef>,
    /// The same under the name of the Go dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<NameOrRef>,
}

/// One link of the policy chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) != has(self.policyRef)",
    "message": "exactly one of name and policyRef"
}]))]
pub struct ChainEntry {
    /// A built-in policy in any spelling, or a RoutingPolicy of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// A RoutingPolicy of this namespace, never a built-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<PolicyRef>,
    /// The policy's settings, a JSON object. Default: those of the RoutingPolicy, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AnyValue>,
    /// Active decides; Shadow runs beside the chain, is recorded and changes nothing. Default: Active.
    #[serde(default)]
    pub mode: EntryMode,
    /// What a failed call means. Default: that of the RoutingPolicy, else NextPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
}

/// Names a RoutingPolicy of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Whether a link decides or only watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EntryMode {
    /// Decides.
    #[default]
    Active,
    /// Is recorded; changes nothing.
    Shadow,
}

/// What a failed call of a policy means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureMode {
    /// As if it had no opinion.
    #[default]
    NextPolicy,
    /// The chain ends; the endpoint with the fewest requests in flight is taken.
    LeastInFlight,
    /// The request is turned away with 503.
    Reject,
}

/// How the Go dialect's router finds engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceDiscovery {
    /// Watching Kubernetes.
    #[default]
    K8s,
    /// From a list.
    Static,
}

/// A Service named after the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayService {
    /// Whether to create it. Default: false.
    #[serde(default)]
    pub enabled: bool,
}

/// Bounds of one gateway, each per replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    /// Largest request body, bytes. Default: 33554432 (32 MiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_073_741_824_i64))]
    pub max_body_bytes: Option<i64>,
    /// Requests in flight; 0 is no bound. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_in_flight: Option<i32>,
    /// Requests that may wait for their turn; 0 turns away at once. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queue_depth: Option<i32>,
    /// How long one may wait, such as 30s. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Span>,
}

/// Timeouts of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTimeouts {
    /// Connecting to an engine, with TLS. Default: 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Span>,
    /// From the end of the request's body to the first byte of the answer's body; waiting, connecting and retries live
    /// from it. A head that comes before its body does not end it. Default: 600s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header: Option<Span>,
    /// Between two chunks of an answer, from its first byte on. Default: 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
}

/// Failover before the first byte of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRetries {
    /// Attempts beyond the first, 0 to 7. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 7))]
    pub attempts: Option<i32>,
    /// Statuses of an engine that count as a failure: any of 408, 429, 500, 502, 503, 504. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), extend("items" = {"type": "integer", "format": "int32", "enum": [408, 429, 500, 502, 503, 504]}))]
    pub statuses: Option<Vec<i32>>,
    /// Retries allowed, as a share of recent requests in percent, 0 to 100. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: Option<i32>,
}

/// Shape of error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorFormat {
    /// `{"error":"…"}`.
    #[default]
    Compat,
    /// `{"error":{"message":…,"type":…,"param":…,"code":…}}`.
    OpenAI,
}

/// Where a request's session name is found; the header wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.header) || has(self.bodyField)",
    "message": "at least one of header and bodyField"
}]))]
pub struct SessionKey {
    /// Name of a request header. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of a top-level field of the JSON body. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub body_field: Option<String>,
}

/// What is known of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceGatewayStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Policies in force, in order of the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_policies: Vec<ActivePolicy>,
    /// Routed models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteStatus>,
}

/// A policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActivePolicy {
    /// Its name.
    pub name: String,
    /// SHA-256 of its component, lower-case hex.
    pub digest: String,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A routed model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// The name that clients send.
    pub model: String,
    /// Endpoints of its pool.
    pub endpoints: i32,
    /// Those that may be chosen now.
    pub ready: i32,
}
