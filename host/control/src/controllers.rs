//! What writes to the cluster.

use domain::published::Published;
use domain::sleep::SleepNote;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::cluster::KubernetesSettings;
use crate::metrics::ControllerMetrics;
use crate::publish::Report;

mod sleep;

/// What controllers work with.
pub struct ControllersParts {
    /// The API server. It may be away at any time.
    pub client: Client,
    /// What the operator wants; `namespace` is filled in.
    pub settings: KubernetesSettings,
    /// What is in force, and what is wrong.
    pub reports: watch::Receiver<Report>,
    /// The snapshot in force.
    pub published: Published,
    /// Engines that clients put to sleep or woke.
    pub sleeps: mpsc::Receiver<SleepNote>,
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

/// Runs all controllers until told to stop, on the thread of the caller.
pub async fn run(parts: ControllersParts) {
    let ControllersParts { client, settings: _, reports: _, published: _, sleeps, metrics: _, stop } = parts;
    sleep::run(client, sleeps, stop).await;
}
