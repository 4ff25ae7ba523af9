//! What a test holds of an engine: its script, its log, its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fault::{Accept, Fault, Script};
use super::log::{Counts, Received};
use super::metrics::{MetricsPage, Signals};
use super::wire::lock;
use super::{Shared, server};
use crate::core::{Load, Totals};

/// A running engine. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct EngineHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl EngineHandle {
    /// Where it listens; stays the same while it refuses connections.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// `http://` (or `https://`) and the address, without a slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.shared.config.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.shared.addr)
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The zero of all times in the log.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// Adds faults for the next requests, one each, before the standing fault.
    pub fn push_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.change_script(|script| script.queue.extend(faults));
    }

    /// The fault of every request that has none of its own; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.change_script(|script| script.standing = fault);
    }

    /// The fault of every probe (`/metrics`, `/v1/models`, `/health`, …); `None` ends it.
    pub fn set_probe_fault(&self, fault: Option<Fault>) {
        self.change_script(|script| script.probes = fault);
    }

    /// No faults any more.
    pub fn clear_faults(&self) {
        self.change_script(|script| *script = Script::default());
    }

    /// Changes what happens to new connections; returns when it does. `Refuse` leaves open connections alone, see
    /// [`EngineHandle::close_connections`].
    pub async fn set_accept(&self, accept: Accept) {
        let mut accepting = self.shared.accepting.subscribe();
        self.shared.accept.send_replace(accept);
        // The sender is ours, so it cannot be gone.
        let _ = accepting.wait_for(|now| *now == accept).await;
    }

    /// Closes all open connections at once, whatever they carry; returns when they are closed. What they carried counts
    /// as aborted.
    pub async fn close_connections(&self) {
        server::close_all(&self.shared).await;
    }

    /// As a crash and a cold start would: refuses and closes everything, and forgets all prefixes. Serve again with
    /// `set_accept(Accept::Serve)`.
    pub async fn crash(&self) {
        self.set_accept(Accept::Refuse).await;
        server::close_all(&self.shared).await;
        if let Some(simulator) = &self.shared.simulator {
            simulator.reset_prefix_cache();
        }
    }

    /// What `/health` says.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    /// What `/is_sleeping` says; a sleeping engine answers 503.
    pub fn set_sleeping(&self, sleeping: bool) {
        self.shared.sleeping.store(sleeping, Ordering::Relaxed);
    }

    /// Whether it sleeps.
    pub fn is_sleeping(&self) -> bool {
        self.shared.sleeping.load(Ordering::Relaxed)
    }

    /// Replaces the loaded adapters.
    pub fn set_adapters(&self, adapters: impl IntoIterator<Item = String>) {
        *lock(&self.shared.adapters) = adapters.into_iter().collect();
    }

    /// Replaces the metrics page.
    pub fn set_metrics(&self, page: MetricsPage) {
        *lock(&self.shared.metrics) = page;
    }

    /// Reports these numbers instead of the true ones; `None` tells the truth again.
    pub fn set_signals(&self, signals: Option<Signals>) {
        *lock(&self.shared.signals) = signals;
    }

    /// The last requests, oldest first, probes not among them.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.log).requests.iter().cloned().collect()
    }

    /// The last request.
    pub fn last_request(&self) -> Option<Received> {
        lock(&self.shared.log).requests.last().cloned()
    }

    /// The last probes, oldest first.
    pub fn probes(&self) -> Vec<Received> {
        lock(&self.shared.log).probes.iter().cloned().collect()
    }

    /// Empties the log; counts go on.
    pub fn clear_log(&self) {
        let mut log = lock(&self.shared.log);
        log.requests.clear();
        log.probes.clear();
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// A receiver that sees every later change of the counts.
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }

    /// Waits until the counts are as wanted and returns them. Waits for ever if they never are: give the test a timeout.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        // The sender is ours, so it cannot be gone.
        let counts = counts.wait_for(wanted).await.map(|counts| *counts);
        counts.unwrap_or_else(|_| self.counts())
    }

    /// Waits until `n` requests in all have been received.
    pub async fn received(&self, n: u64) -> Counts {
        self.until(|counts| counts.received >= n).await
    }

    /// Waits until `n` requests in all have been aborted.
    pub async fn aborted(&self, n: u64) -> Counts {
        self.until(|counts| counts.aborted >= n).await
    }

    /// Waits until `n` requests in all have been answered to the end.
    pub async fn finished(&self, n: u64) -> Counts {
        self.until(|counts| counts.finished >= n).await
    }

    /// Waits until nothing is in flight.
    pub async fn idle(&self) -> Counts {
        self.until(|counts| counts.in_flight == 0).await
    }

    /// What the simulated core carries now; zeros without one.
    pub fn load(&self) -> Load {
        self.shared.simulator.as_ref().map(|simulator| simulator.load()).unwrap_or_default()
    }

    /// The simulated core's totals; zeros without one.
    pub fn totals(&self) -> Totals {
        self.shared.simulator.as_ref().map(|simulator| simulator.totals()).unwrap_or_default()
    }

    fn change_script(&self, change: impl FnOnce(&mut Script)) {
        let mut script = lock(&self.shared.script);
        change(&mut script);
        self.shared.scripted.store(!script.is_empty(), Ordering::Release);
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
