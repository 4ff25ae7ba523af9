//! Passive ejection: an endpoint that keeps failing gets no requests for a while, then one probe, then a slow start.
//!
//! The whole state is one atomic word that lives with the endpoint's other live numbers, so nothing is locked and a
//! healthy endpoint costs one load per request. What counts as a failure is the caller's to say: a connection that
//! cannot be made, one that dies before the head of an answer, a head that does not come in time. An engine that answers,
//! be it with an error, is alive.
//!
//! ```text
//!            failures in a row                 backoff over, one `admit`
//!   Closed ───────────────────► Ejected ───────────────────────────────► Probing
//!     ▲                            ▲  │ any success                        │  │
//!     │                            └──┼──────────── failure, backoff × 2 ──┘  │
//!     └───────────────────────────────┴──────── success: slow start ──────────┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Share of its weight that an endpoint begins a slow start with. Envoy's `min_weight_percent` is 10 % too: none at all
/// would leave it without the traffic that warms it.
pub const WARMTH_MIN: f32 = 0.1;

/// How a [`Breaker`] decides. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that eject, at most 255. Default 3. 0: never.
    pub failures: u8,
    /// First backoff; doubles with every failed probe. Default 1,000.
    pub backoff_ms: u32,
    /// Bound of the doubling. Default 60,000.
    pub backoff_max_ms: u32,
    /// How long a probe may go without a result before another one is let through: its request may wait in the engine's
    /// queue, or nobody may ever say how it ended. Default 30,000.
    pub probe_ms: u32,
    /// Length of the slow start after an ejection. Default 10,000. 0: full weight at once.
    pub warm_up_ms: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 3, backoff_ms: 1_000, backoff_max_ms: 60_000, probe_ms: 30_000, warm_up_ms: 10_000 }
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

/// State of one endpoint's ejection. `now_ms` is the gateway's monotonic clock in all of its functions.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    word: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(BreakerSettings::default())
    }
}

impl Breaker {
    /// Closed, and warm: an endpoint that was always there.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, word: AtomicU64::new(State::default().pack()) }
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
                // Somebody else became the probe, or its result came.
                Err(seen) => word = seen,
            }
        }
    }

    /// Whether [`Self::admit`] would say no: what `excluded` tells the policies. Changes nothing.
    pub fn is_excluded(&self, now_ms: u64) -> bool {
        let state = self.state();
        state.phase != Phase::Closed && now_ms < state.at_ms
    }

    /// The endpoint answered. Ends an ejection whoever found out, also a request that was sent before it or in spite of
    /// it (when all of a pool are ejected), for it answers now.
    pub fn succeeded(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Closed => {
                let warm = self.warmth_of(state, now_ms) >= 1.0;
                // Only who stays up for the whole slow start begins with the short backoff again.
                let ejections = if warm { 0 } else { state.ejections };
                State { failures: 0, ejections, at_ms: if warm { 0 } else { state.at_ms }, ..state }
            }
            // 0 means warm, so a slow start begins at 1 at the earliest.
            Phase::Ejected | Phase::Probing => {
                State { phase: Phase::Closed, failures: 0, at_ms: now_ms.max(1), ..state }
            }
        });
    }

    /// The endpoint did not answer.
    pub fn failed(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Closed => {
                let failures = state.failures.saturating_add(1);
                if self.settings.failures == 0 || failures < self.settings.failures {
                    return State { failures, ..state };
                }
                self.eject(state, now_ms)
            }
            Phase::Probing => self.eject(state, now_ms),
            // Late news of a request from before; must not prolong the ejection.
            Phase::Ejected => state,
        });
    }

    /// The probe ended without telling anything about the endpoint: the next request becomes the probe. Only for whoever
    /// was given [`Admit::Probe`].
    pub fn abandoned(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Probing => State { phase: Phase::Ejected, at_ms: now_ms, ..state },
            Phase::Closed | Phase::Ejected => state,
        });
    }

    /// Begins a slow start, as after an ejection: for an endpoint that joins a pool which serves already.
    pub fn warm_up(&self, now_ms: u64) {
        self.update(|state| match state.phase {
            Phase::Closed => State { at_ms: now_ms.max(1), ..state },
            Phase::Ejected | Phase::Probing => state,
        });
    }

    /// Share of its weight that the endpoint should get: 0 while excluded, else from [`WARMTH_MIN`] rising evenly to 1
    /// over the slow start.
    pub fn warmth(&self, now_ms: u64) -> f32 {
        let state = self.state();
        match state.phase {
            Phase::Closed => self.warmth_of(state, now_ms),
            Phase::Ejected | Phase::Probing if now_ms < state.at_ms => 0.0,
            Phase::Ejected | Phase::Probing => WARMTH_MIN,
        }
    }

    /// How often in a row it was ejected without staying up for a whole slow start in between; 0 is healthy, at most 63.
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

    fn eject(&self, state: State, now_ms: u64) -> State {
        let doubled = u64::from(self.settings.backoff_ms) << state.ejections.min(31);
        let backoff = doubled.min(u64::from(self.settings.backoff_max_ms));
        let ejections = (state.ejections + 1).min(EJECTIONS_MAX);
        State { phase: Phase::Ejected, failures: 0, ejections, at_ms: now_ms + backoff }
    }

    /// Applies `change`; writes only what differs, so that a healthy endpoint's cache line stays shared.
    ///
    /// Relaxed throughout: the word is all there is, nothing else is published by it.
    fn update(&self, change: impl Fn(State) -> State) {
        let mut word = self.word.load(Relaxed);
        loop {
            let next = change(State::unpack(word)).pack();
            if next == word {
                return;
            }
            match self.word.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

/// Whether ejections have to be ignored: all `candidates` are ejected, and a request sent to an engine that may be back
/// is better than none sent at all.
///
/// Counts ejections only. Who sleeps or drains stays out whatever happens.
pub fn ignores_ejections(candidates: usize, ejected: usize) -> bool {
    candidates > 0 && ejected >= candidates
}

const EJECTIONS_MAX: u8 = 63;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Ejected,
    Probing,
}

/// The word, taken apart: phase 2 bits, failures 8, ejections 6, time 48 (8,900 years of milliseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    phase: Phase,
    /// In a row; of a closed breaker.
    failures: u8,
    /// In a row; the exponent of the next backoff.
    ejections: u8,
    /// Closed: when the slow start began, 0 if it is over. Ejected: when it ends. Probing: when the probe counts as lost.
    at_ms: u64,
}

const TIME_BITS: u32 = 48;

impl State {
    fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Ejected => 1,
            Phase::Probing => 2,
        };
        let high = phase << 14 | u64::from(self.failures) << 6 | u64::from(self.ejections);
        high << TIME_BITS | self.at_ms.min((1 << TIME_BITS) - 1)
    }

    fn unpack(word: u64) -> Self {
        let phase = match word >> 62 {
            0 => Phase::Closed,
            1 => Phase::Ejected,
            _ => Phase::Probing,
        };
        Self {
            phase,
            failures: (word >> 54) as u8,
            ejections: (word >> TIME_BITS) as u8 & EJECTIONS_MAX,
            at_ms: word & ((1 << TIME_BITS) - 1),
        }
    }
}

#[cfg(test)]
mod tests;
