//! What one worker counts of decisions: per pool, and per entry of its chain.

use std::sync::Arc;
use std::time::Duration;

use domain::name::{ModelName, ObjectName, PolicyName};
use domain::policy::{Digest, EntryTrace, Fault, Step};
use domain::pool::{Entry, Pool};
use domain::signal::Signal;

use super::Decision;
use super::cells::{Count, Histogram};

/// Upper bounds of decision times.
pub(crate) const DECISION_BOUNDS: [Duration; 11] = {
    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }
    [
        Duration::from_nanos(500),
        us(1),
        us(2),
        us(5),
        us(10),
        us(20),
        us(50),
        us(100),
        us(500),
        us(1_000),
        us(10_000),
    ]
};

/// Why a request went where it went, as a metrics label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The prompt is believed cached there.
    PrefixHit,
    /// The session's owner.
    Session,
    /// Load, or anything else a policy weighs.
    Load,
    /// No policy had an opinion.
    Fallback,
    /// Another endpoint had failed before.
    Failover,
}

impl Reason {
    /// Every reason, by discriminant.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::PrefixHit, "prefix_hit"),
        (Self::Session, "session"),
        (Self::Load, "load"),
        (Self::Fallback, "fallback"),
        (Self::Failover, "failover"),
    ];
}

/// What is said of an entry of a chain.
#[derive(Debug)]
pub(crate) struct EntryLabels {
    /// The policy's name.
    pub(crate) name: PolicyName,
    /// The component's digest; `None` where none is loaded.
    pub(crate) digest: Option<Digest>,
    /// Signals that it is shown.
    pub(crate) signals: Box<[Signal]>,
}

/// Names of a pool and of everything in it that a decision refers to by number.
#[derive(Debug)]
pub(crate) struct PoolLabels {
    /// The gateway.
    pub(crate) gateway: ObjectName,
    /// The model.
    pub(crate) model: ModelName,
    /// URLs by index.
    pub(crate) urls: Box<[Arc<str>]>,
    /// The chain's entries.
    pub(crate) entries: Box<[EntryLabels]>,
    signature: u64,
}

impl PoolLabels {
    fn new(pool: &Pool) -> Self {
        Self {
            gateway: pool.gateway.clone(),
            model: pool.model.clone(),
            urls: pool.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.spec.id.url)).collect(),
            entries: pool.chain.entries.iter().map(EntryLabels::of).collect(),
            signature: pool.signature,
        }
    }

    /// Whether these are still the pool's.
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        self.signature == pool.signature
            && self.urls.len() == pool.endpoints.len()
            && self.entries.iter().map(|entry| (&entry.name, entry.digest)).eq(entries(pool))
    }
}

impl EntryLabels {
    fn of(entry: &Entry) -> Self {
        let description = entry.prepared.as_ref().map(|prepared| prepared.description());
        Self {
            name: entry.spec.name.clone(),
            digest: entry.prepared.as_ref().map(|prepared| prepared.digest()),
            signals: description.map(|description| description.signals.clone()).unwrap_or_default().into(),
        }
    }
}

fn entries(pool: &Pool) -> impl Iterator<Item = (&PolicyName, Option<Digest>)> {
    let entries = pool.chain.entries.iter();
    entries.map(|entry| (&entry.spec.name, entry.prepared.as_ref().map(|prepared| prepared.digest())))
}

/// What one worker counts of a pool's decisions.
#[derive(Debug)]
pub(crate) struct PoolCells {
    /// Names.
    pub(crate) labels: Arc<PoolLabels>,
    /// One per entry of the chain.
    pub(crate) entries: Box<[EntryCells]>,
    /// Decisions that no entry took, by reason.
    pub(crate) undecided: [Count; Reason::ALL.len()],
    /// What deciding took.
    pub(crate) took: Histogram,
    /// Estimated prompt tokens of requests sent.
    pub(crate) prompt_tokens: Count,
    /// Of which believed cached where they were sent.
    pub(crate) cached_tokens: Count,
}

