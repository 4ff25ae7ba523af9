//! `InferencePool` of the Gateway API's inference extension: pods by label, and the ports that engines in them listen on.
//!
//! Not ours: it is only read, as far as it says where engines are.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Its API group.
pub const GROUP: &str = "inference.networking.k8s.io";
/// Its `apiVersion`.
pub const API_VERSION: &str = "inference.networking.k8s.io/v1";
/// Its name in URLs.
pub const PLURAL: &str = "inferencepools";

/// An `InferencePool`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InferencePool {
    /// Name, namespace and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: InferencePoolSpec,
}

/// What an `InferencePool` says of its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Which pods of its namespace.
    pub selector: PoolSelector,
    /// Ports of each pod, 1 to 8; each is an endpoint of its own.
    pub target_ports: Vec<PoolPort>,
    /// What engines speak: `http` (default) or `kubernetes.io/h2c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Labels that pods must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSelector {
    /// Labels and their values.
    pub match_labels: BTreeMap<String, String>,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPort {
    /// Its number.
    pub number: u16,
}

/// The schema of `spec`, as far as it is read; what else a pool holds is none of our business.
pub(crate) fn spec_schema() -> Value {
    let label = json!({"type": "string", "maxLength": 63});
    json!({
        "type": "object",
        "required": ["selector", "targetPorts"],
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "selector": {
                "type": "object",
                "required": ["matchLabels"],
                "properties": {"matchLabels": {"type": "object", "additionalProperties": label}},
            },
            "targetPorts": {
                "type": "array",
                "minItems": 1,
                "maxItems": 8,
                "items": {
                    "type": "object",
                    "required": ["number"],
                    "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}},
                },
            },
            "appProtocol": {"type": "string"},
        },
    })
}
