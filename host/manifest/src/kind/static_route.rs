//! `StaticRoute`: backends from a list.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::CommonStatus;

/// Static backends, for this gateway and for the ConfigMap that the production stack's router mounts.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "StaticRoute",
    plural = "staticroutes",
    shortname = "sroute",
    category = "inference",
    namespaced,
    status = "StaticRouteStatus",
    derive = "PartialEq",
    doc = "Static backends, for this gateway and for the ConfigMap that the production stack's router mounts.",
    printcolumn(name = "Backends", type_ = "string", json_path = ".status.resolved.backends"),
    printcolumn(name = "ConfigMap", type_ = "string", json_path = ".status.configMapRef"),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"BackendsHealthy\")].status"
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
    "rule": "size(self.staticBackends.split(',')) == size(self.staticModels.split(','))",
    "message": "staticBackends and staticModels must name equally many"
}]))]
pub struct StaticRouteSpec {
    /// How backends are found; only static. Default: static.
    #[serde(default)]
    pub service_discovery: StaticDiscovery,
    /// How one is chosen: roundrobin or least_loaded, or any routing policy by name. Default: roundrobin.
    #[serde(default = "round_robin")]
    #[schemars(length(min = 1, max = 253))]
    pub routing_logic: String,
    /// Base URLs, separated by commas, at most 65536 characters.
    #[schemars(length(min = 1, max = 65536))]
    pub static_backends: String,
    /// Model names, separated by commas, one for each backend in the same order; repeats are meant.
    #[schemars(length(min = 1, max = 65536))]
    pub static_models: String,
    /// The router that mounts the ConfigMap. Default: this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_ref: Option<RouterRef>,
    /// How the router's health is checked. Default: every 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Name of the ConfigMap. Default: `<name>-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: Option<String>,
}

fn round_robin() -> String {
    "roundrobin".into()
}

/// How backends are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StaticDiscovery {
    /// From the list.
    #[default]
    Static,
}

/// Names a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouterRef {
    /// Its kind, such as Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its API version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace. Default: the object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Part of an object reference; kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
    /// Part of an object reference; kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Part of an object reference; kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// How health is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// How long a check may take, seconds, at least 1; at most `periodSeconds` and 30 count. Default: 5.
    #[serde(default = "five")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: i32,
    /// Time between checks, seconds, at least 1. Default: 10.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub period_seconds: i32,
    /// Successes in a row that make healthy, at least 1. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub success_threshold: i32,
    /// Failures in a row that make unhealthy, at least 1. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub failure_threshold: i32,
}

const fn one() -> i32 {
    1
}

const fn three() -> i32 {
    3
}

const fn five() -> i32 {
    5
}

const fn ten() -> i32 {
    10
}

/// What is known of a static route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRouteStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Name of the ConfigMap that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<String>,
    /// When it was last written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_time: Option<String>,
}
