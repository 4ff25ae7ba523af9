//! Writes status, as the leader.
//!
//! One task looks, computes ([`crate::status::tell`]) and keeps what is to be written; writes run beside it, at most
//! [`WRITES_MAX`] at a time. The queue holds each object once, in its latest version, so it is never longer than there are
//! objects. A write that fails is tried again, ever more slowly; nothing waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::published::Published;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use manifest::ObjectKey;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::events::Note;
use super::status::write::{Ended, WriteError, write};
use super::{each_term, lost};
use crate::clock::Clock;
use crate::metrics::{ControllerMetrics, Reconciled};
use crate::publish::Report;
use crate::start::stopped;
use crate::status::{Faults, LIVE_INTERVAL, Outcomes, Sight, Telling, Told, tell};

mod write;

/// The name under which this controller and its queue count.
pub const CONTROLLER: &str = "status";
/// Writes under way at a time.
pub const WRITES_MAX: usize = 8;
/// Changes that follow each other within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(250);
/// First and longest time until a write that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where to read how often policies failed.
pub type FaultSource = Arc<dyn Fn() -> Faults + Send + Sync>;

/// What the writer of status is plugged into.
pub(super) struct StatusParts {
    pub(super) client: Client,
    pub(super) reports: watch::Receiver<Report>,
    pub(super) published: Published,
    pub(super) outcomes: watch::Receiver<Outcomes>,
    pub(super) faults: FaultSource,
    pub(super) leads: watch::Receiver<bool>,
    pub(super) events: mpsc::Sender<Note>,
    pub(super) clock: Clock,
    pub(super) metrics: ControllerMetrics,
}

/// Writes status whenever this replica leads, until `stop` turns true (or its sender is gone).
pub(super) async fn run(parts: StatusParts, stop: watch::Receiver<bool>) {
    parts.metrics.controller(CONTROLLER, WRITES_MAX);
    let leads = parts.leads.clone();
    each_term(parts, leads, stop, |mut parts, mut stop| async move {
        Term::new(&mut parts).serve(&mut stop).await;
        parts
    })
    .await;
}

/// A status that we wrote.
#[derive(Debug)]
struct Wrote {
    uid: Option<String>,
    /// Version of the object with this status.
    version: Option<String>,
    /// The status as the API server holds it.
    status: Value,
    /// What we had asked for, if the server holds something else: asking again would give the same.
    altered: Option<Value>,
    at: Instant,
}

/// A write that failed.
#[derive(Debug)]
struct Failed {
    times: u32,
    until: Instant,
}

/// What is known while this replica leads; a later term starts anew from what the watch shows.
struct Term<'a> {
    parts: &'a mut StatusParts,
    wrote: HashMap<ObjectKey, Wrote>,
    failed: HashMap<ObjectKey, Failed>,
    waiting: BTreeMap<ObjectKey, Told>,
    /// Under way; true if the object was told anew meanwhile.
    writing: HashMap<ObjectKey, bool>,
    conditions: HashMap<ObjectKey, Vec<(&'static str, &'static str)>>,
}

impl<'a> Term<'a> {
    fn new(parts: &'a mut StatusParts) -> Self {
        Self {
            parts,
            wrote: HashMap::new(),
            failed: HashMap::new(),
            waiting: BTreeMap::new(),
            writing: HashMap::new(),
            conditions: HashMap::new(),
        }
    }

    /// Until leadership is lost, or everything ends.
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut writes: JoinSet<Ended> = JoinSet::new();
        let mut due = Instant::now();
        let mut looked = due;
        loop {
            while writes.len() < WRITES_MAX
                && let Some((key, told)) = self.waiting.pop_first()
            {
                self.writing.insert(key, false);
                writes.spawn(write(self.parts.client.clone(), told));
            }
            self.parts.metrics.queue_depth(CONTROLLER, self.waiting.len());
            tokio::select! {
                () = stopped(stop) => break,
                () = lost(&mut self.parts.leads) => break,
                Some(ended) = writes.join_next() => if let Ok(ended) = ended {
                    due = due.min(self.settle(ended).unwrap_or(due));
                },
                changed = self.parts.reports.changed() => match changed {
                    Ok(()) => due = due.min(looked + SETTLE),
                    Err(_) => break,
                },
                changed = self.parts.outcomes.changed() => match changed {
                    Ok(()) => due = due.min(looked + SETTLE),
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(due) => {
                    looked = Instant::now();
                    due = looked + LIVE_INTERVAL;
                    // Threads to compute on may all be held by look-ups of names.
                    let mut leads = self.parts.leads.clone();
                    tokio::select! {
                        () = stopped(stop) => break,
                        () = lost(&mut leads) => break,
                        () = self.look() => {}
                    }
                    let retries = self.failed.values().map(|failed| failed.until);
                    due = retries.filter(|until| *until > looked).fold(due, Instant::min);
                }
            }
        }
        // Whoever leads next must not find us writing: what is under way is given up. Nor do we know any longer how things are.
        writes.shutdown().await;
        self.count(Vec::new());
    }

