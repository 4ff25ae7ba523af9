//! The custom resource definitions, printed from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::kind::{
    InferenceCache, InferenceGateway, InferenceService, ModelPlacement, PrefillDecodingDisaggregation,
    RoutingPolicy, SpeculativeDecoding, StaticRoute,
};

/// Every definition, sorted by plural name.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        InferenceCache::crd(),
        InferenceGateway::crd(),
        InferenceService::crd(),
        ModelPlacement::crd(),
        PrefillDecodingDisaggregation::crd(),
        RoutingPolicy::crd(),
        SpeculativeDecoding::crd(),
        StaticRoute::crd(),
    ]
}

/// Every definition as a file name (`production-stack.vllm.ai_<plural>.yaml`) and its YAML, ending with a newline.
pub fn crds() -> Vec<(String, String)> {
    definitions()
        .iter()
        .map(|definition| {
            let name = format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural);
            let yaml = serde_saphyr::to_string(definition).expect("a definition is plain data");
            (name, format!("{}\n", yaml.trim_end()))
        })
        .collect()
}
