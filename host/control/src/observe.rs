//! Looks at the engines of the snapshot in force: their metrics pages, their model lists, whether they sleep.
//!
//! One task owns the schedule and the probes it has started; at most [`PROBES_MAX`] run at a time, each bounded in bytes
//! and time. Readings go to the endpoints' own cells, model lists to the index. A probe that fails changes nothing: old
//! numbers grow stale by themselves, and an engine is not excluded for a list that could not be fetched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::endpoint::{EndpointId, EndpointSpec};
use domain::name::ObjectName;
use domain::published::Published;
use manifest::ListedModel;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::publish::{Remarks, Report};
use crate::start::stopped;

mod cards;
pub(crate) mod client;
pub(crate) mod gpu;
mod lines;
mod models;
mod page;
mod probe;
mod schedule;
mod silent;
mod unreadable;

pub use cards::{CARD_BYTES_MAX, Cards};
pub use client::ProbeError;
pub use gpu::{EXPORTERS_MAX, Exporter, GpuSettings};
pub use lines::LINE_BYTES_MAX;
pub use models::{MODEL_NAME_BYTES_MAX, MODELS_MAX};
pub use page::{Scanner, Unread};
pub use probe::{MODELS_BYTES_MAX, PAGE_BYTES_MAX};

use cards::Catalogue;
use client::{Access, Names, Trust};
use probe::{Answer, Limits};
use schedule::{Intervals, Job, Probe, Schedule, Target};
use silent::Silent;
use unreadable::Unreadable;

/// Probes in flight at a time.
pub const PROBES_MAX: usize = 64;
/// An engine that answers so many times in a row that it has no model list is believed: an earlier list is forgotten.
pub const LISTLESS_MAX: u32 = 3;
/// How often an engine is asked again for what it said it does not know.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(60);
/// Name of this part in [`Remarks`].
const SOURCE: &str = "engines";
/// The same for engines that have never answered.
const SILENT: &str = "silent engines";
/// Longest time for a probe other than a metrics page.
const OTHER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct ObserveSettings {
    /// Between two readings of an engine's metrics page (`--engine-scrape-interval`). Default 2 s, at least 10 ms. A
    /// page may take three quarters of it.
    pub metrics_interval: Duration,
    /// Between two looks at an engine's model list, and whether it sleeps. Default 10 s, at least 10 ms.
    pub models_interval: Duration,
}

impl Default for ObserveSettings {
    fn default() -> Self {
        Self { metrics_interval: Duration::from_secs(2), models_interval: Duration::from_secs(10) }
    }
}

/// What an engine's list became.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedModels {
    /// Which engine.
    pub endpoint: EndpointId,
    /// Its models now. `None`: unknown, which excludes nobody.
    pub models: Option<Arc<[ListedModel]>>,
}

/// The observing task. [`Observer::run`] ends when told to, and takes its probes with it.
#[derive(Debug)]
pub(crate) struct Observer {
    /// Where the snapshot in force stands.
    pub(crate) published: Published,
    /// Says when it has changed, and whom model lists keep out of it.
    pub(crate) reports: watch::Receiver<Report>,
    /// Says which pods say something else than before: their engines are asked again at once.
    pub(crate) changed_pods: mpsc::Receiver<Vec<ObjectName>>,
    /// Takes model lists.
    pub(crate) lists: mpsc::Sender<ObservedModels>,
    /// Takes what is wrong with engines.
    pub(crate) remarks: mpsc::Sender<Remarks>,
    /// Told once: every engine of the first snapshot was asked for its models, and has answered or failed to. Their lists
    /// were sent before.
    pub(crate) answered: watch::Sender<bool>,
    /// Takes model cards.
    pub(crate) cards: watch::Sender<Arc<Cards>>,
    /// The gateway's clock.
    pub(crate) clock: Clock,
    /// How often.
    pub(crate) settings: ObserveSettings,
    /// Where names lead.
    pub(crate) names: Names,
}

/// What was learnt of one engine's list.
#[derive(Debug, Default)]
struct Known {
    models: Option<Arc<[ListedModel]>>,
    listless: u32,
}

