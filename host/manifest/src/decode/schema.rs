//! The schemas that documents are checked against: those of our definitions, and those of the core kinds.

use std::collections::HashMap;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::{ConfigMap, PodStatus, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::object::Kind;

/// The schema of a kind: an object with `metadata`. Made once; depends on nothing but the types.
pub(super) fn of(kind: Kind) -> &'static Value {
    static SCHEMAS: OnceLock<HashMap<Kind, Value>> = OnceLock::new();
    &SCHEMAS.get_or_init(|| Kind::ALL.into_iter().map(|kind| (kind, make(kind))).collect())[&kind]
}

fn make(kind: Kind) -> Value {
    match kind {
        Kind::Service => core::<Service>(),
        Kind::EndpointSlice => {
            let mut schema = core::<EndpointSlice>();
            // Of a Service that was scaled away it is null, which the API server writes and takes as an empty list.
            schema["required"] = json!(["addressType"]);
            schema
        }
        Kind::ConfigMap => core::<ConfigMap>(),
        Kind::Secret => core::<Secret>(),
        // Of a pod's spec we read two fields; what else it holds is none of our business.
        Kind::InferencePool => {
            whole(json!({"spec": crate::kind::inference_pool::spec_schema(), "status": {"type": "object"}}))
        }
        Kind::Pod => whole(json!({"spec": {"type": "object"}, "status": core::<PodStatus>()})),
        ours => definition(ours),
    }
}

fn definition(kind: Kind) -> Value {
    let definition = crate::crd::definitions().into_iter().find(|crd| crd.spec.names.kind == kind.as_str());
    let schema = definition
        .and_then(|crd| crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema)
        .and_then(|schema| serde_json::to_value(schema).ok());
    let mut properties = schema.map_or(json!({}), |mut schema| schema["properties"].take());
    // A structural schema cannot describe the entries of what may be a mapping as well as a list.
    if let Some(filters) = properties.pointer_mut("/spec/properties/nlpFilters") {
        filters["items"] = json!({
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "minLength": 1},
                "parameters": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        });
    }
    let mut whole = whole(properties);
    whole["required"] = json!(["spec"]);
    whole
}

/// An object with these properties beside the ones that every object has.
fn whole(mut properties: Value) -> Value {
    properties["apiVersion"] = json!({"type": "string"});
    properties["kind"] = json!({"type": "string"});
    properties["metadata"] = core::<ObjectMeta>();
    json!({"type": "object", "properties": properties})
}

/// The schema of a core type, with everything it refers to written out in place.
fn core<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
