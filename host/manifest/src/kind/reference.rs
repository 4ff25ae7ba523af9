//! References that may be written as a plain name or as an object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A reference to an object: its name, or an object with at least `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NameOrRef {
    /// The plain name, or `namespace/name`.
    Name(String),
    /// The object form.
    Ref(ObjectRef),
}

/// The object form of a [`NameOrRef`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Name of the object.
    pub name: String,
    /// Its namespace; default: that of the object that refers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its API group; default: that of the field's natural kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Another spelling of `apiGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind; default: the field's natural kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl From<&str> for NameOrRef {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl NameOrRef {
    /// The name as written; may hold a namespace in the short form.
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Ref(reference) => &reference.name,
        }
    }

    /// The kind, if one is written.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Ref(reference) => reference.kind.as_deref(),
        }
    }

    /// The API group, if one is written.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Ref(reference) => reference.api_group.as_deref().or(reference.group.as_deref()),
        }
    }

    /// The namespace, if one is written in either form.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Name(name) => name.split_once('/').map(|(namespace, _)| namespace),
            Self::Ref(reference) => reference.namespace.as_deref(),
        }
    }

    /// The name without a namespace in front.
    pub fn bare_name(&self) -> &str {
        match self {
            Self::Name(name) => name.split_once('/').map_or(name, |(_, bare)| bare),
            Self::Ref(reference) => &reference.name,
        }
    }
}

/// Where the endpoints of a service come from: the name of a core `Service`, or an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BackendRef {
    /// The name of a core `Service`.
    Name(String),
    /// The object form.
    Ref(Box<BackendObject>),
}

/// The object form of a [`BackendRef`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendObject {
    /// Name of the object; not needed by `Pods` and `Static`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace; default: the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its API group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Another spelling of `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// `Service` (default), `Backend`, `InferencePool`, `Pods` or `Static`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Port, 1 to 65535. Default: the Service port named `http`, else the only one, else 8000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Weight of the Go dialect, 0 to 100; not acted upon, as a service has one backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// For `Pods`: which pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// For `Static`: the engines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<EngineUrl>,
}

/// An engine's base URL, plain or with what is known of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EngineUrl {
    /// Just the URL; weight 1.
    Url(String),
    /// With more.
    Engine(StaticEngine),
}

/// The object form of an [`EngineUrl`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticEngine {
    /// The URL.
    pub url: String,
    /// Relative capacity, at least 1. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Labels for policies, as a pod's would be. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name of the node. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Failure domain. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl EngineUrl {
    /// The URL as written.
    pub fn url(&self) -> &str {
        match self {
            Self::Url(url) => url,
            Self::Engine(engine) => &engine.url,
        }
    }

    /// Relative capacity as written.
    pub fn weight(&self) -> u32 {
        self.engine().map_or(1, |engine| engine.weight)
    }

    /// What is said of the engine beside its URL.
    pub fn engine(&self) -> Option<&StaticEngine> {
        match self {
            Self::Url(_) => None,
            Self::Engine(engine) => Some(engine),
        }
    }
}

const fn one() -> u32 {
    1
}

/// Which labels an object must have; all parts must hold. An empty selector selects nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and their values. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1))]
    pub key: String,
    /// How its value compares.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label's value compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// Is one of the values.
    In,
    /// Is none of the values, or absent.
    NotIn,
    /// Is present.
    Exists,
    /// Is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether labels, looked up by key, satisfy it.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = label(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.iter().any(|one| one == value));
                match requirement.operator {
                    LabelOperator::In => listed,
                    LabelOperator::NotIn => !listed,
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// A schema for "plain name or object". No type, since a structural schema cannot say so with `oneOf`; each bound bites
/// on values of its own kind only, and the impossible ones forbid arrays, numbers and booleans.
fn name_or_object(description: &str, properties: &Value) -> Schema {
    json_schema!({
        "description": description,
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": properties,
        "minLength": 1,
        "maxLength": 253,
        "minItems": 1,
        "maxItems": 0,
        "minimum": 1.0,
        "maximum": 0.0,
        "not": {"enum": [true, false]},
    })
}

fn common_properties() -> Value {
    json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the object."},
        "namespace": {"type": "string", "maxLength": 63,
            "description": "Its namespace. Default: that of the object that refers; another one is refused."},
        "apiGroup": {"type": "string", "description": "Its API group. Default: that of the field's natural kind."},
        "group": {"type": "string", "description": "Another spelling of apiGroup."},
        "kind": {"type": "string", "description": "Its kind. Default: the field's natural kind."},
    })
}

/// A schema for an [`EngineUrl`], made as [`name_or_object`] is.
fn engine_url() -> Value {
    json!({
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "url": {"type": "string", "minLength": 1, "maxLength": 2048, "description": "Base URL of the engine."},
            "weight": {"type": "integer", "format": "int32", "minimum": 0.0, "maximum": 1_000_000.0,
                "description": "Relative capacity, at least 1. Default: 1."},
            "labels": {"type": "object", "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "description": "Labels of the engine for policies, as those of a pod would be. Default: none."},
            "node": {"type": "string", "maxLength": 253, "description": "Name of its node. Default: unknown."},
            "zone": {"type": "string", "maxLength": 253, "description": "Its failure domain. Default: unknown."},
        },
        "required": ["url"],
        "minLength": 1,
        "maxLength": 2048,
        "minItems": 1,
        "maxItems": 0,
        "minimum": 1.0,
        "maximum": 0.0,
        "not": {"enum": [true, false]},
    })
}

impl JsonSchema for NameOrRef {
    fn schema_name() -> Cow<'static, str> {
        "NameOrRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = name_or_object(
            "The name of an object in the same namespace (1 to 253 characters), or an object with at least name.",
            &common_properties(),
        );
        schema.insert("required".into(), json!(["name"]));
        schema
    }
}

impl JsonSchema for BackendRef {
    fn schema_name() -> Cow<'static, str> {
        "BackendRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = common_properties();
        let selector = generator.subschema_for::<LabelSelector>();
        let more = json!({
            "kind": {"type": "string", "description": "Service (default), Backend (read as Service), InferencePool, Pods or Static."},
            "port": {"type": "integer", "format": "int32", "minimum": 1.0, "maximum": 65535.0,
                "description": "Port of the Service or of the pods. Default: the Service port named http, else the only one, else 8000."},
            "weight": {"type": "integer", "format": "int32", "minimum": 0.0, "maximum": 100.0,
                "description": "Accepted, not acted upon: a service has one backend."},
            "selector": selector,
            "urls": {"type": "array", "maxItems": 4096, "items": engine_url(),
                "description": "For kind Static: base URLs of engines, each a text or {url, weight, labels, node, zone}."},
        });
        if let (Value::Object(properties), Value::Object(more)) = (&mut properties, more) {
            properties.extend(more);
        }
        let mut schema = name_or_object(
            "The name of a core Service in the same namespace, or an object: kind Service with name (and port), kind Pods \
             with selector (and port), kind Static with urls, or kind InferencePool with name.",
            &properties,
        );
        schema.insert(
            "anyOf".into(),
            json!([{"required": ["name"]}, {"required": ["selector"]}, {"required": ["urls"]}]),
        );
        schema
    }
}
