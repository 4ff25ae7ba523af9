//! Passive ejection: an endpoint that fails gets no requests for a while, then one probe, then a slow start.
//!
//! The state that a request reads is one atomic word that lives with the endpoint's other live numbers, so nothing is
//! locked and a healthy endpoint costs one load per request. What counts as a failure is decided in [`crate::sign`]; how
//! long the endpoint is left alone depends on the [`Cause`].
//!
//! ```text
//!               a failure                       backoff over, one `admit`
//!   Closed ───────────────────► Ejected ───────────────────────────────► Probing
//!     ▲                            ▲  │ success of a request sent since     │  │
//!     │                            └──┼──────────── failure, backoff × 2 ──┘  │
//!     └───────────────────────────────┴──────── success: slow start ──────────┘
//! ```
//!
//! One failure is enough: at two requests a second over sixteen engines, three failures in a row take half a minute. It
//! costs little, because the first backoff is short and the probe that ends it is repaired at another engine if it fails.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod cause;

pub use cause::Cause;

/// Share of its weight that an endpoint begins a slow start with. Envoy's `min_weight_percent` is 10 % too: none at all
/// would leave it without the traffic that warms it.
pub const WARMTH_MIN: f32 = 0.1;

/// Good answers in a row after which earlier ejections no longer lengthen the next one. At most 31.
pub const GOOD_STREAK: u8 = 8;

/// Timeouts in a row that eject. More than one: a request may be slow for its own reasons.
pub const TIMEOUTS: u8 = 3;

/// Longest backoff that an engine may ask for with `Retry-After`, milliseconds.
pub const RETRY_AFTER_MAX_MS: u32 = 5_000;

/// How a [`Breaker`] decides. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// First backoff; doubles with every failed probe. Default 500.
    pub backoff_ms: u32,
    /// Bound of the doubling. Default 4,000, so that an engine is back and warm within 15 s of its recovery.
    pub backoff_max_ms: u32,
    /// First backoff of an overloaded engine that does not say how long. Default 250.
    pub overload_ms: u32,
    /// Bound of the doubling where finding out costs a request seconds. Default 30,000.
    pub slow_max_ms: u32,
    /// How long a probe may go without a result before another one is let through: its request may wait in the engine's
    /// queue, or its end may never be told. Default 30,000.
    pub probe_ms: u32,
    /// Length of the slow start after an ejection. Default 8,000. 0: full weight at once.
    pub warm_up_ms: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            backoff_ms: 500,
            backoff_max_ms: 4_000,
            overload_ms: 250,
            slow_max_ms: 30_000,
            probe_ms: 30_000,
            warm_up_ms: 8_000,
        }
    }
}

/// A failure as a breaker is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// What it was.
    pub cause: Cause,
    /// The engine's status; 0 if it sent none.
    pub status: u16,
    /// How long the engine asks to be left alone, milliseconds; 0 if it does not say. At most [`RETRY_AFTER_MAX_MS`] counts.
    pub retry_after_ms: u32,
}

impl Failed {
    /// A failure without a status.
    pub const fn of(cause: Cause) -> Self {
        Self { cause, status: 0, retry_after_ms: 0 }
    }
}

/// Whether a request may go to an endpoint now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// As to any other.
    Yes,
    /// As the one request that finds out. Its end must be told: [`Breaker::succeeded`], [`Breaker::failed`], or
    /// [`Breaker::abandoned`] if it ended for a reason of the client's.
    Probe,
    /// Not now.
    No,
}

/// What a request may expect of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests go there.
    In,
    /// No requests go there.
    Out,
    /// No requests go there but one, which finds out whether it is well again.
    Due,
}

/// A change that operators want to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets no more requests, for this reason.
    Out(Failed),
    /// It gets requests again, after so many milliseconds.
    Back {
        /// Since it got none.
        after_ms: u64,
    },
}

/// Why an endpoint gets no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// The last failure. Its `retry_after_ms` is not kept.
    pub last: Failed,
    /// When it began, milliseconds on the gateway's clock.
    pub since_ms: u64,
    /// When the next probe may go there; of a probe under way, when it counts as lost.
    pub until_ms: u64,
    /// Whether a probe is under way.
    pub probing: bool,
}

/// State of one endpoint's ejection. `now_ms` is the gateway's monotonic clock in all of its functions.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    word: AtomicU64,
    /// When the current or last ejection began; written on ejection only.
    since_ms: AtomicU64,
    /// The last failure: its time above, its status in the low 16 bits. 0 before the first.
    last: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(BreakerSettings::default())
    }
}

impl Breaker {
    /// Closed, and warm: an endpoint that was always there.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            word: AtomicU64::new(State::default().pack()),
            since_ms: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Asks for the endpoint at the moment a request is about to be sent there.
    pub fn admit(&self, now_ms: u64) -> Admit {
        let mut word = self.word.load(Relaxed);
        loop {
            let state = State::unpack(word);
            if state.phase == Phase::Closed {
                return Admit::Yes;
            }
            if now_ms < state.at_ms {
                return Admit::No;
            }
            let probing =
                State { phase: Phase::Probing, at_ms: now_ms + u64::from(self.settings.probe_ms), ..state };
            match self.word.compare_exchange_weak(word, probing.pack(), Relaxed, Relaxed) {
                Ok(_) => return Admit::Probe,
                // Another request became the probe, or its result came.
                Err(seen) => word = seen,
            }
        }
    }

