//! Status of a `StaticRoute`: its ConfigMap, its backends, and the router that reads it.

use std::collections::BTreeMap;

use domain::redact;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use manifest::kind::{StaticRoute, StaticRouteStatus};

use super::condition::Conditions;
use super::outcome::{BackendHealth, ConfigMapOutcome, RouterHealth};
use super::{About, Draft, NAMES_MAX, Said, Truth};

/// Reason of the event and the condition when a ConfigMap cannot be written: as the production stack's controller spells
/// it.
pub(crate) const FAILED: &str = "FailedReconcileConfigMap";
/// Reason when a ConfigMap is somebody else's.
pub(crate) const CONFLICT: &str = "ConfigMapConflict";
/// Reason when what is referred to is not there.
const MISSING: &str = "ReferenceNotFound";

pub(super) fn draft(about: &About<'_, StaticRoute>, before: &StaticRouteStatus) -> Draft<StaticRouteStatus> {
    let outcomes = &about.view.sight.outcomes;
    let known = &before.common.conditions;
    let mut conditions = Conditions::of(&about.findings);
    let mut status = StaticRouteStatus {
        config_map_ref: before.config_map_ref.clone(),
        last_applied_time: before.last_applied_time.clone(),
        ..Default::default()
    };
    let programmed = match outcomes.config_maps.get(about.name) {
        Some(outcome) => config_map(outcome, &mut status, about.view.now),
        // What contradicts itself is not written; an earlier version may stand in the ConfigMap.
        None if !conditions.is_true("Accepted") => {
            Said::no("NotAccepted", "the ConfigMap is left as it is until the object is acceptable")
        }
        None => Said::before(known, "Programmed")
            .unwrap_or_else(|| Said::pending("the ConfigMap is not written yet")),
    };
    if programmed.reason == CONFLICT {
        conditions.limit("Accepted", programmed.clone());
    }
    conditions.limit("Ready", programmed.clone());
    conditions.set("Programmed", programmed);
    let health = outcomes.backends.get(about.name).map(|health| backends(&mut conditions, health));
    if let Some(said) = health.or_else(|| Said::before(known, "BackendsHealthy")) {
        conditions.set("BackendsHealthy", said);
    }
    if about.object.spec.router_ref.is_some() {
        router(&mut conditions, outcomes.routers.get(about.name), known);
    }
    let spec = &about.object.spec;
    let total = spec.static_backends.split(',').filter(|url| !url.trim().is_empty()).count();
    let resolved = BTreeMap::from([("backends".to_owned(), total.to_string())]);
    Draft { conditions: conditions.with_progress(), resolved, status }
}

fn config_map(outcome: &ConfigMapOutcome, status: &mut StaticRouteStatus, now: Timestamp) -> Said {
    match outcome {
        ConfigMapOutcome::Written { name, at, remark } => {
            let is_new = status.config_map_ref.as_ref() != Some(name) || status.last_applied_time.is_none();
            if let Some(at) = at.or(is_new.then_some(now)) {
                status.last_applied_time = Some(at.to_string());
            }
            status.config_map_ref = Some(name.clone());
            Said::yes("ConfigMapWritten", remark.clone())
        }
        ConfigMapOutcome::Conflict { message } => Said::no(CONFLICT, message.clone()),
        ConfigMapOutcome::Failed { message } => Said::no(FAILED, message.clone()),
    }
}

fn backends(conditions: &mut Conditions, health: &BackendHealth) -> Said {
    if health.dead.is_empty() {
        return Said::yes("BackendsHealthy", format!("all {} backends answer", health.total));
    }
    let named = health.dead.iter().take(NAMES_MAX).map(|(url, why)| format!("{}: {why}", redact::url(url)));
    let mut message = named.collect::<Vec<_>>().join("; ");
    if health.dead.len() > NAMES_MAX {
        message.push_str(&format!("; and {} more", health.dead.len() - NAMES_MAX));
    }
    if health.dead.len() == health.total {
        conditions.limit("Ready", Said::no("NoEndpoints", "no backend answers"));
    }
    Said::no("BackendsUnhealthy", message)
}

/// Both of the production stack's conditions: one is the other's opposite, and never are both true.
fn router(conditions: &mut Conditions, health: Option<&RouterHealth>, known: &[Condition]) {
    let succeeded = match health {
        None => match Said::before(known, "HealthCheckSucceeded") {
            Some(said) => said,
            None => return,
        },
        Some(RouterHealth::Healthy) => Said::yes("HealthCheckSucceeded", ""),
        Some(RouterHealth::Missing { message }) => Said::no(MISSING, message.clone()),
        Some(RouterHealth::Unhealthy { message }) => Said::no("HealthCheckFailed", message.clone()),
    };
    let failed = match succeeded.truth {
        Truth::True => Said::no("HealthCheckSucceeded", ""),
        _ => Said::yes("HealthCheckFailed", succeeded.message.clone()),
    };
    if succeeded.reason == MISSING {
        conditions.limit("ResolvedRefs", succeeded.clone());
    }
    conditions.limit("Ready", succeeded.clone());
    conditions.set("HealthCheckSucceeded", succeeded);
    conditions.set("HealthCheckFailed", failed);
}
