//! The Service named after a gateway that asks for one, as the leader: it leads to the gateway's own Service, so that
//! clients reach a gateway by its name.
//!
//! In the namespace of the own Service it selects the same pods; elsewhere it is an `ExternalName` for it. A Service is
//! ours if its controlling owner is the gateway; every other one is left alone, and the gateway says so in `ServiceReady`.
//! It goes with its gateway. One that is not asked for any more stays: nothing is deleted with our rights.
//!
//! It is corrected by a merge patch under the version that was read, not by server-side apply: a merge patch replaces the
//! list of ports whole, while apply takes away only what an earlier apply brought, and a Service is created without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::name::ObjectName;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use manifest::Kind;
use manifest::bundle::facts::ServiceFacts;
use manifest::bundle::{Bundle, Held};
use manifest::kind::{API_VERSION, InferenceGateway};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{each_term, lost};
use crate::metrics::{ControllerMetrics, Reconciled};
use crate::publish::{Facts, Report};
use crate::start::stopped;
use crate::status::{Outcomes, Said, ServiceOutcome};

mod wanted;

use wanted::{correction, is_met, service};

/// The name under which this controller counts.
pub(super) const CONTROLLER: &str = "gatewayservice";
/// Who owns the fields.
const FIELD_MANAGER: &str = "wicketgate-gateway";
/// Longest time for one Service. Less than what lies between giving up a lease and its end.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(4);
/// A failure, or somebody else's Service, is looked at again after this long.
const RETRY: Duration = Duration::from_secs(10);
/// A Service that is right is looked at again after this long: selectors and target ports are not in the index, so that
/// nothing tells when somebody edits them.
const LOOK: Duration = Duration::from_secs(300);
/// Attempts at one Service while others write it between our reading and our writing.
const ATTEMPTS_MAX: u32 = 3;
/// What the controller is plugged into.
pub(super) struct GatewayServiceParts {
    pub(super) client: Client,
    pub(super) reports: watch::Receiver<Report>,
    /// The gateway's own Service.
    pub(super) own: ObjectName,
    pub(super) outcomes: watch::Sender<Outcomes>,
    pub(super) leads: watch::Receiver<bool>,
    pub(super) metrics: ControllerMetrics,
}

/// Works whenever this replica leads, until `stop` turns true (or its sender is gone).
pub(super) async fn run(parts: GatewayServiceParts, stop: watch::Receiver<bool>) {
    parts.metrics.controller(CONTROLLER, 1);
    let leads = parts.leads.clone();
    each_term(parts, leads, stop, |mut parts, mut stop| async move {
        Term { parts: &mut parts, done: BTreeMap::new() }.serve(&mut stop).await;
        parts.outcomes.send_modify(|outcomes| outcomes.services.clear());
        parts
    })
    .await;
}

/// What a gateway was dealt with for: it is dealt with again when any of it differs. Its own spec says no more than that it
/// asks for a Service, and its status is none of ours.
#[derive(PartialEq)]
struct Sight {
    uid: Option<String>,
    /// The Service of its name, as far as the index keeps it: ports and the name it stands for.
    found: Option<Arc<ServiceFacts>>,
    /// The gateway's own Service, likewise.
    own: Option<Arc<ServiceFacts>>,
}

/// A gateway as it was dealt with last.
struct Dealt {
    sight: Sight,
    again: Instant,
}

struct Term<'a> {
    parts: &'a mut GatewayServiceParts,
    done: BTreeMap<ObjectName, Dealt>,
}

