//! Status of a `StaticRoute`: its ConfigMap, its backends, and the router that reads it.

use std::collections::BTreeMap;

use manifest::kind::{StaticRoute, StaticRouteStatus};

use super::condition::Conditions;
use super::outcome::{BackendHealth, ConfigMapOutcome, RouterHealth};
use super::{About, Draft, NAMES_MAX, Said};

/// Reason of the event and the condition when a ConfigMap cannot be written: as the production stack's controller spells
/// it.
pub(crate) const FAILED: &str = "FailedReconcileConfigMap";

pub(super) fn draft(about: &About<'_, StaticRoute>, before: &StaticRouteStatus) -> Draft<StaticRouteStatus> {
    let outcomes = &about.view.sight.outcomes;
    let mut conditions = Conditions::of(&about.findings);
    let mut status = StaticRouteStatus {
        config_map_ref: before.config_map_ref.clone(),
        last_applied_time: before.last_applied_time.clone(),
        ..Default::default()
    };
    let programmed = match outcomes.config_maps.get(about.name) {
        Some(ConfigMapOutcome::Written { name, at, remark }) => {
            let is_new = status.config_map_ref.as_ref() != Some(name) || status.last_applied_time.is_none();
            let now = is_new.then_some(about.view.now);
            if let Some(at) = at.or(now) {
                status.last_applied_time = Some(at.to_string());
            }
            status.config_map_ref = Some(name.clone());
            Said::yes("ConfigMapWritten", remark.clone())
        }
        Some(ConfigMapOutcome::Conflict { message }) => {
            conditions.set("Accepted", Said::no("ConfigMapConflict", message.clone()));
            Said::no("ConfigMapConflict", message.clone())
        }
        Some(ConfigMapOutcome::Failed { message }) => Said::no(FAILED, message.clone()),
        // What contradicts itself is not written; an earlier version may stand in the ConfigMap.
        None if !conditions.is_true("Accepted") => {
            Said::no("NotAccepted", "the ConfigMap is left as it is until the object is acceptable")
        }
        None => Said::pending("the ConfigMap is not written yet"),
    };
    conditions.limit("Ready", programmed.clone());
    conditions.set("Programmed", programmed);
    if let Some(health) = outcomes.backends.get(about.name) {
        backends(&mut conditions, health);
    }
    router(&mut conditions, outcomes.routers.get(about.name));
    let spec = &about.object.spec;
    let total = spec.static_backends.split(',').filter(|url| !url.trim().is_empty()).count();
    let resolved = BTreeMap::from([("backends".to_owned(), total.to_string())]);
    Draft { conditions: conditions.with_progress(), resolved, status }
}

fn backends(conditions: &mut Conditions, health: &BackendHealth) {
    if health.dead.is_empty() {
        let message = format!("all {} backends answer", health.total);
        conditions.set("BackendsHealthy", Said::yes("BackendsHealthy", message));
        return;
    }
    let named = health.dead.iter().take(NAMES_MAX).map(|(url, why)| format!("{url}: {why}"));
    let mut message = named.collect::<Vec<_>>().join("; ");
    if health.dead.len() > NAMES_MAX {
        message.push_str(&format!("; and {} more", health.dead.len() - NAMES_MAX));
    }
    if health.dead.len() == health.total {
        conditions.limit("Ready", Said::no("NoEndpoints", "no backend answers"));
    }
    conditions.set("BackendsHealthy", Said::no("BackendsUnhealthy", message));
}

/// Both of the production stack's conditions: one is the other's opposite, and never are both true.
fn router(conditions: &mut Conditions, health: Option<&RouterHealth>) {
    let (succeeded, failed) = match health {
        None => return,
        Some(RouterHealth::Missing { message }) => {
            conditions.limit("ResolvedRefs", Said::no("ReferenceNotFound", message.clone()));
            conditions.limit("Ready", Said::no("ReferenceNotFound", message.clone()));
            (Said::no("RouterNotFound", message.clone()), Said::yes("HealthCheckFailed", message.clone()))
        }
        Some(RouterHealth::Healthy) => {
            (Said::yes("HealthCheckSucceeded", ""), Said::no("HealthCheckSucceeded", ""))
        }
        Some(RouterHealth::Unhealthy { message }) => {
            conditions.limit("Ready", Said::no("HealthCheckFailed", message.clone()));
            (Said::no("HealthCheckFailed", message.clone()), Said::yes("HealthCheckFailed", message.clone()))
        }
    };
    conditions.set("HealthCheckSucceeded", succeeded);
    conditions.set("HealthCheckFailed", failed);
}
