//! A cluster as a source of changes: one watch per kind, and one per config map, secret and pool that an object names.
//!
//! [`follow`] keeps one watch going, [`reduce`] takes from each object what matters, [`ground`] remembers what was seen and
//! makes bursts of it, [`watches`] starts and ends watches. Nothing is told before every list is in. After that, an API
//! server that is away changes nothing: what is known stays in force until it is known better.

use std::sync::Arc;
use std::time::Duration;

use domain::finding::{Finding, Origin, Severity};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Burst;
use crate::start::stopped;

mod follow;
mod ground;
mod named;
mod reduce;
mod watches;

pub use follow::{LIST_TIMEOUT, RETRY_MAX, RETRY_REFUSED_MAX, WATCH_SECONDS};
pub use watches::NAMED_MAX;

use follow::News;
use ground::Ground;
use watches::Watches;

/// Name of this source in bursts.
pub const SOURCE: &str = "kubernetes";
/// News that may wait to be taken over; a watch that is faster waits.
pub const NEWS_MAX: usize = 1_024;
/// Quiet time that ends a burst.
pub const QUIET: Duration = Duration::from_millis(5);
/// A burst that does not end is told after this long.
pub const BURST_MAX: Duration = Duration::from_millis(20);
/// A burst is held back for this long while a config map or secret that it names is still on its way: a service without
/// its credentials would only be refused by its engines.
pub const HELD_MAX: Duration = Duration::from_secs(1);

/// Watches until `stop` turns true (or its sender is gone), or nobody takes bursts any more.
///
/// `namespaces`: those that are looked at; empty for all. `seed` spreads retries of many gateways.
pub(crate) async fn run(
    client: Client,
    namespaces: Vec<Arc<str>>,
    seed: u64,
    bursts: mpsc::Sender<Burst>,
    mut stop: watch::Receiver<bool>,
) {
    let (news_in, mut news) = mpsc::channel(NEWS_MAX);
    let mut watches = Watches::start(client, namespaces, seed, news_in);
    let mut ground = Ground::new(watches.ids());
    let mut settle = Settle::default();
    loop {
        let due = settle.due(ground.is_settled());
        let is_due = due.is_some_and(|due| due <= Instant::now());
        tokio::select! {
            () = stopped(&mut stop) => return,
            Some(first) = news.recv() => {
                take_over(&mut ground, first, &mut news);
                if let Some(wanted) = ground.take_wanted() {
                    let (added, ended) = watches.follow(&wanted);
                    ground.follow(added, ended, watches.surplus());
                }
                if ground.has_news() {
                    settle.hear(Instant::now());
                }
            }
            permit = bursts.reserve(), if is_due => {
                let Ok(permit) = permit else { return };
                settle = Settle::default();
                if let Some(burst) = ground.take() {
                    permit.send(burst);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !is_due => {}
        }
    }
}

/// Takes over what has come in, at most as much as may wait.
fn take_over(ground: &mut Ground, first: News, news: &mut mpsc::Receiver<News>) {
    ground.hear(first);
    for _ in 0..NEWS_MAX {
        let Ok(next) = news.try_recv() else { return };
        ground.hear(next);
    }
}

/// When a burst has settled.
#[derive(Debug, Default)]
struct Settle {
    /// First and last news of the burst.
    span: Option<(Instant, Instant)>,
}

impl Settle {
    fn hear(&mut self, now: Instant) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// `is_complete`: no watch is still waiting for its first list.
    fn due(&self, is_complete: bool) -> Option<Instant> {
        let (first, last) = self.span?;
        let settled = (last + QUIET).min(first + BURST_MAX);
        Some(if is_complete { settled } else { first + HELD_MAX })
    }
}

/// What is told while no API server is known.
pub(crate) fn no_cluster(error: &str) -> Burst {
    let message = format!("there is no cluster to take the configuration from: {error}");
    let remedy = "run in a pod with a service account, set KUBECONFIG, or serve a directory with --manifests";
    let finding = trouble(Severity::Error, "", "NoCluster", message, remedy);
    Burst { source: SOURCE, changes: Vec::new(), findings: vec![finding] }
}

fn trouble(severity: Severity, object: &str, reason: &'static str, message: String, remedy: &str) -> Finding {
    Finding {
        severity,
        object: object.into(),
        origin: Origin::default(),
        field: String::new(),
        reason,
        message,
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod fake_api;
#[cfg(test)]
mod tests;
