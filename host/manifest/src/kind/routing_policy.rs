//! `RoutingPolicy`: a named policy component.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inference_gateway::FailureMode;
use super::inference_service::KeyRef;
use super::opaque::{AnyObject, AnyValue};
use super::status::CommonStatus;
use super::text::{Memory, SHA256_PATTERN};

/// A named policy component: source, digest, configuration, limits, failure mode.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "production-stack.vllm.ai",
    version = "v1alpha1",
    kind = "RoutingPolicy",
    plural = "routingpolicies",
    shortname = "rpol",
    category = "inference",
    namespaced,
    status = "RoutingPolicyStatus",
    derive = "PartialEq",
    doc = "A named policy component: source, digest, configuration, limits, failure mode.",
    printcolumn(name = "Source", type_ = "string", json_path = ".status.resolved.source"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.policy.version"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.resolved.digest"),
    printcolumn(name = "Used By", type_ = "string", json_path = ".status.resolved.usedBy"),
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.source.oci) || has(self.sha256) || self.source.oci.image.contains('@sha256:')",
    "message": "an oci source needs a digest, in image or in sha256"
}]))]
pub struct RoutingPolicySpec {
    /// Where the component comes from; exactly one.
    pub source: PolicySource,
    /// SHA-256 of the component, lower-case hex; checked before compiling. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256_PATTERN))]
    pub sha256: Option<String>,
    /// The policy's settings, a JSON object; the policy itself accepts or refuses it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AnyValue>,
    /// Bounds on the policy. Default: the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
    /// What a failed call means; an entry of a gateway's policies may override it. Default: NextPolicy.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

/// Where a component comes from; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.builtin), has(self.file), has(self.configMapRef), has(self.secretRef), has(self.oci)].filter(x, x).size() == 1",
    "message": "exactly one of builtin, file, configMapRef, secretRef and oci"
}]))]
pub struct PolicySource {
    /// A policy that is part of the gateway, such as prefix-hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub builtin: Option<String>,
    /// A file on the gateway's own file system, below its policy directory. Read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file: Option<String>,
    /// A key of `binaryData` of a ConfigMap in this namespace, up to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<KeyRef>,
    /// A key of a Secret in this namespace, up to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// An OCI artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciSource>,
}

/// An OCI artifact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciSource {
    /// Registry, repository and digest (`…@sha256:…`), or tag if spec.sha256 is given.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Secret of type kubernetes.io/dockerconfigjson in this namespace. Default: anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretName>,
}

/// Names a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Bounds on one policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimits {
    /// Linear memory, such as 4Mi. Default, and at most: 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Times the default budget of computing steps, 0.001 to 10. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 10.0))]
    pub fuel_factor: Option<f64>,
}

/// What is known of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutingPolicyStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// What the component says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyDescription>,
    /// Gateways whose chain names it, as namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_use_by: Vec<String>,
    /// Failed calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<PolicyFaults>,
}

/// What a component says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyDescription {
    /// Its own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// SHA-256 of the component, lower-case hex.
    pub digest: String,
    /// Its size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// What it imports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
    /// Signals it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// JSON Schema of its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<AnyObject>,
}

/// Failed calls of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFaults {
    /// How many in the replica that leads, since it started.
    pub count: i64,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reason: Option<String>,
    /// When the last one failed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<String>,
}
