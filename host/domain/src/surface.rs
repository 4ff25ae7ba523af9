//! What a gateway lets through beyond the paths that all serve, and which web pages may ask it.

use http::{HeaderValue, Method};

use crate::name::ModelName;

/// Paths of engines that change the engine or show its inside. No further path leads there, whatever a manifest says.
pub const ENGINE_CONTROLS: [&str; 33] = [
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/abort_request",
    "/abort_requests",
    "/clear_hicache_storage_backend",
    "/collective_rpc",
    "/configure_logging",
    "/continue_generation",
    "/flush_cache",
    "/get_server_info",
    "/get_weights_by_name",
    "/init_weights_update_group",
    "/load_lora_adapter",
    "/pause",
    "/pause_generation",
    "/release_memory_occupation",
    "/reset_encoder_cache",
    "/reset_mm_cache",
    "/reset_prefix_cache",
    "/resume",
    "/resume_memory_occupation",
    "/scale_elastic_ep",
    "/server_info",
    "/set_internal_state",
    "/shutdown",
    "/start_profile",
    "/stop_profile",
    "/unload_lora_adapter",
    "/update_weights",
    "/update_weights_from_disk",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
];

/// Paths that every gateway serves or answers itself: a further path of the same name has no effect.
pub const SERVED: [&str; 33] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/moderations",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/pooling",
    "/classify",
    "/tokenize",
    "/detokenize",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/voices",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/models",
    "/v1/realtime",
    "/v1/files",
    "/v1/batches",
    "/engines",
    "/version",
    "/health",
    "/health/ready",
    "/metrics",
    "/sleep",
];

/// A path beyond those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherPath {
    /// Starts with `/`, without a slash at its end and without doubled ones.
    pub path: Box<str>,
    /// Everything below is let through too, at the borders of its segments.
    pub is_prefix: bool,
    /// Methods that are let through. Never empty.
    pub methods: Vec<Method>,
    /// Those methods, as an `Allow` header has them.
    pub allow: Box<str>,
    /// Where a request says its model.
    pub model: ModelPlace,
}

/// Where a request says its model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelPlace {
    /// `model` of the JSON body, or of the form.
    #[default]
    Body,
    /// `model` of the query. The body is not looked at.
    Query,
    /// It is always this one. The body is not looked at.
    Fixed(ModelName),
}

impl FurtherPath {
    /// Whether this is the entry of a path.
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&*self.path) else { return false };
        rest.is_empty() || self.is_prefix && rest.starts_with('/')
    }
}

/// Which web pages may ask a gateway, and what they may send and see (cross-origin resource sharing, the Fetch standard).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins of pages. `None`: any.
    pub origins: Option<Vec<Box<str>>>,
    /// Methods, as a header has them. `None`: any.
    pub methods: Option<HeaderValue>,
    /// Request headers, as a header has them. `None`: any.
    pub headers: Option<HeaderValue>,
    /// Headers of answers that pages see besides the harmless ones. `None`: no more.
    pub expose: Option<HeaderValue>,
    /// Pages may send cookies and credentials. Never with any origin.
    pub credentials: bool,
    /// How long a browser may remember this, seconds, as a header has them.
    pub max_age: HeaderValue,
}

impl Cors {
    /// Whether pages of this origin may ask.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.as_ref().is_none_or(|listed| listed.iter().any(|one| one.as_bytes() == origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let entry = |path: &str, is_prefix| FurtherPath {
            path: path.into(),
            is_prefix,
            methods: vec![Method::POST],
            allow: "POST".into(),
            model: ModelPlace::Body,
        };
        let (exact, prefix) = (entry("/x/y", false), entry("/x/y", true));
        for (path, is_exact, is_below) in
            [("/x/y", true, true), ("/x/y/z", false, true), ("/x/yz", false, false), ("/x", false, false)]
        {
            assert_eq!((exact.matches(path), prefix.matches(path)), (is_exact, is_below), "{path}");
        }
    }
}