    /// What a request may expect now. Changes nothing. One load of a healthy endpoint.
    pub fn standing(&self, now_ms: u64) -> Standing {
        let word = self.word.load(Relaxed);
        if word < State::NOT_CLOSED {
            Standing::In
        } else if now_ms < State::unpack(word).at_ms {
            Standing::Out
        } else {
            Standing::Due
        }
    }

    /// Whether it is ejected and has not shown since that it is well.
    pub fn is_out(&self) -> bool {
        self.word.load(Relaxed) >= State::NOT_CLOSED
    }

    /// Whether it is out for load and for nothing worse.
    pub fn is_overloaded(&self) -> bool {
        let state = self.state();
        state.phase != Phase::Closed && state.cause == Cause::Overloaded
    }

    /// Why it is out; `None` while it is in.
    pub fn ejection(&self) -> Option<Ejection> {
        let state = self.state();
        (state.phase != Phase::Closed).then(|| Ejection {
            last: Failed { cause: state.cause, status: self.last_status(), retry_after_ms: 0 },
            since_ms: self.since_ms.load(Relaxed),
            until_ms: state.at_ms,
            probing: state.phase == Phase::Probing,
        })
    }

    /// The last failure and its time on the gateway's clock, also of an endpoint that is well since; `None` before the first.
    pub fn last_failure(&self) -> Option<(Failed, u64)> {
        let last = self.last.load(Relaxed);
        let failed = Failed { cause: self.state().cause, status: self.last_status(), retry_after_ms: 0 };
        (last > 0).then_some((failed, last >> 16))
    }

    fn last_status(&self) -> u16 {
        self.last.load(Relaxed) as u16
    }

    /// A whole good answer. Ends an ejection if `admitted` says that the request was sent since: one that was on its way
    /// before tells nothing new.
    pub fn succeeded(&self, admitted: Admit, now_ms: u64) -> Option<Change> {
        // Nearly always: nothing is remembered against it, and nothing is written.
        if self.word.load(Relaxed) == 0 {
            return None;
        }
        let before = self.update(|state| match state.phase {
            Phase::Closed => {
                let warm = self.warmth_of(state, now_ms) >= 1.0;
                let at_ms = if warm { 0 } else { state.at_ms };
                let streak = if state.ejections == 0 { 0 } else { state.streak + 1 };
                if streak < GOOD_STREAK && state.ejections > 0 {
                    return State { streak, at_ms, ..state };
                }
                State { streak: 0, ejections: 0, at_ms, ..state }
            }
            Phase::Ejected if admitted == Admit::Yes => state,
            // 0 means warm, so a slow start begins at 1 at the earliest.
            Phase::Ejected | Phase::Probing => {
                State { phase: Phase::Closed, streak: 0, at_ms: now_ms.max(1), ..state }
            }
        });
        let is_back =
            before.phase == Phase::Probing || before.phase == Phase::Ejected && admitted != Admit::Yes;
        is_back.then(|| Change::Back { after_ms: now_ms.saturating_sub(self.since_ms.load(Relaxed)) })
    }

    /// The endpoint failed a request.
    pub fn failed(&self, failed: Failed, now_ms: u64) -> Option<Change> {
        let before = self.update(|state| match state.phase {
            Phase::Closed if failed.cause == Cause::Timeout => {
                // The streak counts good answers of an endpoint that has been ejected, else timeouts in a row.
                let streak = if state.ejections > 0 { TIMEOUTS } else { state.streak + 1 };
                if streak < TIMEOUTS {
                    return State { streak, ..state };
                }
                self.eject(state, failed, now_ms)
            }
            Phase::Closed | Phase::Probing => self.eject(state, failed, now_ms),
            // Late news of a request from before; must not prolong the ejection.
            Phase::Ejected => state,
        });
        if before.phase == Phase::Ejected {
            return None;
        }
        self.last.store(now_ms << 16 | u64::from(failed.status), Relaxed);
        if before.phase == Phase::Probing || !self.is_out() {
            return None;
        }
        self.since_ms.store(now_ms, Relaxed);
        Some(Change::Out(failed))
    }

    /// The last failure turned out to be the request's own: another engine gave the same answer. An endpoint that was in is
    /// in again; a probe says nothing, and the next one waits as long as this one did.
    pub fn acquitted(&self, admitted: Admit, now_ms: u64) {
        self.update(|state| {
            let ejections = state.ejections.saturating_sub(1);
            match (state.phase, admitted) {
                (Phase::Ejected, Admit::Yes) => State { phase: Phase::Closed, ejections, at_ms: 0, ..state },
                (Phase::Ejected, Admit::Probe) => {
                    let before = State { ejections: ejections.saturating_sub(1), ..state };
                    self.eject(before, Failed::of(state.cause), now_ms)
                }
                _ => state,
            }
        });
    }

