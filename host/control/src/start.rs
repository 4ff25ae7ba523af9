//! Starts the control plane's threads and ends them.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use domain::name::ObjectName;
use domain::policy::Prepare;
use domain::published::{Published, Publisher};
use domain::sleep::SleepNote;
use names::Names;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::cluster::{Cluster, KubernetesSettings};
use crate::controllers::status::FaultSource;
use crate::index::Index;
use crate::metrics::{CacheSource, ControllerMetrics};
use crate::observe::gpu::GpuObserver;
use crate::observe::{Cards, GpuSettings, ObserveSettings, Observer};
use crate::publish::news::InForce;
use crate::publish::run::{CHANGED_PODS_MAX, LISTS_MAX, REMARKS_MAX, Shell};
use crate::publish::{Core, ForgetSlots, Report};
use crate::source::BURSTS_MAX;
use crate::source::directory::watch::DirectorySource;
use crate::threads;

/// What the control plane is told by the operator.
#[derive(Debug)]
pub struct Settings {
    /// Where configuration comes from.
    pub source: SourceSettings,
    /// Where relative paths of policy files start (`--policy-dir`).
    pub policy_directory: PathBuf,
    /// An empty index, knowing the options of lowering.
    pub index: Index,
    /// How often to look at engines.
    pub observe: ObserveSettings,
    /// Which GPU exporters to ask.
    pub gpu: GpuSettings,
    /// Where names lead; shared with the request path.
    pub names: Names,
    /// The gateway's clock.
    pub clock: Clock,
    /// How long the very first snapshot waits for its policies to be ready; later ones never wait. Zero does not wait.
    pub first_wait_max: Duration,
}

/// Where configuration comes from.
#[derive(Clone, Debug)]
pub enum SourceSettings {
    /// A directory of manifests (`--manifests`).
    Directory(PathBuf),
    /// The cluster that `KUBECONFIG`, or else the pod's own service account, leads to.
    Kubernetes(KubernetesSettings),
}

impl SourceSettings {
    /// The index as this source needs it.
    fn index(&self, index: Index) -> Index {
        match self {
            Self::Directory(_) => index,
            Self::Kubernetes(cluster) => {
                let own = |namespace: &String| ObjectName::new(namespace.as_str(), cluster.service.as_str());
                index.with_services(cluster.namespace.as_ref().map(own))
            }
        }
    }
}

/// Pods whose label is still to be written after a client put their engine to sleep or woke it.
pub const SLEEPS_MAX: usize = 256;

/// What the control plane is plugged into.
pub struct Ends {
    /// The write end of the snapshot.
    pub publisher: Publisher,
    /// The read end of the same.
    pub published: Published,
    /// Makes policies ready. Its one `on_change` is taken.
    pub prepare: Arc<dyn Prepare>,
    /// Called with the slots of endpoints that have left, after the snapshot without them is published.
    pub forget_slots: ForgetSlots,
    /// Where the control plane counts what it does.
    pub metrics: ControllerMetrics,
    /// Which policies failed, for their status.
    pub faults: FaultSource,
    /// Engines that clients put to sleep or woke, at most [`SLEEPS_MAX`] waiting; their pods are labelled, where there is
    /// a cluster.
    pub sleeps: mpsc::Receiver<SleepNote>,
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ends").finish_non_exhaustive()
    }
}

/// The running control plane.
#[derive(Debug)]
pub struct Control {
    reports: watch::Receiver<Report>,
    cards: watch::Receiver<Arc<Cards>>,
    stop: watch::Sender<bool>,
    directory: Option<DirectorySource>,
    threads: Vec<JoinHandle<()>>,
}

/// Parts of the control plane that have ended although nobody asked them to: a panic, which is a bug. Traffic goes on with what
/// they did last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Changes of the configuration are not seen, or not put in force, any more.
    pub source: bool,
    /// Nobody looks at engines, or at GPU exporters, any more.
    pub observer: bool,
}

