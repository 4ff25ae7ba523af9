//! What writes to the cluster.

use domain::name::ObjectName;
use domain::published::Published;
use domain::sleep::SleepNote;
use kube::{Api, Client};
use names::Names;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::cluster::KubernetesSettings;
use crate::lease::{Elector, Fence, LEASE_NAME};
use crate::metrics::ControllerMetrics;
use crate::publish::{Remarks, Report};
use crate::refusals::Refusals;
use crate::start::stopped;
use crate::status::Outcomes;

pub mod config_map;
mod events;
#[cfg(test)]
pub(crate) mod fake;
mod gateway_service;
mod health;
mod sleep;
pub mod status;

use config_map::ConfigMapParts;
use gateway_service::GatewayServiceParts;
use health::HealthParts;
use status::{FaultSource, StatusParts};

/// What controllers work with.
pub struct ControllersParts {
    /// The API server. It may be away at any time.
    pub client: Client,
    /// What the operator wants; `namespace` is filled in.
    pub settings: KubernetesSettings,
    /// What is in force, and what is wrong.
    pub reports: watch::Receiver<Report>,
    /// Takes what the API server refuses.
    pub remarks: mpsc::Sender<Remarks>,
    /// The snapshot in force.
    pub published: Published,
    /// Which policies failed.
    pub faults: FaultSource,
    /// Engines that clients put to sleep or woke.
    pub sleeps: mpsc::Receiver<SleepNote>,
    /// The gateway's clock.
    pub clock: Clock,
    /// Where names lead.
    pub names: Names,
    /// Counts what is done.
    pub metrics: ControllerMetrics,
    /// Turns true when everything ends.
    pub stop: watch::Receiver<bool>,
}

impl std::fmt::Debug for ControllersParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControllersParts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Runs all controllers until told to stop, on the thread of the caller. Those that write for all replicas do so while
/// this one leads; the lease is given back after the last of them has ended.
pub async fn run(parts: ControllersParts) {
    let ControllersParts {
        client,
        settings,
        reports,
        remarks,
        published,
        faults,
        sleeps,
        clock,
        names,
        metrics,
        stop,
    } = parts;
    let refusals = Refusals::default();
    let client = refusals.guard(client);
    let namespace = settings.namespace.clone().unwrap_or_default();
    let (leading, leads) = watch::channel(false);
    let (all_ended, elector_stop) = watch::channel(false);
    let outcomes = watch::Sender::new(Outcomes::default());
    let (events, notes) = mpsc::channel(events::EVENTS_MAX);
    let fence = Fence::default();
    let leaders =
        if settings.leader_elect { fence.guard(client.clone(), &namespace) } else { client.clone() };
    let leases = Api::namespaced(client.clone(), &namespace);
    let elector = Elector::new(leases, settings.identity.as_str(), fence).reporting_to(refusals.clone());
    let election = elect(settings.leader_elect.then_some(elector), leading, elector_stop);
    let status = StatusParts {
        client: leaders.clone(),
        reports: reports.clone(),
        published,
        outcomes: outcomes.subscribe(),
        faults,
        leads: leads.clone(),
        events,
        clock,
        metrics: metrics.clone(),
    };
    let config_maps = ConfigMapParts {
        client: leaders.clone(),
        reports: reports.clone(),
        namespaces: settings.watch_namespaces.clone(),
        outcomes: outcomes.clone(),
        leads: leads.clone(),
        metrics: metrics.clone(),
    };
    let services = GatewayServiceParts {
        client: leaders,
        reports: reports.clone(),
        own: ObjectName::new(namespace.as_str(), settings.service.as_str()),
        outcomes: outcomes.clone(),
        leads: leads.clone(),
        metrics: metrics.clone(),
    };
    let health = HealthParts { reports, outcomes, leads: leads.clone(), names };
    let work = async {
        tokio::join!(
            Box::pin(sleep::run(client.clone(), sleeps, stop.clone())),
            Box::pin(status::run(status, stop.clone())),
            Box::pin(events::run(client.clone(), settings.identity.clone(), notes, stop.clone())),
            Box::pin(config_map::run(config_maps, stop.clone())),
            Box::pin(gateway_service::run(services, stop.clone())),
            Box::pin(health::run(health, stop.clone())),
            Box::pin(refusals.run(remarks, stop.clone())),
        );
        all_ended.send_replace(true);
    };
    tokio::join!(Box::pin(election), work, Box::pin(count_leading(metrics, leads, stop.clone())));
}

/// Takes part in the election. Without one, this replica always leads.
async fn elect(elector: Option<Elector>, leading: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
    match elector {
        Some(elector) => elector.run(leading, stop).await,
        None => {
            leading.send_replace(true);
            stopped(&mut stop).await;
        }
    }
}

/// Serves one term after the other: `serve` is given the parts whenever this replica leads, and gives them back when it does
/// no more or when its other argument, `stop`, turns true (or its sender is gone), which ends this, too.
async fn each_term<P, F: Future<Output = P>>(
    mut parts: P,
    mut leads: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(P, watch::Receiver<bool>) -> F,
) {
    loop {
        let leads = tokio::select! {
            () = stopped(&mut stop) => false,
            leads = leads.wait_for(|leads| *leads) => leads.is_ok(),
        };
        if !leads {
            return;
        }
        parts = serve(parts, stop.clone()).await;
    }
}

/// Waits until this replica does not lead any more.
async fn lost(leads: &mut watch::Receiver<bool>) {
    // An error says that nobody can make us leaders any more.
    let _ = leads.wait_for(|leads| !*leads).await;
}

/// Shows who leads.
async fn count_leading(
    metrics: ControllerMetrics,
    mut leads: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let now = *leads.borrow_and_update();
        metrics.leader(LEASE_NAME, now);
        tokio::select! {
            () = stopped(&mut stop) => break,
            changed = leads.changed() => if changed.is_err() {
                break;
            },
        }
    }
    metrics.leader(LEASE_NAME, false);
}

/// Waits until then; for ever, if there is no such time.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