    /// The probe ended without telling anything about the endpoint: the next request becomes the probe. Only for a request
    /// that got [`Admit::Probe`].
    pub fn abandoned(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Probing => State { phase: Phase::Ejected, at_ms: now_ms, ..state },
            Phase::Closed | Phase::Ejected => state,
        });
    }

    /// The next request may be the probe, however long the backoff: connections are accepted again.
    pub fn hurry(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Ejected if state.cause.is_unconnected() => {
                State { at_ms: state.at_ms.min(now_ms), ..state }
            }
            _ => state,
        });
    }

    /// Begins a slow start, as after an ejection: for an endpoint that joins a pool which serves already.
    pub fn warm_up(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Closed => State { at_ms: now_ms.max(1), ..state },
            Phase::Ejected | Phase::Probing => state,
        });
    }

    /// Share of its weight that the endpoint should get: 0 while it is out, else from [`WARMTH_MIN`] rising evenly to 1
    /// over the slow start.
    pub fn warmth(&self, now_ms: u64) -> f32 {
        let state = self.state();
        match state.phase {
            Phase::Closed => self.warmth_of(state, now_ms),
            Phase::Ejected | Phase::Probing => 0.0,
        }
    }

    /// How often in a row it was ejected without [`GOOD_STREAK`] good answers in between; 0 is healthy, at most 31.
    pub fn ejections(&self) -> u8 {
        self.state().ejections
    }

    fn state(&self) -> State {
        State::unpack(self.word.load(Relaxed))
    }

    /// Warmth of a closed breaker.
    fn warmth_of(&self, state: State, now_ms: u64) -> f32 {
        let window = f64::from(self.settings.warm_up_ms);
        let since = now_ms.saturating_sub(state.at_ms) as f64;
        if state.at_ms == 0 || since >= window {
            return 1.0;
        }
        WARMTH_MIN + (1.0 - WARMTH_MIN) * (since / window) as f32
    }

    fn eject(&self, state: State, failed: Failed, now_ms: u64) -> State {
        let settings = &self.settings;
        let (first_ms, max_ms) = match failed.cause {
            Cause::Overloaded => (settings.overload_ms, settings.backoff_max_ms),
            cause if cause.is_slow() => (settings.backoff_ms, settings.slow_max_ms),
            _ => (settings.backoff_ms, settings.backoff_max_ms),
        };
        let doubled = u64::from(first_ms) << state.ejections.min(31);
        let asked = u64::from(failed.retry_after_ms.min(RETRY_AFTER_MAX_MS));
        let backoff = doubled.min(u64::from(max_ms)).max(asked);
        let ejections = (state.ejections + 1).min(EJECTIONS_MAX);
        State { phase: Phase::Ejected, streak: 0, ejections, cause: failed.cause, at_ms: now_ms + backoff }
    }

    /// Applies `change`, and returns what was before; writes only what differs, so that a healthy endpoint's cache line
    /// stays shared.
    ///
    /// Relaxed throughout: a request acts on the word alone; the other cells are for pages and may be a moment behind.
    fn update(&self, change: impl Fn(State) -> State) -> State {
        let mut word = self.word.load(Relaxed);
        loop {
            let before = State::unpack(word);
            let next = change(before).pack();
            if next == word {
                return before;
            }
            match self.word.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return before,
                Err(seen) => word = seen,
            }
        }
    }
}

const EJECTIONS_MAX: u8 = 31;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Ejected,
    Probing,
}

/// The word, taken apart: phase 2 bits, streak 5, ejections 5, cause 4, time 48 (8,900 years of milliseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    phase: Phase,
    /// Of a closed breaker: good answers since the last ejection, or timeouts in a row where there was none.
    streak: u8,
    /// In a row; the exponent of the next backoff.
    ejections: u8,
    /// Of the last failure that ejected.
    cause: Cause,
    /// Closed: when the slow start began, 0 if it is over. Ejected: when it ends. Probing: when the probe counts as lost.
    at_ms: u64,
}

const TIME_BITS: u32 = 48;
const FIELD_MAX: u8 = 31;

impl State {
    /// The smallest word whose phase is not closed.
    const NOT_CLOSED: u64 = 1 << 62;

    fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Ejected => 1,
            Phase::Probing => 2,
        };
        let counts =
            u64::from(self.streak.min(FIELD_MAX)) << 9 | u64::from(self.ejections.min(FIELD_MAX)) << 4;
        let high = phase << 14 | counts | self.cause as u64;
        high << TIME_BITS | self.at_ms.min((1 << TIME_BITS) - 1)
    }

    fn unpack(word: u64) -> Self {
        let phase = match word >> 62 {
            0 => Phase::Closed,
            1 => Phase::Ejected,
            _ => Phase::Probing,
        };
        let high = word >> TIME_BITS;
        Self {
            phase,
            streak: (high >> 9) as u8 & FIELD_MAX,
            ejections: (high >> 4) as u8 & FIELD_MAX,
            cause: Cause::unpack(high),
            at_ms: word & ((1 << TIME_BITS) - 1),
        }
    }
}

#[cfg(test)]
mod tests;