    /// Computes every status and queues what differs.
    async fn look(&mut self) {
        let report = self.parts.reports.borrow_and_update().clone();
        let outcomes = Arc::new(self.parts.outcomes.borrow_and_update().clone());
        if report.bursts == 0 {
            return;
        }
        let sight = Sight {
            report,
            snapshot: self.parts.published.load_full(),
            outcomes,
            faults: (self.parts.faults)(),
            now: whole_seconds(Timestamp::now()),
            now_ms: self.parts.clock.now_ms(),
        };
        // Thousands of objects take tens of milliseconds, in which watches should go on.
        let wrote = std::mem::take(&mut self.wrote);
        let computed = tokio::task::spawn_blocking(move || {
            let telling = tell(&sight, &|key, metadata| newer(wrote.get(key)?, metadata));
            (telling, wrote)
        });
        let Ok((telling, wrote)) = computed.await else { return };
        self.wrote = wrote;
        self.take(telling);
    }

    fn take(&mut self, telling: Telling) {
        let now = Instant::now();
        let Telling { told, conditions } = telling;
        self.count(conditions);
        let known = &self.conditions;
        self.wrote.retain(|key, _| known.contains_key(key));
        self.failed.retain(|key, _| known.contains_key(key));
        self.waiting.clear();
        for told in told {
            if let Some(again) = self.writing.get_mut(&told.key) {
                *again = true;
            } else if self.is_due(&told, now) {
                self.parts.metrics.queued(CONTROLLER, 1);
                self.waiting.insert(told.key.clone(), told);
            }
        }
    }

    /// Whether it is time to write this.
    fn is_due(&self, told: &Told, now: Instant) -> bool {
        if self.failed.get(&told.key).is_some_and(|failed| failed.until > now) {
            return false;
        }
        let Some(wrote) = self.wrote.get(&told.key) else { return true };
        let is_futile = wrote.altered.as_ref().is_some_and(|asked| *asked == timeless(&told.status));
        let is_early = told.is_only_live && now < wrote.at + LIVE_INTERVAL;
        !is_futile && !is_early
    }

    /// Tells metrics what conditions objects have now.
    fn count(&mut self, conditions: Vec<(ObjectKey, Vec<(&'static str, &'static str)>)>) {
        let mut gone = std::mem::take(&mut self.conditions);
        for (key, now) in conditions {
            if gone.remove(&key).as_ref() != Some(&now) {
                self.parts.metrics.conditions(&key, now.iter().copied());
            }
            self.conditions.insert(key, now);
        }
        gone.keys().for_each(|key| self.parts.metrics.forget(key));
    }

    /// Takes the end of a write in. Returns when to look again, if that is before long.
    fn settle(&mut self, ended: Ended) -> Option<Instant> {
        let Ended { told, result, took } = ended;
        let again = self.writing.remove(&told.key).unwrap_or_default();
        let now = Instant::now();
        match result {
            Ok((status, version)) => {
                self.parts.metrics.reconciled(CONTROLLER, Reconciled::Success, took);
                self.failed.remove(&told.key);
                super::events::notes(&told)
                    .into_iter()
                    .for_each(|note| super::events::send(&self.parts.events, note));
                let asked = timeless(&told.status);
                let altered = (timeless(&status) != asked).then_some(asked);
                let wrote = Wrote { uid: told.uid, version, status, altered, at: now };
                self.wrote.insert(told.key, wrote);
                again.then_some(now + SETTLE)
            }
            Err(error) => {
                self.parts.metrics.reconciled(CONTROLLER, Reconciled::Error, took);
                let times = self.failed.get(&told.key).map_or(0, |failed| failed.times) + 1;
                let until = now + pause(times, &error);
                warn(&told.key, times, &error);
                self.failed.insert(told.key, Failed { times, until });
                Some(until)
            }
        }
    }
}

/// How long a write that failed so many times waits.
fn pause(times: u32, error: &WriteError) -> Duration {
    let (first, longest) = RETRY;
    match error {
        // Nobody mends rights or a schema within seconds.
        WriteError::Forbidden(_) | WriteError::Refused(_) => longest,
        WriteError::Gone | WriteError::Failed(_) => {
            first.saturating_mul(1 << times.saturating_sub(1).min(10)).min(longest)
        }
    }
}

fn warn(key: &ObjectKey, times: u32, error: &WriteError) {
    match error {
        WriteError::Gone => tracing::debug!(object = %key, "the object is gone, or another has its name"),
        // A refused right is found, and logged, once for all objects.
        WriteError::Forbidden(_) => tracing::debug!(object = %key, times, %error, "status is not written"),
        _ if times > 1 => tracing::debug!(object = %key, times, %error, "status is not written"),
        _ => tracing::warn!(object = %key, %error, "status is not written, trying again"),
    }
}

/// The status that we wrote, if the watch has not shown the object with it yet.
fn newer(wrote: &Wrote, seen: &ObjectMeta) -> Option<Value> {
    let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
    let is_newer = number(&wrote.version)? > number(&seen.resource_version)?;
    (wrote.uid == seen.uid && is_newer).then(|| wrote.status.clone())
}

/// A status without the time of its last change.
fn timeless(status: &Value) -> Value {
    let mut status = status.clone();
    if let Value::Object(fields) = &mut status {
        fields.remove("lastUpdated");
    }
    status
}

/// Status holds no fractions of seconds.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
