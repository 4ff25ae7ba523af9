//! `InferenceService`: one served model, where its endpoints come from, and what guards it.

use std::borrow::Cow;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::opaque::AnyObject;
use super::reference::{BackendRef, NameOrRef};
use super::status::CommonStatus;
use super::yes;

/// One served model: where its endpoints come from, which cache and pairing settings apply, what guards it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "InferenceService",
    plural = "inferenceservices",
    shortname = "infsvc",
    category = "inference",
    namespaced,
    status = "InferenceServiceStatus",
    derive = "PartialEq",
    selectable = ".spec.modelName",
    doc = "One served model: where its endpoints come from, which cache and pairing settings apply, what guards it.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelName"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.resolved.backend"),
    printcolumn(name = "Cache", type_ = "string", json_path = ".status.resolved.cache"),
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
pub struct InferenceServiceSpec {
    /// The model's name as the engines know it, 1 to 512 characters. A route of another name rewrites the request.
    #[schemars(length(min = 1, max = 512))]
    pub model_name: String,
    /// Where the endpoints come from.
    pub backend_ref: BackendRef,
    /// The InferenceCache whose thresholds apply. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_cache_ref: Option<NameOrRef>,
    /// The PrefillDecodingDisaggregation that splits requests in two legs. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_decoding_ref: Option<NameOrRef>,
    /// The SpeculativeDecoding that pairs a draft model. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculative_decoding_ref: Option<NameOrRef>,
    /// Filters on prompts and answers, as a map by name or as a list of type and parameters: semanticCache, promptGuard,
    /// tokenLimit, contentFilter, sentimentAnalysis. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nlp_filters: Option<NlpFilters>,
    /// Credentials for the engines, used by probes and scrapes, and by requests that bring none. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<EngineAuth>,
    /// Whom to trust when engines speak TLS. URLs say so themselves; engines behind a Service, Pods or an InferencePool are
    /// asked over TLS when this is set, or when appProtocol or the name of their port says https. Default: nobody is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<EngineTls>,
    /// Where an engine's metrics page is. Default: `/metrics` on its own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsPage>,
    /// Image of the Go dialect's engine pods. Kept, not acted upon: engines are created elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Resources of the Go dialect's engine pods. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<AnyObject>,
    /// Tensor parallelism of the Go dialect's engine pods, 1 to 8. Kept, not acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub tensor_parallel_size: Option<i32>,
}

/// Filters: a map from name to settings, or a list of `{type, parameters}`. Both share one namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NlpFilters {
    /// The map form.
    Map(Map<String, Value>),
    /// The list form.
    List(Vec<NlpFilter>),
}

/// One filter of the list form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NlpFilter {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its settings.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

impl NlpFilters {
    /// Names of the filters with the path of each below `nlpFilters`, in order.
    pub fn names(&self) -> Vec<(&str, String)> {
        match self {
            Self::Map(map) => map.keys().map(|name| (name.as_str(), format!(".{name}"))).collect(),
            Self::List(list) => list
                .iter()
                .enumerate()
                .map(|(at, filter)| (filter.kind.as_str(), format!("[{at}]")))
                .collect(),
        }
    }
}

impl JsonSchema for NlpFilters {
    fn schema_name() -> Cow<'static, str> {
        "NlpFilters".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// Map or list: no type, and impossible bounds for texts, numbers and booleans.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "minLength": 1,
            "maxLength": 0,
            "minimum": 1.0,
            "maximum": 0.0,
            "maxItems": 64,
            "not": {"enum": [true, false]},
        })
    }
}

/// Credentials for the engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.header) || !self.header.lowerAscii().replace('_', '-').matches('^(accept-encoding|connection|content-.*|cookie|date|expect|forwarded|host|http2-settings|keep-alive|max-forwards|proxy-.*|range|set-cookie|te|traceparent|tracestate|trailers?|transfer-encoding|upgrade|via|x-forwarded-.*|x-http-method-override|x-real-ip|x-request-id|x-wicketgate-.*)$')",
    "message": "header is one that only the gateway writes"
}]))]
pub struct EngineAuth {
    /// The key of a Secret in this namespace that holds the credential.
    pub secret_ref: KeyRef,
    /// Header to set, 1 to 256 characters: none that frames the request, concerns the connection or is the gateway's own
    /// (such as transfer-encoding, host, cookie, x-forwarded-for). Default: authorization, with `Bearer ` in front of the
    /// credential.
    #[serde(default = "authorization")]
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
    /// Whether a client's own header of that name goes through instead. Default: true.
    #[serde(default = "yes")]
    pub forward_client: bool,
}

fn authorization() -> String {
    "authorization".into()
}

/// One key of a ConfigMap or Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Whom to trust when engines speak TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.caRef) && has(self.insecureSkipVerify) && self.insecureSkipVerify)",
    "message": "caRef and insecureSkipVerify exclude each other"
}]))]
pub struct EngineTls {
    /// PEM bundle of authorities to trust; only these are trusted. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Accept any certificate. Default: false.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// Where a PEM bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaRef {
    /// ConfigMap or Secret. Default: ConfigMap.
    #[serde(default)]
    pub kind: CaKind,
    /// The object's name, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key. Default: ca.crt.
    #[serde(default = "ca_crt")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// Kind of the object that holds a PEM bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    #[default]
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Where an engine's metrics page is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsPage {
    /// Path, starting with a slash. Default: /metrics.
    #[serde(default = "metrics_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Port, 1 to 65535. Default: the endpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

fn metrics_path() -> String {
    "/metrics".into()
}

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceServiceStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Endpoints discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<i32>,
    /// Those that may be chosen now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_endpoints: Option<i32>,
}
