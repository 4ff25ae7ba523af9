//! `PrefillDecodingDisaggregation`: which endpoints prefill, which decode, and how the KV cache travels.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::opaque::{AnyObject, TopologyHint};
use super::reference::LabelSelector;
use super::status::CommonStatus;

/// Which endpoints prefill, which decode, and which wire protocol carries the KV cache.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "PrefillDecodingDisaggregation",
    plural = "prefilldecodingdisaggregations",
    shortname = "pdd",
    category = "inference",
    namespaced,
    status = "PrefillDecodingDisaggregationStatus",
    derive = "PartialEq",
    selectable = ".spec.modelName",
    doc = "Which endpoints prefill, which decode, and which wire protocol carries the KV cache.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelName"),
    printcolumn(name = "Prefill Pod", type_ = "string", json_path = ".status.prefillPodName"),
    printcolumn(name = "Decode Pod", type_ = "string", json_path = ".status.decodePodName"),
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
pub struct PrefillDecodingDisaggregationSpec {
    /// The model that is split, 1 to 512 characters.
    #[schemars(length(min = 1, max = 512))]
    pub model_name: String,
    /// Nodes of the prefill engines, by label. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_hint: Option<TopologyHint>,
    /// Pods that prefill; beats topologyHint. Default: by topologyHint, else by pod label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<LabelSelector>,
    /// Pods that decode. Default: all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<LabelSelector>,
    /// Wire protocol: vllm uses `kv_transfer_params`, sglang bootstrap fields. Default: vllm.
    #[serde(default)]
    pub engine: Engine,
    /// Settings of the Go dialect's engine pods. Kept, not acted upon. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engine_config: BTreeMap<String, String>,
    /// Prompts shorter than this many bytes are decoded alone, at least 0. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_prompt_bytes: Option<i64>,
    /// Resources of the Go dialect's prefill pod. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_resources: Option<AnyObject>,
    /// Resources of the Go dialect's decode pod. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_resources: Option<AnyObject>,
}

/// Which engines are split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
}

/// What is known of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefillDecodingDisaggregationStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// A pod that prefills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_pod_name: Option<String>,
    /// A pod that decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_pod_name: Option<String>,
    /// The same as prefillPodName, under the name of the design document's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_pod: Option<String>,
    /// The same as decodePodName, under the name of the design document's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_target_pod: Option<String>,
}