impl Observer {
    /// Observes until `stop` turns true (or its sender is gone).
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut round = Round::new(&self.settings);
        let mut probes: JoinSet<(Job, Answer)> = JoinSet::new();
        self.reconcile(&mut round).await;
        loop {
            let now_ms = self.clock.now_ms();
            self.remark(&mut round, now_ms);
            if let Some(cards) = round.catalogue.take_due(now_ms) {
                self.cards.send_replace(Arc::new(cards));
            }
            while probes.len() < PROBES_MAX
                && let Some(job) = round.schedule.take_due(now_ms)
            {
                let access = Access { tls: round.trust.config(&job.target.spec), names: self.names.clone() };
                let (limits, clock) = (round.limits, self.clock);
                probes.spawn(async move {
                    let answer = probe::run(&job, access, limits, clock).await;
                    (job, answer)
                });
            }
            let idle = round
                .schedule
                .next_due_ms()
                .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
            tokio::select! {
                () = stopped(&mut stop) => break,
                changed = self.reports.changed() => match changed {
                    Ok(()) => self.reconcile(&mut round).await,
                    Err(_) => break,
                },
                Some(pods) = self.changed_pods.recv() => {
                    round.schedule.hurry(&pods.into_iter().collect(), self.clock.now_ms());
                }
                Some(ended) = probes.join_next() => {
                    // A probe cannot be cancelled while we run, and a panic in one is a bug that the tests would show;
                    // its endpoint is then not asked again, the others are.
                    if let Ok((job, answer)) = ended {
                        self.settle(&mut round, &job, answer).await;
                    }
                }
                () = tokio::time::sleep(idle.unwrap_or(UNKNOWN_INTERVAL)), if probes.len() < PROBES_MAX => {}
            }
        }
        probes.shutdown().await;
    }

    /// Takes over the endpoints of the snapshot in force, and those that their lists keep out of it. A snapshot is published before
    /// its report: until both are of one generation, an endpoint that moves from one to the other would seem to be in neither, its
    /// list be forgotten, and requests go to it again.
    async fn reconcile(&mut self, round: &mut Round) {
        let (generation, excluded) = {
            let report = self.reports.borrow_and_update();
            (report.generation, Arc::clone(&report.excluded))
        };
        let snapshot = self.published.load_full();
        if snapshot.generation != generation {
            return;
        }
        let outside = excluded.iter().map(|spec| Target { spec: Arc::clone(spec), state: None });
        let inside = snapshot.endpoints.iter().map(|endpoint| Target {
            spec: Arc::clone(&endpoint.spec),
            state: Some(Arc::clone(&endpoint.state)),
        });
        // An endpoint may be kept out of one pool and serve in another: the one with a state comes last and wins.
        let mut targets: HashMap<EndpointId, Target> = HashMap::new();
        targets.extend(outside.chain(inside).map(|target| (target.spec.id.clone(), target)));
        let now_ms = self.clock.now_ms();
        snapshot.endpoints.iter().for_each(|endpoint| endpoint.state.watch(now_ms));
        let left = round.schedule.reconcile(targets.into_values(), now_ms);
        round.trust.retain(round.schedule.specs());
        round.unreadable.rerouted();
        if generation.0 > 0 {
            let now = round.schedule.specs().map(|spec| spec.id.clone()).collect();
            round.first.began(now);
            round.first.left(&left);
            self.tell_answered(round);
        }
        for endpoint in left {
            round.catalogue.forget(&endpoint);
            round.unreadable.forget(&endpoint);
            if round.known.remove(&endpoint).is_some_and(|known| known.models.is_some()) {
                self.send(ObservedModels { endpoint, models: None }).await;
            }
        }
    }

    async fn settle(&mut self, round: &mut Round, job: &Job, mut answer: Answer) {
        let spec: &EndpointSpec = &job.target.spec;
        // An engine without a list is asked as often as one with: adapters and models come and go.
        let known = job.probe == Probe::Models || !answer.is_unknown();
        round.schedule.finished(&spec.id, job.probe, known, self.clock.now_ms());
        if let (Some(state), Some(is_reachable)) = (&job.target.state, job.reached(&answer)) {
            state.observed(is_reachable, self.clock.now_ms());
        }
        if let Answer::Failed(error) = &answer {
            tracing::debug!(endpoint = %spec.id, probe = ?job.probe, %error, "probe failed");
        }
        if job.probe == Probe::Metrics && round.schedule.has(&spec.id) {
            match &answer {
                // An engine that is not there at all has more to say than that its page is missing.
                Answer::Failed(ProbeError::Connect(_)) if spec.metrics.port.is_none() => {}
                Answer::Failed(error) => round.unreadable.failed(&spec.id, error),
                Answer::Stored | Answer::Models(..) => round.unreadable.read(&spec.id),
            }
        }
        if let Answer::Models(_, cards) = &mut answer
            && round.schedule.has(&spec.id)
        {
            round.catalogue.learn(&spec.id, std::mem::take(cards));
        }
        if job.probe == Probe::Models
            && round.schedule.has(&spec.id)
            && let Some(models) = round.known.entry(spec.id.clone()).or_default().learn(answer)
        {
            self.send(ObservedModels { endpoint: spec.id.clone(), models }).await;
        }
        if job.probe == Probe::Models {
            round.first.left([&spec.id]);
            self.tell_answered(round);
        }
    }

    /// Says what is wrong with engines, if it is time to.
    fn remark(&self, round: &mut Round, now_ms: u64) {
        let facts = Arc::clone(&self.reports.borrow().facts);
        let snapshot = self.published.load_full();
        if let Some(findings) = round.unreadable.take_due(now_ms, &snapshot, &facts.bundle)
            && self.remarks.try_send(Remarks { source: SOURCE, findings }).is_err()
        {
            round.unreadable.untold();
        }
        if let Some(findings) = round.silent.take_due(now_ms, &snapshot, &facts.bundle)
            && self.remarks.try_send(Remarks { source: SILENT, findings }).is_err()
        {
            round.silent.untold();
        }
    }

    fn tell_answered(&self, round: &Round) {
        if round.first.is_over() {
            self.answered.send_if_modified(|answered| !std::mem::replace(answered, true));
        }
    }

    /// The index is at most a few messages behind; waiting for it only delays the next probe.
    async fn send(&self, list: ObservedModels) {
        // The index is gone only when everything stops.
        let _ = self.lists.send(list).await;
    }
}

