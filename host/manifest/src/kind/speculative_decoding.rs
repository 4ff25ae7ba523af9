//! `SpeculativeDecoding`: a draft model paired with a target model.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::RATIO_PATTERN;
use super::status::CommonStatus;
use super::text::DIGITS_PATTERN;

/// A draft model paired with a target model.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "SpeculativeDecoding",
    plural = "speculativedecodings",
    shortname = "sdec",
    category = "inference",
    namespaced,
    status = "SpeculativeDecodingStatus",
    derive = "PartialEq",
    selectable = ".spec.draftModel",
    selectable = ".spec.targetModel",
    doc = "A draft model paired with a target model.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.speculationType"),
    printcolumn(name = "Draft Model", type_ = "string", json_path = ".spec.draftModel"),
    printcolumn(name = "Tokens", type_ = "integer", json_path = ".spec.numSpeculativeTokens"),
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
pub struct SpeculativeDecodingSpec {
    /// The model that drafts. Default: none, which only `ngram` can do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub draft_model: Option<String>,
    /// The model that decides. Default: that of the service which refers to this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub target_model: Option<String>,
    /// How tokens are proposed. Default: draft.
    #[serde(default)]
    pub speculation_type: SpeculationType,
    /// Tokens proposed at a time, 1 to 32. Kept, not acted upon: the engine decides. Default: 5.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 32))]
    pub num_speculative_tokens: i32,
    /// Tensor parallelism of the draft model's pods, at least 1. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub draft_tensor_parallel_size: Option<i32>,
    /// Longest match of `ngram`, 1 to 8. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub prompt_lookup_max: Option<i32>,
    /// Sampling of the draft model. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_model_config: Option<DraftModelConfig>,
}

const fn five() -> i32 {
    5
}

/// How tokens are proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpeculationType {
    /// By a smaller model.
    #[default]
    Draft,
    /// From the prompt itself.
    Ngram,
    /// By an MLP head.
    Mlp,
    /// By EAGLE.
    Eagle,
}

/// Sampling of the draft model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DraftModelConfig {
    /// Temperature as text, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = RATIO_PATTERN))]
    pub temperature: Option<String>,
    /// Most tokens, as text: digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DIGITS_PATTERN))]
    pub max_tokens: Option<String>,
}

/// What is known of a pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeculativeDecodingStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Pod of the draft model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_pod_name: Option<String>,
    /// Pod of the target model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_pod_name: Option<String>,
    /// Numbers of the target's engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<SpeculationStats>,
}

/// Numbers of speculation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeculationStats {
    /// Share of draft tokens accepted, as text, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance_rate: Option<String>,
    /// Mean speed-up, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_speedup: Option<String>,
    /// Tokens generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_tokens_generated: Option<i64>,
}