/// What one worker counts of an entry of a chain.
#[derive(Debug)]
pub(crate) struct EntryCells {
    /// Endpoint named, or scores given.
    pub(crate) chose: Count,
    /// Scores given.
    pub(crate) scored: Count,
    /// No opinion.
    pub(crate) abstained: Count,
    /// Request turned away.
    pub(crate) refused: Count,
    /// Not asked: no session.
    pub(crate) no_session: Count,
    /// Not asked: not loaded, or backing off.
    pub(crate) unavailable: Count,
    /// Shadow, and would have chosen what was chosen.
    pub(crate) shadow_agreed: Count,
    /// Shadow, and would not have.
    pub(crate) shadow_differed: Count,
    /// Faults, by kind.
    pub(crate) faults: [Count; FAULTS.len()],
    /// Fuel used.
    pub(crate) fuel: Count,
    /// Time of its calls.
    pub(crate) took: Histogram,
    /// Decisions that were this entry's, by reason.
    pub(crate) decided: [Count; Reason::ALL.len()],
    /// Whether it serves sessions.
    is_session: bool,
}

/// Every fault.
pub(crate) const FAULTS: [Fault; 7] = [
    Fault::Fuel,
    Fault::Memory,
    Fault::Trap,
    Fault::Answer,
    Fault::HostCalls,
    Fault::Instantiate,
    Fault::NotExecuted,
];

impl PoolCells {
    pub(crate) fn new(pool: &Pool) -> Self {
        let labels = PoolLabels::new(pool);
        let entries = labels.entries.iter().map(|entry| EntryCells::new(&entry.name)).collect();
        Self {
            labels: Arc::new(labels),
            entries,
            undecided: Default::default(),
            took: Histogram::new(&DECISION_BOUNDS),
            prompt_tokens: Count::default(),
            cached_tokens: Count::default(),
        }
    }

    /// A decision was taken.
    pub(crate) fn decided(&self, decision: &Decision<'_>) {
        self.took.observe(decision.took);
        let mut decider = None;
        for trace in decision.traces {
            let Some(entry) = self.entries.get(usize::from(trace.entry)) else { continue };
            entry.ran(trace, decision.endpoint);
            if matches!(trace.step, Step::Chose(_) | Step::Scored(_)) {
                decider = Some(entry);
            }
        }
        if decision.endpoint.is_none() {
            return;
        }
        self.prompt_tokens.add(u64::from(decision.prompt_tokens));
        self.cached_tokens.add(u64::from(decision.cached_tokens.min(decision.prompt_tokens)));
        let reason = match decider {
            _ if decision.attempt > 0 => Reason::Failover,
            None => Reason::Fallback,
            Some(entry) if entry.is_session => Reason::Session,
            Some(_) if decision.cached_tokens > 0 => Reason::PrefixHit,
            Some(_) => Reason::Load,
        };
        decider.map_or(&self.undecided, |entry| &entry.decided)[reason as usize].add(1);
    }
}

impl EntryCells {
    fn new(name: &PolicyName) -> Self {
        Self {
            chose: Count::default(),
            scored: Count::default(),
            abstained: Count::default(),
            refused: Count::default(),
            no_session: Count::default(),
            unavailable: Count::default(),
            shadow_agreed: Count::default(),
            shadow_differed: Count::default(),
            faults: Default::default(),
            fuel: Count::default(),
            took: Histogram::new(&DECISION_BOUNDS),
            decided: Default::default(),
            is_session: name.as_str() == "session-affinity",
        }
    }

    fn ran(&self, trace: &EntryTrace, chosen: Option<u32>) {
        match trace.step {
            Step::Chose(_) => self.chose.add(1),
            Step::Scored(_) => self.scored.add(1),
            Step::Abstained => self.abstained.add(1),
            Step::Refused => self.refused.add(1),
            Step::NoSession => self.no_session.add(1),
            Step::Unavailable => self.unavailable.add(1),
            Step::Fault(fault) => {
                if let Some(place) = FAULTS.iter().position(|known| *known == fault) {
                    self.faults[place].add(1);
                }
            }
            Step::Shadow(would) if would == chosen => self.shadow_agreed.add(1),
            Step::Shadow(_) => self.shadow_differed.add(1),
        }
        self.fuel.add(trace.fuel);
        if trace.nanoseconds > 0 {
            self.took.observe(Duration::from_nanos(u64::from(trace.nanoseconds)));
        }
    }
}
