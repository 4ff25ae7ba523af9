//! The thread that talks to the API server: one client for the source of configuration and for the controllers.
//!
//! An API server that is away, or not configured yet, is waited for. Until then the gateway is not ready, and says why.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use domain::published::Published;
use domain::sleep::SleepNote;
use kube::{Client, Config};
use tokio::sync::{mpsc, watch};

use names::Names;

use crate::clock::Clock;
use crate::controllers::status::FaultSource;
use crate::controllers::{self, ControllersParts};
use crate::metrics::ControllerMetrics;
use crate::publish::{Remarks, Report};
use crate::source::Burst;
use crate::source::kubernetes;
use crate::start::stopped;

/// How long to wait before looking for a cluster's address and credentials again.
const CONFIG_RETRY: Duration = Duration::from_secs(2);
/// Longest time to connect to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection to the API server on which nothing arrives for this long is given up. Longer than a watch lasts, so that
/// only a dead one is.
const READ_TIMEOUT: Duration = Duration::from_secs(kubernetes::WATCH_SECONDS as u64 + 15);

/// How the gateway takes part in a cluster.
#[derive(Clone, Debug, Default)]
pub struct KubernetesSettings {
    /// The gateway's own namespace, where its Lease is. Default: the one of the pod, or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// Namespaces that are looked at. Empty: all of them.
    pub watch_namespaces: Vec<String>,
    /// The Service in the gateway's own namespace that leads to its pods.
    pub service: String,
    /// Whether replicas elect the one that writes. Otherwise every replica believes to be the only one.
    pub leader_elect: bool,
    /// What this replica calls itself in the Lease; different in each.
    pub identity: String,
}

/// What the thread is started with.
pub(crate) struct Cluster {
    /// What the operator wants.
    pub(crate) settings: KubernetesSettings,
    /// Takes changes.
    pub(crate) bursts: mpsc::Sender<Burst>,
    /// What is in force, and what is wrong.
    pub(crate) reports: watch::Receiver<Report>,
    /// Takes what the API server refuses.
    pub(crate) remarks: mpsc::Sender<Remarks>,
    /// The snapshot in force.
    pub(crate) published: Published,
    /// Which policies failed.
    pub(crate) faults: FaultSource,
    /// Engines that clients put to sleep or woke.
    pub(crate) sleeps: mpsc::Receiver<SleepNote>,
    /// The gateway's clock.
    pub(crate) clock: Clock,
    /// Where names lead.
    pub(crate) names: Names,
    /// Counts what is done.
    pub(crate) metrics: ControllerMetrics,
}

impl Cluster {
    /// Runs until `stop` turns true (or its sender is gone).
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { mut settings, bursts, reports, remarks, published, faults, sleeps, clock, names, metrics } =
            self;
        let client = tokio::select! {
            () = stopped(&mut stop) => return,
            client = connect(&bursts) => client,
        };
        let namespace = settings.namespace.get_or_insert_with(|| client.default_namespace().to_owned());
        tracing::info!(%namespace, watched = ?settings.watch_namespaces, "the cluster is the source");
        let namespaces = settings.watch_namespaces.iter().map(|name| name.as_str().into()).collect();
        let seed = seed(&settings.identity);
        let source = kubernetes::run(client.clone(), namespaces, seed, bursts, stop.clone());
        let controllers = controllers::run(ControllersParts {
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
        });
        tokio::join!(source, controllers);
    }
}

/// Spreads the retries of replicas, which know different names for themselves.
fn seed(identity: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish()
}

/// A client, as soon as one can be configured. It connects when it is first used.
async fn connect(bursts: &mpsc::Sender<Burst>) -> Client {
    let mut told = None;
    loop {
        let error = match configured().await {
            Ok(client) => return client,
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&error) {
            // Nobody listens only when everything stops.
            let _ = bursts.send(kubernetes::no_cluster(&error)).await;
            told = Some(error);
        }
        tokio::time::sleep(CONFIG_RETRY).await;
    }
}

async fn configured() -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // Whoever asks knows better when to ask again; the client's own delays grow to a quarter of an hour.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
