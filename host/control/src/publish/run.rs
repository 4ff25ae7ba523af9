//! The shell around [`Core`]: hears, publishes, reports.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::assemble::Assembled;
use domain::finding::Finding;
use domain::name::{Generation, ObjectName};
use domain::policy::Prepare;
use domain::pool::Pool;
use domain::published::Publisher;
use domain::snapshot::Snapshot;
use manifest::{Change, Kind};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::news::{InForce, log_findings};
use super::policy_files::PolicyFiles;
use super::{Core, Input, Remarks, Report};
use crate::metrics::{CONFIGURATION, ControllerMetrics, Reconciled};
use crate::observe::ObservedModels;
use crate::source::Burst;
use crate::start::stopped;
use crate::watch::POLL_INTERVAL;

/// Model lists that may wait to be taken over.
pub(crate) const LISTS_MAX: usize = 256;
/// Remarks of other parts that may wait to be taken over.
pub(crate) const REMARKS_MAX: usize = 16;
/// Notes about changed pods that may wait for the observer.
pub(crate) const CHANGED_PODS_MAX: usize = 64;
/// Inputs taken over in one go.
const INPUTS_MAX: usize = 1_024;
/// A changed policy file is looked at after this much quiet: it may come in several steps.
const POLICY_FILE_QUIET: Duration = Duration::from_millis(5);

/// Called with the slots of endpoints that have left: the prefix index forgets them.
pub type ForgetSlots = Box<dyn Fn(&[u32]) + Send>;

/// The publishing task.
pub(crate) struct Shell {
    /// The deterministic part.
    pub(crate) core: Core,
    /// Makes policies ready.
    pub(crate) prepare: Arc<dyn Prepare>,
    /// The one write end.
    pub(crate) publisher: Publisher,
    /// Told of endpoints that have left.
    pub(crate) forget_slots: ForgetSlots,
    /// Relative paths of policy files start here.
    pub(crate) policy_directory: PathBuf,
    /// How long the very first snapshot waits for its policies.
    pub(crate) first_wait_max: Duration,
    /// From all sources.
    pub(crate) bursts: mpsc::Receiver<Burst>,
    /// From the observer.
    pub(crate) lists: mpsc::Receiver<ObservedModels>,
    /// From other parts: what is wrong there.
    pub(crate) remarks: mpsc::Receiver<Remarks>,
    /// From the observer: the engines' first answers are in, and sent.
    pub(crate) answered: watch::Receiver<bool>,
    /// To the observer: pods that say something else than before.
    pub(crate) changed_pods: mpsc::Sender<Vec<ObjectName>>,
    /// To everybody who wants to know.
    pub(crate) reports: watch::Sender<Report>,
    /// Counts what happens here.
    pub(crate) metrics: ControllerMetrics,
    /// Which policies the log has named.
    pub(crate) in_force: InForce,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Shell {
    /// Publishes until `stop` turns true (or its sender is gone).
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let prepared = Arc::new(Notify::new());
        let wake = Arc::clone(&prepared);
        self.prepare.on_change(Box::new(move || wake.notify_one()));
        let file_heard = Arc::new(Notify::new());
        let mut files = PolicyFiles::new(self.policy_directory.clone(), Arc::clone(&file_heard));
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held: Option<(Assembled, Instant)> = None;
        let mut answered = self.answered.clone();
        self.metrics.controller(CONFIGURATION, 1);
        loop {
            let held_until = held.as_ref().map(|(_, until)| *until);
            let mut inputs = Vec::new();
            tokio::select! {
                () = stopped(&mut stop) => return,
                Some(burst) = self.bursts.recv() => inputs.push(Input::Burst(burst)),
                Some(list) = self.lists.recv() => inputs.push(Input::Models(list)),
                Some(remarks) = self.remarks.recv() => inputs.push(Input::Remarks(remarks)),
                Ok(()) = answered.changed() => inputs.push(Input::Answered),
                () = prepared.notified() => inputs.push(Input::Policies),
                () = file_heard.notified() => {
                    tokio::time::sleep(POLICY_FILE_QUIET).await;
                    if files.may_have_changed() {
                        inputs.push(Input::Policies);
                    }
                }
                _ = poll.tick() => if files.have_changed() {
                    inputs.push(Input::Policies);
                },
                () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {
                    if let Some((assembled, _)) = held.take() {
                        tracing::warn!("policies are not ready in time, serving without them until they are");
                        self.publish(&assembled);
                    }
                }
            }
            self.drain(&mut inputs);
            if inputs.is_empty() {
                continue;
            }
            let metrics = self.metrics.clone();
            let running = metrics.reconciling(CONFIGURATION);
            metrics.queued(CONFIGURATION, inputs.len());
            let pods = changed_pods(&inputs);
            // As long as nothing was worth publishing, also news that change nothing may make it so: an error went away.
            let waits = self.is_first() && held.is_none() && self.core.bursts() > 0;
            if self.core.take(inputs) || waits {
                files.follow(self.core.specs());
                let assembled = self.core.build(&*self.prepare);
                self.publish_or_hold(assembled, &mut held);
            } else {
                self.report(None);
            }
            if !pods.is_empty() {
                // A full queue only means that their engines are asked when their turn comes, as always.
                let _ = self.changed_pods.try_send(pods);
            }
            running.ended(Reconciled::Success);
            metrics.queue_depth(CONFIGURATION, self.bursts.len() + self.lists.len());
        }
    }

