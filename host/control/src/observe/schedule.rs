//! Which probe is due when: a function of values, without clock or IO.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use domain::endpoint::{EndpointId, EndpointSpec, EndpointState};
use domain::name::ObjectName;

/// How often each probe runs, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    /// Metrics page.
    pub metrics_ms: u64,
    /// Model list, and whether the engine sleeps.
    pub models_ms: u64,
    /// The same for a question that the engine does not know.
    pub unknown_ms: u64,
}

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Probe {
    /// Which models it serves.
    Models,
    /// Its metrics page.
    Metrics,
    /// Whether it sleeps.
    Sleep,
}

/// An endpoint to observe.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Configuration.
    pub spec: Arc<EndpointSpec>,
    /// Where readings go. `None`: not in the snapshot (its model list excludes it), only the list is asked for.
    pub state: Option<Arc<EndpointState>>,
}

/// A probe to run now.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Whom to ask.
    pub target: Target,
    /// What to ask.
    pub probe: Probe,
}

/// All targets and their next probes.
#[derive(Debug)]
pub(super) struct Schedule {
    intervals: Intervals,
    targets: HashMap<EndpointId, Target>,
    due: BTreeSet<(u64, EndpointId, Probe)>,
    running: BTreeSet<(EndpointId, Probe)>,
}

impl Schedule {
    /// A schedule without targets.
    pub(super) fn new(intervals: Intervals) -> Self {
        Self { intervals, targets: HashMap::new(), due: BTreeSet::new(), running: BTreeSet::new() }
    }

    /// Takes over what is to be observed. New targets are due at once, those that left are forgotten, the rest keep
    /// their turn. Returns the ids that left.
    pub(super) fn reconcile(
        &mut self,
        targets: impl IntoIterator<Item = Target>,
        now_ms: u64,
    ) -> Vec<EndpointId> {
        let mut before = std::mem::take(&mut self.targets);
        for target in targets {
            let id = target.spec.id.clone();
            let known = before.remove(&id);
            for probe in [Probe::Models, Probe::Metrics, Probe::Sleep] {
                let wanted = |target: &Target| probe == Probe::Models || target.state.is_some();
                let waiting = known.as_ref().is_some_and(wanted);
                if wanted(&target) && !waiting && !self.running.contains(&(id.clone(), probe)) {
                    self.due.insert((now_ms, id.clone(), probe));
                }
            }
            self.targets.insert(id, target);
        }
        let targets = &self.targets;
        self.due.retain(|(_, id, probe)| {
            targets.get(id).is_some_and(|target| *probe == Probe::Models || target.state.is_some())
        });
        before.into_keys().collect()
    }

    /// The next probe whose time has come; it is running until [`Self::finished`].
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Job> {
        let (due_ms, ..) = self.due.first()?;
        if *due_ms > now_ms {
            return None;
        }
        let (_, id, probe) = self.due.pop_first()?;
        let target = self.targets.get(&id)?.clone();
        self.running.insert((id, probe));
        Some(Job { target, probe })
    }

    /// When the next probe is due, milliseconds on the gateway's clock.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, ..)| *due_ms)
    }

    /// A probe has ended, well or badly: plans the next. `known`: the engine knows the question.
    pub(super) fn finished(&mut self, id: &EndpointId, probe: Probe, known: bool, now_ms: u64) {
        self.running.remove(&(id.clone(), probe));
        let wanted =
            self.targets.get(id).is_some_and(|target| probe == Probe::Models || target.state.is_some());
        if !wanted {
            return;
        }
        let interval_ms = match probe {
            _ if !known => self.intervals.unknown_ms,
            Probe::Metrics => self.intervals.metrics_ms,
            Probe::Models | Probe::Sleep => self.intervals.models_ms,
        };
        self.due.insert((next_turn_ms(id, probe, interval_ms.max(1), now_ms), id.clone(), probe));
    }

    /// Engines in these pods are asked at once what they serve and whether they sleep, as far as they are not being asked.
    pub(super) fn hurry(&mut self, pods: &HashSet<ObjectName>, now_ms: u64) {
        let is_meant = |target: &Target| {
            let Some(pod) = &target.spec.pod else { return false };
            pods.contains(&ObjectName { namespace: Arc::clone(&pod.namespace), name: Arc::clone(&pod.name) })
        };
        let targets = &self.targets;
        let later = self.due.iter().filter(|(due_ms, id, probe)| {
            *due_ms > now_ms && *probe != Probe::Metrics && targets.get(id).is_some_and(is_meant)
        });
        let later: Vec<(u64, EndpointId, Probe)> = later.cloned().collect();
        for turn in later {
            self.due.remove(&turn);
            self.due.insert((now_ms, turn.1, turn.2));
        }
    }

    /// Whether a target is observed.
    pub(super) fn has(&self, id: &EndpointId) -> bool {
        self.targets.contains_key(id)
    }

    /// Configurations of all targets.
    pub(super) fn specs(&self) -> impl Iterator<Item = &EndpointSpec> {
        self.targets.values().map(|target| &*target.spec)
    }
}

