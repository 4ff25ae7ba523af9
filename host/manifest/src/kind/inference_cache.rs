//! `InferenceCache`: when cache affinity beats load, and when an endpoint is full.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::NumberOrString;
use super::opaque::AnyObject;
use super::reference::NameOrRef;
use super::status::CommonStatus;
use super::text::TTL_PATTERN;

/// When cache affinity beats load, and when an endpoint is full.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "InferenceCache",
    plural = "inferencecaches",
    shortname = "icache",
    category = "inference",
    namespaced,
    status = "InferenceCacheStatus",
    derive = "PartialEq",
    selectable = ".spec.modelName",
    doc = "When cache affinity beats load, and when an endpoint is full.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelName"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.cacheType"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".spec.cacheSize"),
    printcolumn(name = "Hit Rate", type_ = "string", json_path = ".status.cacheStats.hitRate"),
    printcolumn(name = "Entries", type_ = "integer", json_path = ".status.cacheStats.totalEntries"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.cacheStats.memoryUsage"),
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
pub struct InferenceCacheSpec {
    /// The model whose cache this is, 1 to 512 characters.
    #[schemars(length(min = 1, max = 512))]
    pub model_name: String,
    /// Thresholds. Default: affinity always counts, and endpoints are full at 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_transfer_policy: Option<KvCacheTransferPolicy>,
    /// A PrefillDecodingDisaggregation for the services that refer to this cache. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdd_ref: Option<NameOrRef>,
    /// A SpeculativeDecoding for the services that refer to this cache. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd_ref: Option<NameOrRef>,
    /// Image of the Go dialect's cache pods. Kept, not acted upon: engines are created elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Tensor parallelism of the Go dialect's cache pods, 1 to 8. Kept, not acted upon. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub tensor_parallel_size: i32,
    /// What is cached. Kept, not acted upon. Default: kv.
    #[serde(default)]
    pub cache_type: CacheType,
    /// Size of the Go dialect's cache, at least 1. Kept, not acted upon. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cache_size: Option<i64>,
    /// How long the Go dialect's cache keeps entries, such as 1h. Kept, not acted upon. Default: 1h.
    #[serde(default = "one_hour", rename = "cacheTTL")]
    #[schemars(regex(pattern = TTL_PATTERN))]
    pub cache_ttl: String,
    /// Resources of the Go dialect's cache pods. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<AnyObject>,
    /// The Go dialect's prefill connector. Kept, not acted upon: see PrefillDecodingDisaggregation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disaggregated_prefill_config: Option<DisaggregatedPrefillConfig>,
}

const fn one() -> i32 {
    1
}

fn one_hour() -> String {
    "1h".into()
}

/// Thresholds of cache affinity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KvCacheTransferPolicy {
    /// Affinity beats load only if a candidate is believed to hold at least this share of the prompt, 0 to 1. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_hit_rate: Option<NumberOrString>,
    /// A candidate whose KV cache is at least this full takes no new prefixes, 0 to 1. Default: 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_threshold: Option<NumberOrString>,
}

/// What is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// Keys and values.
    #[default]
    Kv,
    /// Attention.
    Attention,
    /// Both.
    Hybrid,
}

/// The Go dialect's prefill connector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisaggregatedPrefillConfig {
    /// Whether it is on. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Which side this cache is. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_instance_type: Option<InstanceType>,
    /// How blocks travel. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector_type: Option<ConnectorType>,
    /// Settings of the connector. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connector_config: BTreeMap<String, String>,
    /// Look-up buffer. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup_buffer_config: Option<LookupBufferConfig>,
}

/// Which side an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstanceType {
    /// Prefill.
    Prefill,
    /// Decode.
    Decode,
}

/// How blocks travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorType {
    /// By gRPC.
    Grpc,
    /// Through Redis.
    Redis,
    /// Otherwise.
    Custom,
}

/// The Go dialect's look-up buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookupBufferConfig {
    /// Its size. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<i64>,
    /// What leaves first. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_policy: Option<EvictionPolicy>,
}

/// What leaves a buffer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EvictionPolicy {
    /// What was used least recently.
    Lru,
    /// What came first.
    Fifo,
}

/// What is known of a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceCacheStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Numbers of the engines that share this cache's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_stats: Option<CacheStats>,
}

/// Numbers from the engines' own pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStats {
    /// Share of prompt tokens found in the cache, as text, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_rate: Option<String>,
    /// Blocks in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_entries: Option<i64>,
    /// Share of KV memory in use, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<String>,
}