/// Starts the threads: `directory` looks at the manifests or `kubernetes` at the cluster, `control` publishes, `observe`
/// looks at engines, `gpu` at GPU exporters where there are any.
///
/// Returns at once; the first snapshot is in force when [`Published::is_ready`] says so.
///
/// # Errors
/// If the system gives us no thread. Bad input is no error: it is a finding.
pub fn start(settings: Settings, ends: Ends) -> std::io::Result<Control> {
    let Ends { publisher, published, prepare, forget_slots, metrics, faults, sleeps } = ends;
    let (stop, stopped) = watch::channel(false);
    let (report, reports) = watch::channel(Report::default());
    let (bursts_in, bursts) = mpsc::channel(BURSTS_MAX);
    let (lists_in, lists) = mpsc::channel(LISTS_MAX);
    let (pods_in, pods) = mpsc::channel(CHANGED_PODS_MAX);
    let (remarks_in, remarks) = mpsc::channel(REMARKS_MAX);
    let (answered_in, answered) = watch::channel(false);
    let (cards_in, cards) = watch::channel(Arc::default());
    let shell = Shell {
        core: Core::new(settings.source.index(settings.index)),
        prepare,
        publisher,
        forget_slots,
        policy_directory: settings.policy_directory,
        first_wait_max: settings.first_wait_max,
        bursts,
        lists,
        remarks,
        answered,
        changed_pods: pods_in,
        reports: report,
        metrics: metrics.clone(),
        in_force: InForce::default(),
    };
    metrics.follow_caches(CacheSource {
        reports: reports.clone(),
        published: published.clone(),
        clock: settings.clock,
    });
    let gpus = GpuObserver {
        published: published.clone(),
        reports: reports.clone(),
        clock: settings.clock,
        settings: settings.gpu,
        names: settings.names.clone(),
        metrics: metrics.gpu(),
    };
    let observer = Observer {
        published: published.clone(),
        reports: reports.clone(),
        changed_pods: pods,
        lists: lists_in,
        remarks: remarks_in.clone(),
        answered: answered_in,
        cards: cards_in,
        clock: settings.clock,
        settings: settings.observe,
        names: settings.names.clone(),
    };
    let (shell_stopped, observer_stopped, gpus_stopped) = (stopped.clone(), stopped.clone(), stopped.clone());
    let mut threads = vec![
        thread("control", move || shell.run(shell_stopped))?,
        thread("observe", move || observer.run(observer_stopped))?,
    ];
    if gpus.is_needed() {
        threads.push(thread("gpu", move || gpus.run(gpus_stopped))?);
    }
    let directory = match settings.source {
        SourceSettings::Directory(root) => Some(DirectorySource::start(root, bursts_in)?),
        SourceSettings::Kubernetes(cluster) => {
            let cluster = Cluster {
                settings: cluster,
                bursts: bursts_in,
                reports: reports.clone(),
                remarks: remarks_in,
                published,
                faults,
                sleeps,
                clock: settings.clock,
                names: settings.names,
                metrics,
            };
            threads.push(thread("kubernetes", move || cluster.run(stopped))?);
            None
        }
    };
    Ok(Control { reports, cards, stop, directory, threads })
}

impl Control {
    /// What is in force and what is wrong; changes can be waited for.
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.clone()
    }

    /// What engines say of their models; changes can be waited for.
    pub fn cards(&self) -> watch::Receiver<Arc<Cards>> {
        self.cards.clone()
    }

    /// What has ended by itself so far.
    pub fn ended(&self) -> Ended {
        let has_ended = |thread: &&JoinHandle<()>| thread.is_finished();
        let names: Vec<&str> =
            self.threads.iter().filter(has_ended).filter_map(|thread| thread.thread().name()).collect();
        let directory = self.directory.as_ref().is_some_and(DirectorySource::has_ended);
        let observers = ["observe", "gpu"];
        Ended {
            source: directory || names.iter().any(|name| !observers.contains(name)),
            observer: names.iter().any(|name| observers.contains(name)),
        }
    }

    /// Ends and joins everything that [`start`] began. Blocks for a few milliseconds. What is published stays published.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if let Some(directory) = self.directory {
            directory.stop();
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a control thread panicked");
            }
        }
    }
}

/// Ends when `stop` turns true, or nobody can turn it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which ends us too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Threads of one runtime that may block: for what computes or reads files.
const BLOCKING_THREADS_MAX: usize = 4;

/// A thread with a runtime of its own for one task.
fn thread<F>(name: &str, task: impl FnOnce() -> F + Send + 'static) -> std::io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()?;
    let run = move || {
        runtime.block_on(task());
        // What blocks cannot be interrupted, and nothing waits for it.
        runtime.shutdown_background();
    };
    threads::spawn(name, run)
}

#[cfg(test)]
mod tests;
