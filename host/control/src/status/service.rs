//! Status of an `InferenceService`.

use std::collections::BTreeMap;

use manifest::kind::{BackendRef, InferenceService, InferenceServiceStatus};

use super::condition::Conditions;
use super::{About, Draft, Said, count};

pub(super) fn draft(
    about: &About<'_, InferenceService>,
    _before: &InferenceServiceStatus,
) -> Draft<InferenceServiceStatus> {
    let view = about.view;
    let mut conditions = Conditions::of(&about.findings);
    let drafted = view.facts.services.get(about.name);
    let (total, ready) = drafted.map_or((0, 0), |draft| {
        let ready = draft.endpoints.iter().filter(|spec| view.is_ready(spec)).count();
        (draft.endpoints.len() + draft.withheld.len(), ready)
    });
    match drafted {
        None => conditions.limit("Ready", Said::pending("the service is not looked at yet")),
        Some(draft) if draft.endpoints.is_empty() => {
            conditions.limit("Ready", Said::no("NoEndpoints", "no engine of the backend serves the model"));
        }
        Some(_) => {}
    }
    let programmed = if view.routed.contains(about.name) {
        Said::yes("Routed", "")
    } else {
        Said::no("NotRouted", "no gateway routes to this service; name it in an InferenceGateway")
    };
    conditions.set("Programmed", programmed);
    let status = InferenceServiceStatus {
        endpoints: Some(count(total)),
        ready_endpoints: Some(count(ready)),
        ..Default::default()
    };
    Draft { conditions: conditions.with_progress(), resolved: resolved(about.object), status }
}

/// References as they were understood: equal for both dialects.
fn resolved(service: &InferenceService) -> BTreeMap<String, String> {
    let spec = &service.spec;
    let mut resolved = BTreeMap::new();
    resolved.insert("backend".to_owned(), backend(&spec.backend_ref));
    let references = [
        ("cache", &spec.inference_cache_ref),
        ("prefillDecoding", &spec.prefill_decoding_ref),
        ("speculativeDecoding", &spec.speculative_decoding_ref),
    ];
    for (key, reference) in references {
        if let Some(to) = reference {
            resolved.insert(key.to_owned(), to.bare_name().to_owned());
        }
    }
    resolved
}

fn backend(to: &BackendRef) -> String {
    let object = match to {
        BackendRef::Name(name) => return name.clone(),
        BackendRef::Ref(object) => object,
    };
    match object.kind.as_deref() {
        Some("Static") => format!("Static ({})", object.urls.len()),
        Some("Pods") => "Pods".to_owned(),
        Some(kind @ "InferencePool") => format!("{kind}/{}", object.name),
        _ => object.name.clone(),
    }
}