/// The endpoint's own place in the interval spreads probes evenly over it, and is the same in every run. At least half
/// an interval passes between two probes, and at most a whole one.
fn next_turn_ms(id: &EndpointId, probe: Probe, interval_ms: u64, now_ms: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, probe).hash(&mut hasher);
    let phase_ms = hasher.finish() % interval_ms;
    let earliest_ms = now_ms + interval_ms / 2;
    let start_ms = earliest_ms - earliest_ms % interval_ms;
    let turn_ms = start_ms + phase_ms;
    let turn_ms = if turn_ms < earliest_ms { turn_ms + interval_ms } else { turn_ms };
    // On the way to its place after the very first probe there may be one more.
    if turn_ms > now_ms + interval_ms { turn_ms - interval_ms / 2 } else { turn_ms }
}

#[cfg(test)]
mod tests {
    use domain::endpoint::PodRef;

    use super::*;
    use crate::observe::fake_engine::spec;

    const EVERY: Intervals = Intervals { metrics_ms: 2_000, models_ms: 10_000, unknown_ms: 300_000 };

    fn target(url: &str) -> Target {
        Target { spec: Arc::new(spec(url)), state: Some(Arc::new(EndpointState::new(1))) }
    }

    fn drain(schedule: &mut Schedule, now_ms: u64) -> Vec<(String, Probe)> {
        std::iter::from_fn(|| schedule.take_due(now_ms))
            .map(|job| (job.target.spec.id.url.to_string(), job.probe))
            .collect()
    }

    #[test]
    fn a_new_target_is_asked_everything_at_once_and_nothing_twice_at_a_time() {
        let mut schedule = Schedule::new(EVERY);
        schedule.reconcile([target("http://a:1")], 5);
        assert_eq!(drain(&mut schedule, 5).len(), 3);
        schedule.reconcile([target("http://a:1")], 6);
        assert_eq!(drain(&mut schedule, 1_000_000), [], "all three still run");
    }

    #[test]
    fn the_next_turn_comes_after_half_an_interval_and_within_a_whole_one() {
        for index in 0..100 {
            let mut schedule = Schedule::new(EVERY);
            let target = target(&format!("http://10.0.0.{index}:8000"));
            let id = target.spec.id.clone();
            schedule.reconcile([target], 1_000);
            drain(&mut schedule, 1_000);
            schedule.finished(&id, Probe::Metrics, true, 1_234);
            let next_ms = schedule.next_due_ms().expect("planned");
            assert!((2_234..=3_234).contains(&next_ms), "{next_ms}");
        }
    }

    #[test]
    fn a_target_that_left_is_asked_no_more_and_comes_back_at_once() {
        let mut schedule = Schedule::new(EVERY);
        let a = target("http://a:1");
        let id = a.spec.id.clone();
        schedule.reconcile([a.clone()], 0);
        drain(&mut schedule, 0);
        assert_eq!(schedule.reconcile([], 1), std::slice::from_ref(&id));
        schedule.finished(&id, Probe::Models, true, 2);
        assert_eq!(schedule.next_due_ms(), None);
        schedule.reconcile([a], 3);
        assert_eq!(
            drain(&mut schedule, 3),
            [("http://a:1".to_owned(), Probe::Models)],
            "the others still run"
        );
    }

    #[test]
    fn the_engine_of_a_pod_that_changed_is_asked_at_once_and_no_other() {
        let mut schedule = Schedule::new(EVERY);
        let [changed, other] = ["http://a:1", "http://b:1"].map(|url| {
            let pod = PodRef { namespace: "ns".into(), name: url[7..8].into() };
            Target { spec: Arc::new(EndpointSpec { pod: Some(pod), ..spec(url) }), ..target(url) }
        });
        let ids = [changed.spec.id.clone(), other.spec.id.clone()];
        schedule.reconcile([changed, other], 0);
        drain(&mut schedule, 0);
        for (id, probe) in
            ids.iter().flat_map(|id| [(id, Probe::Models), (id, Probe::Sleep), (id, Probe::Metrics)])
        {
            schedule.finished(id, probe, true, 0);
        }
        schedule.hurry(&HashSet::from([ObjectName::new("ns", "a"), ObjectName::new("ns", "c")]), 1);
        let asked = ["http://a:1"; 2].map(str::to_owned).into_iter().zip([Probe::Models, Probe::Sleep]);
        assert_eq!(drain(&mut schedule, 1), asked.collect::<Vec<_>>());
    }

    #[test]
    fn an_excluded_target_is_asked_for_its_models_only() {
        let mut schedule = Schedule::new(EVERY);
        schedule.reconcile([Target { state: None, ..target("http://a:1") }], 0);
        assert_eq!(drain(&mut schedule, 0), [("http://a:1".to_owned(), Probe::Models)]);
        schedule.reconcile([target("http://a:1")], 1);
        let asked: Vec<Probe> = drain(&mut schedule, 1).into_iter().map(|(_, probe)| probe).collect();
        assert_eq!(asked, [Probe::Metrics, Probe::Sleep], "back in the snapshot");
    }
}
