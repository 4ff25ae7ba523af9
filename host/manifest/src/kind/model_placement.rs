//! `ModelPlacement`: which models are loaded on which pods, the `models.yaml` of the RKLlama router as a resource.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inference_service::KeyRef;
use super::reference::LabelSelector;
use super::status::CommonStatus;
use super::text::Span;

/// Which models are loaded on which pods.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "ModelPlacement",
    plural = "modelplacements",
    shortname = "mplace",
    category = "inference",
    namespaced,
    status = "ModelPlacementStatus",
    derive = "PartialEq",
    doc = "Which models are loaded on which pods.",
    printcolumn(name = "Models", type_ = "string", json_path = ".status.resolved.models"),
    printcolumn(
        name = "Satisfied",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"PlacementSatisfied\")].status"
    ),
    printcolumn(
        name = "Ready",
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
pub struct ModelPlacementSpec {
    /// Models by name, and how many copies or where. Default: none, which unloads nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, PlacedModel>,
    /// Other names of models: from what clients send, to the model. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// Servers outside the cluster. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub external_servers: Vec<ExternalServer>,
    /// Pods that models are loaded on. Default: `app=rkllama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Their port, 1 to 65535. Default: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Time between two comparisons of what should be and what is. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<Span>,
    /// How long loading one model may take. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_timeout: Option<Span>,
    /// How long requests may go on before their model is unloaded. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,
    /// Most models on one pod, at least 1. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_models_per_pod: Option<i32>,
    /// Whether a model of higher priority may push out one of lower. Default: false.
    #[serde(default)]
    pub allow_preemption: bool,
}

/// How many copies of a model, or where. Neither: the entry does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedModel {
    /// Copies, at least 0. Default: 0, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Names of nodes; beats replicas. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Higher goes first. Default: 0.
    #[serde(default)]
    pub priority: i32,
}

/// A server outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalServer {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its base URL.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Relative capacity, at least 1. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub weight: i32,
    /// When it is left alone for a while. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Credentials. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ExternalAuth>,
}

/// When a server is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimit {
    /// Answers of 429 that count as too many, at least 1. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub threshold: i32,
    /// Within this many seconds, at least 1. Default: 60.
    #[serde(default = "sixty")]
    #[schemars(range(min = 1))]
    pub window: i32,
    /// Seconds it is left alone, at least 1. Default: 60.
    #[serde(default = "sixty")]
    #[schemars(range(min = 1))]
    pub cooldown: i32,
}

/// Credentials for a server outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// bearer sets `authorization: Bearer …`, api-key sets `x-api-key`. Default: bearer.
    #[serde(default, rename = "type")]
    pub kind: ExternalAuthType,
    /// The key of a Secret in this namespace.
    pub secret_ref: KeyRef,
}

/// How a credential is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalAuthType {
    /// As a bearer token.
    #[default]
    Bearer,
    /// In a header of its own.
    ApiKey,
}

const fn one() -> i32 {
    1
}

const fn three() -> i32 {
    3
}

const fn sixty() -> i32 {
    60
}

/// What is known of a placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelPlacementStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Models by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, PlacedModelStatus>,
}

/// What is known of one placed model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedModelStatus {
    /// Copies asked for.
    pub desired: i32,
    /// Copies that answer.
    pub loaded: i32,
    /// Copies on their way.
    pub loading: i32,
    /// Copies that failed.
    pub failed: i32,
    /// Pods that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}
