//! Status of `SpeculativeDecoding` and `PrefillDecodingDisaggregation`: which pods they are about, as far as is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::endpoint::EndpointSpec;
use domain::name::ObjectName;
use manifest::bundle::facts::PodFacts;
use manifest::kind::reference::LabelSelector;
use manifest::kind::speculative_decoding::SpeculationStats;
use manifest::kind::{
    NameOrRef, PrefillDecodingDisaggregation, PrefillDecodingDisaggregationStatus, SpeculativeDecoding,
    SpeculativeDecodingStatus,
};

use super::cache::{endpoints, users};
use super::condition::Conditions;
use super::{About, Draft, Said, View, few};

pub(super) fn speculative(
    about: &About<'_, SpeculativeDecoding>,
    _before: &SpeculativeDecodingStatus,
) -> Draft<SpeculativeDecodingStatus> {
    let view = about.view;
    let spec = &about.object.spec;
    let mut conditions = Conditions::of(&about.findings);
    let targets = referring(
        view,
        about.name,
        |service| service.speculative_decoding_ref.as_ref(),
        |cache| cache.sd_ref.as_ref(),
    );
    conditions.set("Programmed", programmed(&conditions, &targets, "speculativeDecodingRef"));
    let serving = endpoints(view, &targets);
    let drafting = spec.draft_model.as_deref().map_or_else(Vec::new, |model| {
        let services = &view.facts.bundle.services;
        let named = services.iter().filter(|(name, held)| {
            name.namespace == about.name.namespace && held.value.spec.model_name == model
        });
        endpoints(view, &named.map(|(name, _)| name).collect::<Vec<_>>())
    });
    let accepted: Vec<f64> =
        serving.iter().filter_map(|spec| view.state(spec)?.reading().acceptance).map(f64::from).collect();
    let rate = (!accepted.is_empty()).then(|| accepted.iter().sum::<f64>() / accepted.len() as f64);
    let stats = rate.map(|rate| SpeculationStats {
        acceptance_rate: Some(format!("{rate:.3}")),
        ..SpeculationStats::default()
    });
    let mut resolved = used_by(&targets);
    let target_model = spec.target_model.clone().or_else(|| {
        let service = view.facts.bundle.services.get(*targets.first()?)?;
        Some(service.value.spec.model_name.clone())
    });
    if let Some(model) = target_model {
        resolved.insert("targetModel".into(), model);
    }
    let status = SpeculativeDecodingStatus {
        draft_pod_name: pod_of(&drafting),
        target_pod_name: pod_of(&serving),
        stats,
        ..Default::default()
    };
    Draft { conditions: conditions.with_progress(), resolved, status }
}

pub(super) fn disaggregated(
    about: &About<'_, PrefillDecodingDisaggregation>,
    _before: &PrefillDecodingDisaggregationStatus,
) -> Draft<PrefillDecodingDisaggregationStatus> {
    let view = about.view;
    let spec = &about.object.spec;
    let mut conditions = Conditions::of(&about.findings);
    let services = referring(
        view,
        about.name,
        |service| service.prefill_decoding_ref.as_ref(),
        |cache| cache.pdd_ref.as_ref(),
    );
    conditions.set("Programmed", programmed(&conditions, &services, "prefillDecodingRef"));
    let all = endpoints(view, &services);
    let prefilling = all.iter().copied().filter(|endpoint| {
        endpoint.roles.prefill
            || spec.prefill.as_ref().is_some_and(|selector| selects(view, selector, endpoint))
    });
    let prefilling: Vec<_> = prefilling.collect();
    let decoding = all.iter().copied().filter(|endpoint| {
        endpoint.roles.decode
            || match &spec.decode {
                Some(selector) => selects(view, selector, endpoint),
                // Whoever does not prefill decodes, if anybody prefills.
                None => !prefilling.is_empty() && !prefilling.iter().any(|other| other.id == endpoint.id),
            }
    });
    let decoding: Vec<_> = decoding.collect();
    let (prefill, decode) = (pod_of(&prefilling), pod_of(&decoding));
    let status = PrefillDecodingDisaggregationStatus {
        prefill_pod_name: prefill.clone(),
        decode_pod_name: decode.clone(),
        prefill_pod: prefill,
        decode_target_pod: decode,
        ..Default::default()
    };
    Draft { conditions: conditions.with_progress(), resolved: used_by(&services), status }
}

/// Services that refer to an object, directly or through their cache, sorted.
fn referring<'a>(
    view: &View<'a>,
    name: &ObjectName,
    direct: fn(&manifest::kind::InferenceServiceSpec) -> Option<&NameOrRef>,
    of_cache: fn(&manifest::kind::InferenceCacheSpec) -> Option<&NameOrRef>,
) -> Vec<&'a ObjectName> {
    let mut found = users(view, name, |service| direct(&service.spec));
    let refers = |to: &NameOrRef| to.bare_name() == &*name.name;
    let caches = view.facts.bundle.caches.iter().filter(|(cache, held)| {
        cache.namespace == name.namespace && of_cache(&held.value.spec).is_some_and(refers)
    });
    for (cache, _) in caches {
        found.extend(users(view, cache, |service| service.spec.inference_cache_ref.as_ref()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn programmed(conditions: &Conditions, services: &[&ObjectName], field: &str) -> Said {
    if services.is_empty() {
        return Said::no(
            "NotReferenced",
            format!("no InferenceService refers to this object; add {field} to one"),
        );
    }
    // What keeps it from being ready keeps it from being in force.
    conditions.get("Ready").cloned().map_or_else(
        || Said::pending(""),
        |ready| if conditions.is_true("Ready") { Said::yes("Programmed", "") } else { ready },
    )
}

fn used_by(services: &[&ObjectName]) -> BTreeMap<String, String> {
    let mut resolved = BTreeMap::new();
    if !services.is_empty() {
        resolved.insert("usedBy".into(), few(services.iter().map(|name| &*name.name)));
    }
    resolved
}

/// The pod of the first endpoint that has one; endpoints are sorted, so that it is the same as long as it is there.
fn pod_of(endpoints: &[&Arc<EndpointSpec>]) -> Option<String> {
    let mut names: Vec<&str> =
        endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref()).map(|pod| &*pod.name).collect();
    names.sort_unstable();
    names.first().map(|name| (*name).to_owned())
}

fn selects(view: &View<'_>, selector: &LabelSelector, endpoint: &EndpointSpec) -> bool {
    let Some(pod) = &endpoint.pod else { return false };
    let name = ObjectName { namespace: Arc::clone(&pod.namespace), name: Arc::clone(&pod.name) };
    let Some(held) = view.facts.bundle.pods.get(&name) else { return false };
    let pod: &PodFacts = &held.value;
    selector.selects(|key| pod.labels.get(key).map(|value| &**value))
}
