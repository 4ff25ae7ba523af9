//! The names that engines give to the numbers we need.

use std::borrow::Cow;

use Meaning::{
    DraftAccepted, DraftProposed, KvBlocks, KvUsage, PrefixHitRate, PrefixHits, PrefixQueries, Queued,
    Running,
};

/// Says in labels how large the KV cache of vLLM is.
pub(super) const CACHE_CONFIG: &[u8] = b"vllm:cache_config_info";

/// How samples of one name with different labels become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    Sum,
    Max,
}

/// What a metric means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Queued,
    Running,
    KvUsage,
    KvBlocks,
    PrefixHitRate,
    PrefixHits,
    PrefixQueries,
    DraftAccepted,
    DraftProposed,
}

/// A name, and what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static [u8],
    pub(super) meaning: Meaning,
    pub(super) fold: Fold,
    /// Only samples with this label; others of the same name mean something else.
    only: Option<(&'static str, &'static str)>,
}

impl Known {
    /// Whether a sample with these labels is meant.
    pub(super) fn takes(&self, labels: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        let is_it = |(name, value)| labels.iter().any(|label| (&*label.0, &*label.1) == (name, value));
        self.only.is_none_or(is_it)
    }
}

const fn sum(name: &'static str, meaning: Meaning) -> Known {
    Known { name: name.as_bytes(), meaning, fold: Fold::Sum, only: None }
}

const fn max(name: &'static str, meaning: Meaning) -> Known {
    Known { name: name.as_bytes(), meaning, fold: Fold::Max, only: None }
}

const fn only(known: Known, label: &'static str, value: &'static str) -> Known {
    Known { only: Some((label, value)), ..known }
}

/// Known names. Of several with one meaning on the same page the first here counts, never both: engines show the old
/// and the new name side by side while they rename. Names without a prefix are those of NIM and MindIE.
pub(super) const KNOWN: [Known; 42] = [
    sum("vllm:num_requests_waiting", Queued),
    sum("sglang:num_queue_reqs", Queued),
    sum("trtllm_num_requests_waiting", Queued),
    sum("llamacpp:requests_deferred", Queued),
    sum("lmdeploy:num_requests_waiting", Queued),
    sum("tgi_queue_size", Queued),
    only(sum("nv_trt_llm_request_metrics", Queued), "request_type", "waiting"),
    sum("nv_inference_pending_request_count", Queued),
    sum("num_requests_waiting", Queued),
    sum("vllm:num_requests_running", Running),
    sum("sglang:num_running_reqs", Running),
    sum("trtllm_num_requests_running", Running),
    sum("llamacpp:requests_processing", Running),
    sum("lmdeploy:num_requests_running", Running),
    sum("tgi_batch_current_size", Running),
    only(sum("nv_trt_llm_request_metrics", Running), "request_type", "scheduled"),
    sum("num_requests_running", Running),
    max("vllm:kv_cache_usage_perc", KvUsage),
    max("vllm:gpu_cache_usage_perc", KvUsage),
    max("sglang:token_usage", KvUsage),
    max("trtllm_kv_cache_utilization", KvUsage),
    max("llamacpp:kv_cache_usage_ratio", KvUsage),
    max("lmdeploy:gpu_cache_usage_perc", KvUsage),
    only(max("nv_trt_llm_kv_cache_block_metrics", KvUsage), "kv_cache_block_type", "fraction"),
    max("gpu_cache_usage_perc", KvUsage),
    max("npu_cache_usage_perc", KvUsage),
    only(sum("nv_trt_llm_kv_cache_block_metrics", KvBlocks), "kv_cache_block_type", "max"),
    max("vllm:gpu_prefix_cache_hit_rate", PrefixHitRate),
    max("sglang:cache_hit_rate", PrefixHitRate),
    max("npu_prefix_cache_hit_rate", PrefixHitRate),
    sum("vllm:prefix_cache_hits_total", PrefixHits),
    sum("vllm:prefix_cache_hits", PrefixHits),
    sum("vllm:gpu_prefix_cache_hits_total", PrefixHits),
    sum("vllm:gpu_prefix_cache_hits", PrefixHits),
    sum("vllm:prefix_cache_queries_total", PrefixQueries),
    sum("vllm:prefix_cache_queries", PrefixQueries),
    sum("vllm:gpu_prefix_cache_queries_total", PrefixQueries),
    sum("vllm:gpu_prefix_cache_queries", PrefixQueries),
    sum("vllm:spec_decode_num_accepted_tokens_total", DraftAccepted),
    sum("vllm:spec_decode_num_accepted_tokens", DraftAccepted),
    sum("vllm:spec_decode_num_draft_tokens_total", DraftProposed),
    sum("vllm:spec_decode_num_draft_tokens", DraftProposed),
];