impl Term<'_> {
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) {
        loop {
            let facts = Arc::clone(&self.parts.reports.borrow_and_update().facts);
            let mut leading = self.parts.leads.clone();
            tokio::select! {
                () = stopped(stop) => return,
                () = lost(&mut leading) => return,
                () = self.deal(&facts) => {}
            }
            let again = self.done.values().map(|dealt| dealt.again).min();
            tokio::select! {
                () = stopped(stop) => return,
                () = lost(&mut self.parts.leads) => return,
                changed = self.parts.reports.changed() => if changed.is_err() {
                    return;
                },
                () = super::sleep_until(again) => {}
            }
        }
    }

    /// Deals with every gateway that is not as it was dealt with, or whose time has come.
    async fn deal(&mut self, facts: &Facts) {
        let gateways = &facts.bundle.gateways;
        let asks = |held: &Held<InferenceGateway>| {
            held.value.spec.service.as_ref().is_some_and(|service| service.enabled)
        };
        self.done.retain(|name, _| gateways.get(name).is_some_and(asks));
        let known = &self.done;
        self.parts.outcomes.send_if_modified(|outcomes| {
            let before = outcomes.services.len();
            outcomes.services.retain(|name, _| known.contains_key(name));
            outcomes.services.len() != before
        });
        for (name, held) in gateways {
            if !asks(held) || held.value.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let sight = self.sight(&facts.bundle, name, &held.value);
            let is_done = |dealt: &Dealt| dealt.sight == sight && dealt.again > Instant::now();
            if !self.done.get(name).is_some_and(is_done) {
                let again = self.reconcile(name, &held.value).await;
                self.done.insert(name.clone(), Dealt { sight, again });
            }
        }
    }

    fn sight(&self, bundle: &Bundle, name: &ObjectName, gateway: &InferenceGateway) -> Sight {
        let facts =
            |name: &ObjectName| bundle.core_services.get(name).map(|service| Arc::clone(&service.value));
        Sight { uid: gateway.metadata.uid.clone(), found: facts(name), own: facts(&self.parts.own) }
    }

    /// Brings one Service to what is wanted. Returns when to look again.
    async fn reconcile(&self, name: &ObjectName, gateway: &InferenceGateway) -> Instant {
        let began = Instant::now();
        let attempt = provide(&self.parts.client, &self.parts.own, name, gateway);
        let said = match timeout(RECONCILE_TIMEOUT, attempt).await {
            Ok(Ok(said)) => said,
            Ok(Err(kube::Error::Api(status))) => Some(Said::no("ServiceFailed", status.message.clone())),
            Ok(Err(error)) => Some(Said::no("ServiceFailed", error.to_string())),
            Err(_) => Some(Said::no("ServiceFailed", "no answer in time")),
        };
        let is_right = said.as_ref().is_none_or(|said| said.truth == crate::status::Truth::True);
        let result = if is_right { Reconciled::Success } else { Reconciled::RequeueAfter };
        self.parts.metrics.reconciled(CONTROLLER, result, began.elapsed());
        self.parts.outcomes.send_if_modified(|outcomes| match said {
            Some(said) => {
                let outcome = ServiceOutcome(said);
                outcomes.services.insert(name.clone(), outcome.clone()).as_ref() != Some(&outcome)
            }
            None => outcomes.services.remove(name).is_some(),
        });
        Instant::now() + if is_right { LOOK } else { RETRY }
    }
}

/// Creates or corrects the Service, as often as somebody else was faster.
async fn provide(
    client: &Client,
    own: &ObjectName,
    name: &ObjectName,
    gateway: &InferenceGateway,
) -> kube::Result<Option<Said>> {
    if own == name {
        return Ok(Some(Said::yes("OwnService", "the gateway's own Service has this name")));
    }
    let Some(owner) = owner(gateway) else { return Ok(None) };
    let api: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
    for _ in 1..ATTEMPTS_MAX {
        match attempt(&api, own, name, &owner).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            ended => return ended.map(Some),
        }
    }
    attempt(&api, own, name, &owner).await.map(Some)
}

/// One attempt, from what is there now. 409 if that is no more so when it is written.
async fn attempt(
    api: &Api<Service>,
    own: &ObjectName,
    name: &ObjectName,
    owner: &OwnerReference,
) -> kube::Result<Said> {
    let found = find(api, &name.name).await?;
    if let Some(message) = found.as_ref().and_then(|found| conflict(found, owner, name)) {
        return Ok(Said::no("ServiceConflict", message));
    }
    let target = if own.namespace == name.namespace { find(api, &own.name).await? } else { None };
    let wanted = service(own, name, owner.clone(), target.as_ref());
    let field_manager = Some(FIELD_MANAGER.to_owned());
    match found {
        None => {
            api.create(&PostParams { field_manager, ..PostParams::default() }, &wanted).await?;
            tracing::info!(service = %name, "Service created");
        }
        Some(found) if is_met(&wanted, &found) => {}
        Some(found) => {
            let parameters = PatchParams { field_manager, ..PatchParams::default() };
            api.patch(&name.name, &parameters, &Patch::Merge(correction(&wanted, &found))).await?;
            tracing::info!(service = %name, "Service corrected");
        }
    }
    Ok(Said::yes("ServiceReady", ""))
}

/// The Service of this name, by the right to list.
async fn find(api: &Api<Service>, name: &str) -> kube::Result<Option<Service>> {
    let list = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await?;
    Ok(list.items.into_iter().find(|service| service.metadata.name.as_deref() == Some(name)))
}

fn owner(gateway: &InferenceGateway) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: API_VERSION.into(),
        kind: Kind::InferenceGateway.as_str().into(),
        name: gateway.metadata.name.clone()?,
        uid: gateway.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

fn controller(service: &Service) -> Option<&OwnerReference> {
    service.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn conflict(found: &Service, owner: &OwnerReference, name: &ObjectName) -> Option<String> {
    let remedy = "rename the gateway, or delete the Service";
    match controller(found) {
        Some(known) if known.uid == owner.uid => None,
        Some(other) => Some(format!("Service {name} belongs to {} {}; {remedy}", other.kind, other.name)),
        None => Some(format!("Service {name} was made by somebody else; {remedy}")),
    }
}

#[cfg(test)]
mod tests;
