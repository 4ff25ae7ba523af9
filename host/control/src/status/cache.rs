//! Status of an `InferenceCache`: what its settings apply to, and what the engines behind them say.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::endpoint::EndpointSpec;
use domain::name::ObjectName;
use manifest::kind::inference_cache::CacheStats;
use manifest::kind::{InferenceCache, InferenceCacheStatus, InferenceService, NameOrRef};

use super::condition::Conditions;
use super::{About, Draft, Said, View, few};
use crate::metrics::CacheSums;

pub(super) fn draft(
    about: &About<'_, InferenceCache>,
    _before: &InferenceCacheStatus,
) -> Draft<InferenceCacheStatus> {
    let view = about.view;
    let mut conditions = Conditions::of(&about.findings);
    let users = users(view, about.name, |service| service.spec.inference_cache_ref.as_ref());
    let programmed = if users.iter().any(|name| view.routed.contains(name)) {
        Said::yes("InUse", "")
    } else if users.is_empty() {
        Said::no("NotReferenced", "no InferenceService refers to this cache; add inferenceCacheRef to one")
    } else {
        Said::no("NotRouted", "no gateway routes to a service that refers to this cache")
    };
    conditions.set("Programmed", programmed);
    let spec = &about.object.spec;
    let mut resolved = BTreeMap::new();
    for (key, reference) in [("prefillDecoding", &spec.pdd_ref), ("speculativeDecoding", &spec.sd_ref)] {
        if let Some(to) = reference {
            resolved.insert(key.to_owned(), to.bare_name().to_owned());
        }
    }
    if !users.is_empty() {
        resolved.insert("usedBy".into(), few(users.iter().map(|name| &*name.name)));
    }
    let status = InferenceCacheStatus { cache_stats: stats(view, &users), ..Default::default() };
    Draft { conditions: conditions.with_progress(), resolved, status }
}

/// Services of the same namespace that refer to `name`, sorted.
pub(super) fn users<'a>(
    view: &View<'a>,
    name: &ObjectName,
    reference: impl Fn(&InferenceService) -> Option<&NameOrRef>,
) -> Vec<&'a ObjectName> {
    let refers = |service: &InferenceService| {
        reference(service).is_some_and(|to| {
            to.bare_name() == &*name.name && to.namespace().is_none_or(|n| n == &*name.namespace)
        })
    };
    let services = view.facts.bundle.services.iter();
    services
        .filter(|(service, held)| service.namespace == name.namespace && refers(&held.value))
        .map(|(service, _)| service)
        .collect()
}

/// Endpoints of these services, each once.
pub(super) fn endpoints<'a>(view: &View<'a>, services: &[&ObjectName]) -> Vec<&'a Arc<EndpointSpec>> {
    let drafts = services.iter().filter_map(|name| view.facts.services.get(*name));
    let mut endpoints: Vec<_> = drafts.flat_map(|draft| draft.endpoints.iter()).collect();
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    endpoints.dedup_by(|a, b| a.id == b.id);
    endpoints
}

/// Numbers of the engines that tell them. `None`: none does.
fn stats(view: &View<'_>, services: &[&ObjectName]) -> Option<CacheStats> {
    let mut sums = CacheSums::default();
    for state in endpoints(view, services).into_iter().filter_map(|spec| view.state(spec)) {
        sums.add(&state.reading());
    }
    let stats = CacheStats {
        hit_rate: sums.hit_rate().map(|rate| format!("{rate:.3}")),
        total_entries: sums.entries.map(|blocks| blocks.round() as i64),
        memory_usage: sums.usage().map(|usage| format!("{:.1}%", usage * 100.0)),
    };
    (stats != CacheStats::default()).then_some(stats)
}