/// What the task keeps between probes.
#[derive(Debug)]
struct Round {
    schedule: Schedule,
    trust: Trust,
    limits: Limits,
    known: HashMap<EndpointId, Known>,
    catalogue: Catalogue,
    unreadable: Unreadable,
    silent: Silent,
    first: FirstAnswers,
}

/// Engines of the first snapshot that have not yet answered what models they serve, nor failed to.
#[derive(Debug, Default)]
struct FirstAnswers(Option<HashSet<EndpointId>>);

impl FirstAnswers {
    /// These are the engines of a snapshot; only those of the first one are waited for.
    fn began(&mut self, engines: HashSet<EndpointId>) {
        self.0.get_or_insert(engines);
    }

    /// These are not waited for any more.
    fn left<'a>(&mut self, engines: impl IntoIterator<Item = &'a EndpointId>) {
        if let Some(waiting) = self.0.as_mut().filter(|waiting| !waiting.is_empty()) {
            engines.into_iter().for_each(|engine| _ = waiting.remove(engine));
        }
    }

    fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(HashSet::is_empty)
    }
}

impl Round {
    fn new(settings: &ObserveSettings) -> Self {
        let milliseconds =
            |interval: Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX / 4).max(10);
        let intervals = Intervals {
            metrics_ms: milliseconds(settings.metrics_interval),
            // Within the interval a change is to be known, which takes an answer and a lowering beside the question.
            models_ms: (milliseconds(settings.models_interval) * 9 / 10).max(1),
            unknown_ms: UNKNOWN_INTERVAL.as_millis() as u64,
        };
        let limits =
            Limits { metrics: Duration::from_millis(intervals.metrics_ms * 3 / 4), other: OTHER_TIMEOUT };
        Self {
            schedule: Schedule::new(intervals),
            trust: Trust::default(),
            limits,
            known: HashMap::new(),
            catalogue: Catalogue::default(),
            unreadable: Unreadable::default(),
            silent: Silent::default(),
            first: FirstAnswers::default(),
        }
    }
}

impl Known {
    /// What to tell, if anything has changed. Only an answer changes something, a failure does not.
    fn learn(&mut self, answer: Answer) -> Option<Option<Arc<[ListedModel]>>> {
        let now = match answer {
            Answer::Models(models, _) => {
                self.listless = 0;
                Some(models)
            }
            answer if answer.is_unknown() => {
                self.listless += 1;
                if self.listless < LISTLESS_MAX {
                    return None;
                }
                None
            }
            Answer::Stored | Answer::Failed(_) => return None,
        };
        if now == self.models {
            return None;
        }
        self.models.clone_from(&now);
        Some(now)
    }
}

#[cfg(test)]
pub(crate) mod fake_engine;
#[cfg(test)]
mod tests;
