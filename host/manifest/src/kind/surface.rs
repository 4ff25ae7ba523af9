//! What a gateway lets through beyond the paths that all serve, and which web pages may ask it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Span;

/// Which web pages may ask the gateway from their visitors' browsers (CORS). Without it, preflights get 405 and answers carry
/// what engines say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.allowCredentials) && self.allowCredentials && self.allowOrigins.exists(origin, origin == '*'))",
    "message": "allowCredentials excludes the origin *"
}]))]
pub struct GatewayCors {
    /// Origins of pages that may ask, such as `https://chat.example.com` or `http://localhost:3000`; `*` is any.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub allow_origins: Vec<String>,
    /// Methods that they may use; `*` is any. Default: GET and POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    pub allow_methods: Option<Vec<String>>,
    /// Request headers that they may send; `*` is any, `Authorization` included. Default: `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub allow_headers: Option<Vec<String>>,
    /// Headers of answers that their scripts may read, such as `x-request-id`; `*` is any and needs allowCredentials to be
    /// off. Default: those that are always readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub expose_headers: Option<Vec<String>>,
    /// Whether requests may carry cookies and other credentials of the browser; excludes the origin `*`. Keys that a script
    /// sends as a header need only allowHeaders. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// How long a browser may remember the permission, at most 24h. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

/// A path of engines that the gateway lets through beyond those that it serves anyway. It goes to an engine of the request's
/// model, under the limits, filters and policies of every other path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.model) && has(self.modelFrom))",
    "message": "model excludes modelFrom"
}]))]
pub struct FurtherPath {
    /// The path, such as `/v1/custom`, without query. A slash at its end does not count. The gateway's own pages and paths that
    /// control engines (such as `/v1/load_lora_adapter`) are never let through.
    #[schemars(length(min = 2, max = 512))]
    pub path: String,
    /// Exact is this path; Prefix is everything below it, too. Default: Exact.
    #[serde(default, rename = "type")]
    pub kind: PathKind,
    /// Methods that are let through. Default: POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Vec<PathMethod>,
    /// Where a request says its model: Body is `model` of its JSON body or form, Query the parameter `model`. Default: Body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_from: Option<ModelFrom>,
    /// The routed model or alias that every request is for, where requests do not say one; excludes modelFrom. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub model: Option<String>,
}

/// How much a path covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathKind {
    /// Itself.
    #[default]
    Exact,
    /// What is below it, too.
    Prefix,
}

/// A method of a further path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PathMethod {
    /// GET; has no body.
    Get,
    /// HEAD; has no body.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE; has no body.
    Delete,
}

/// Where a request says its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelFrom {
    /// `model` of the JSON body or form.
    Body,
    /// The query's parameter `model`.
    Query,
}
