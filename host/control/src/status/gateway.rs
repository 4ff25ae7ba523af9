//! Status of an `InferenceGateway`.

use domain::route::Gateway;
use manifest::kind::inference_gateway::{ActivePolicy, RouteStatus};
use manifest::kind::{InferenceGateway, InferenceGatewayStatus};
use std::collections::BTreeMap;

use super::condition::Conditions;
use super::{About, Draft, ROUTES_MAX, Said, Truth, View, count};
use crate::publish::instead;

pub(super) fn draft(
    about: &About<'_, InferenceGateway>,
    before: &InferenceGatewayStatus,
) -> Draft<InferenceGatewayStatus> {
    let view = about.view;
    let in_force = view.gateways.get(about.name).copied();
    let mut conditions = Conditions::of(&about.findings);
    conditions.set("PolicyProgrammed", programmed(about, in_force.is_some()));
    for limit in limits(about, in_force.map(|gateway| &**gateway)) {
        conditions.limit("Ready", limit);
    }
    if about.object.spec.service.as_ref().is_some_and(|service| service.enabled) {
        let outcome = view.sight.outcomes.services.get(about.name).map(|outcome| outcome.0.clone());
        let said = outcome
            .or_else(|| Said::before(&before.common.conditions, "ServiceReady"))
            .unwrap_or_else(|| Said::pending("the Service is not looked at yet"));
        conditions.limit("Ready", said.clone());
        conditions.set("ServiceReady", said);
    }
    let active_policies = in_force.map_or_else(Vec::new, |gateway| active(gateway, before, view));
    let mut resolved = BTreeMap::new();
    if let Some(gateway) = in_force {
        let names: Vec<&str> = active_policies.iter().map(|policy| policy.name.as_str()).collect();
        resolved.insert("policies".into(), names.join(","));
        resolved.insert("models".into(), gateway.routes.len().to_string());
    }
    let routes = in_force.map_or_else(Vec::new, |gateway| routes(gateway, view));
    let status = InferenceGatewayStatus { active_policies, routes, ..Default::default() };
    Draft { conditions: conditions.with_progress(), resolved, status }
}

/// Whether the chain that is asked for decides.
fn programmed(about: &About<'_, InferenceGateway>, is_in_force: bool) -> Said {
    let mut troubles = about.view.facts.troubles.iter().filter(|trouble| trouble.gateway == *about.name);
    let failed = troubles.clone().find_map(|trouble| Some((trouble, trouble.failure.as_ref()?)));
    if let Some((trouble, failure)) = failed {
        let message = format!(
            "policy {} does not load: {}; {}{}",
            trouble.spec.name,
            failure.sentence(),
            instead(trouble),
            failure.advice()
        );
        return Said::no(failure.reason, message);
    }
    let missing = about.findings.iter().find(|finding| finding.reason == "PolicyNotFound");
    if let Some(finding) = missing {
        return Said::no(finding.reason, manifest::condition::message(finding));
    }
    match troubles.next() {
        Some(trouble) => {
            Said::pending(format!("policy {} is being prepared; {}", trouble.spec.name, instead(trouble)))
        }
        None if is_in_force => Said::yes("Programmed", ""),
        None => Said::pending("the gateway is not in force yet"),
    }
}

/// What keeps the gateway from serving what it was asked for, beyond its own findings.
fn limits(about: &About<'_, InferenceGateway>, in_force: Option<&Gateway>) -> Vec<Said> {
    let Some(gateway) = in_force else { return vec![Said::pending("the gateway is not in force yet")] };
    let mut limits = Vec::new();
    let troubles = about.view.facts.troubles.iter().filter(|trouble| trouble.gateway == *about.name);
    for trouble in troubles.filter(|trouble| !trouble.last_good_serves) {
        limits.push(match &trouble.failure {
            Some(failure) => {
                Said::no(failure.reason, format!("policy {}: {}", trouble.spec.name, failure.message))
            }
            None => Said::pending(format!("policy {} is being prepared", trouble.spec.name)),
        });
    }
    let mut blocked: Vec<_> = gateway.routes.values().filter(|route| route.blocked.is_some()).collect();
    blocked.sort_by(|a, b| a.model.cmp(&b.model));
    if let Some(route) = blocked.first() {
        let message = format!(
            "{} of {} models are answered 503, first of all {}; see InferenceService {}",
            blocked.len(),
            gateway.routes.len(),
            route.model,
            route.service
        );
        limits.push(Said::no("RouteBlocked", message));
    }
    limits.sort_by_key(|said| said.truth != Truth::False);
    limits
}

/// Policies that decide now, in order of the chain. A pool of other thresholds has the same ones.
fn active(gateway: &Gateway, before: &InferenceGatewayStatus, view: &View<'_>) -> Vec<ActivePolicy> {
    let mut routes: Vec<_> = gateway.routes.values().collect();
    routes.sort_by(|a, b| a.model.cmp(&b.model));
    let mut active: Vec<ActivePolicy> = Vec::new();
    for entry in routes.iter().flat_map(|route| &route.pool.chain.entries) {
        let Some(prepared) = &entry.prepared else { continue };
        let name = entry.spec.name.as_str();
        let digest = prepared.digest().to_string();
        if active.iter().any(|known| known.name == name && known.digest == digest) {
            continue;
        }
        let known = before.active_policies.iter().find(|known| known.name == name && known.digest == digest);
        let since = known.and_then(|known| known.since.clone()).unwrap_or_else(|| view.now.to_string());
        active.push(ActivePolicy { name: name.to_owned(), digest, since: Some(since) });
    }
    active
}

fn routes(gateway: &Gateway, view: &View<'_>) -> Vec<RouteStatus> {
    let mut routes: Vec<_> = gateway.routes.values().collect();
    routes.sort_by(|a, b| a.model.cmp(&b.model));
    let status = |route: &&std::sync::Arc<domain::route::Route>| {
        let endpoints = &route.pool.endpoints;
        let ready = endpoints.iter().filter(|endpoint| !endpoint.is_excluded(view.sight.now_ms)).count();
        RouteStatus {
            model: route.model.to_string(),
            endpoints: count(endpoints.len()),
            ready: if route.blocked.is_some() { 0 } else { count(ready) },
        }
    };
    routes.iter().take(ROUTES_MAX).map(status).collect()
}