    /// What else has come in meanwhile belongs to the same generation.
    fn drain(&mut self, inputs: &mut Vec<Input>) {
        while inputs.len() < INPUTS_MAX
            && let Ok(burst) = self.bursts.try_recv()
        {
            inputs.push(Input::Burst(burst));
        }
        while inputs.len() < INPUTS_MAX
            && let Ok(list) = self.lists.try_recv()
        {
            inputs.push(Input::Models(list));
        }
        while inputs.len() < INPUTS_MAX
            && let Ok(remarks) = self.remarks.try_recv()
        {
            inputs.push(Input::Remarks(remarks));
        }
    }

    /// Whether nothing was published yet.
    fn is_first(&self) -> bool {
        self.reports.borrow().generation.0 == 0
    }

    /// Nobody waits for a compiler, but the very first snapshot: a fresh replica calls itself ready when its policies
    /// decide, or when they take too long. One with nothing to serve and something wrong is not published at all.
    fn publish_or_hold(&mut self, assembled: Assembled, held: &mut Option<(Assembled, Instant)>) {
        let is_first = self.is_first();
        if is_first && self.core.is_hopeless() {
            *held = None;
            return self.report(None);
        }
        if is_first && self.core.is_preparing() {
            let until = held.take().map_or_else(|| Instant::now() + self.first_wait_max, |(_, until)| until);
            *held = Some((assembled, until));
            return self.report(None);
        }
        *held = None;
        self.publish(&assembled);
    }

    fn publish(&mut self, assembled: &Assembled) {
        let generation = assembled.snapshot.generation;
        self.publisher.publish(Arc::clone(&assembled.snapshot));
        build_rings(&assembled.snapshot);
        self.prepare.retain(&assembled.specs);
        if !assembled.gone_slots.is_empty() {
            (self.forget_slots)(&assembled.gone_slots);
        }
        tracing::info!(
            generation = generation.0,
            gateways = assembled.snapshot.gateways.len(),
            endpoints = assembled.snapshot.endpoints.len(),
            "published"
        );
        self.in_force.log(&assembled.snapshot);
        self.report(Some(generation));
    }

    /// Tells how things are, after `published` was. All of it at once: who hears of a generation acts upon what was left out of it.
    fn report(&mut self, published: Option<Generation>) {
        let findings: Arc<[Finding]> = self.core.findings().into();
        self.metrics.findings(&findings);
        self.metrics.resources(self.core.counts());
        let (excluded, bursts) = (self.core.excluded(), self.core.bursts());
        let answered = self.core.is_answered();
        let facts = Arc::new(self.core.facts());
        self.reports.send_modify(|report| {
            log_findings(&report.findings, &findings);
            let generation = published.unwrap_or(report.generation);
            *report = Report { findings, excluded, bursts, answered, facts, generation };
        });
    }
}

/// Pods that say something else now: their engines may as well.
fn changed_pods(inputs: &[Input]) -> Vec<ObjectName> {
    let changes = inputs.iter().flat_map(|input| match input {
        Input::Burst(burst) => burst.changes.as_slice(),
        Input::Models(_) | Input::Policies | Input::Remarks(_) | Input::Answered => &[],
    });
    let pods = changes.filter_map(|change| match change {
        Change::Applied(object) if object.kind() == Kind::Pod => Some(object.key().name),
        _ => None,
    });
    pods.collect()
}

/// Builds the session rings that chains will ask for, beside everything else: one of 64 endpoints takes 2 ms, which the
/// first request with a session would otherwise wait for.
fn build_rings(snapshot: &Arc<Snapshot>) {
    let wanted = |pool: &&Arc<Pool>| pool.chain.wants.owners && !pool.ring.is_built();
    let rings: Vec<_> = snapshot.pools.iter().filter(wanted).map(|pool| Arc::clone(&pool.ring)).collect();
    if !rings.is_empty() {
        tokio::task::spawn_blocking(move || rings.iter().for_each(|ring| _ = ring.get()));
    }
}
