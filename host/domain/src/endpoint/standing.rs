//! Whether requests go to an endpoint: what its breakers say, whether the observer can reach it, and what it did well.
//!
//! One breaker is for all requests. A kind of requests that the engine denies or does not know, while it serves others, has
//! a breaker of its own, made when that is first found out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{Endpoint, EndpointState};
use crate::breaker::{Admit, Breaker, Cause, Change, Ejection, Failed, Standing};
use crate::request::{KINDS_MAX, RequestKind};

/// An endpoint without a good answer for this long, milliseconds, is on trial: what fails there may be repaired at another
/// endpoint that has one ([`Endpoint::is_proven`]). Less than a second, the time within which a sick engine may cost requests.
pub const PROVEN_MS: u64 = 500;

/// A good answer shows for this long, milliseconds, that requests of its kind can be answered.
const ANSWERABLE_MS: u64 = 60_000;

/// What the observer found counts for this long, milliseconds: a little more than its longest interval.
pub const UNREACHABLE_MS: u64 = 12_000;

/// Times of good answers are kept in steps of this, milliseconds.
const TICK_MS: u64 = 32;

/// What is known of an endpoint's health. The request path writes all of it but `unreachable_ms`, which is the observer's.
#[derive(Debug)]
pub(super) struct Health {
    /// For all requests.
    breaker: Breaker,
    /// When the observer last failed to connect; 0 if it has connected since, or a request was answered.
    unreachable_ms: AtomicU64,
    /// By kind; made when the first is needed, some 2 KiB.
    refusals: OnceLock<Box<[Breaker; KINDS_MAX]>>,
    /// Last good answer by kind, ticks of [`TICK_MS`]; 0 is never. Wraps after four years.
    good: [AtomicU32; KINDS_MAX],
}

impl Default for Health {
    fn default() -> Self {
        Self {
            breaker: Breaker::default(),
            unreachable_ms: AtomicU64::new(0),
            refusals: OnceLock::new(),
            good: [const { AtomicU32::new(0) }; KINDS_MAX],
        }
    }
}

impl Health {
    pub(super) fn warmth(&self, now_ms: u64) -> f32 {
        self.breaker.warmth(now_ms)
    }

    fn refusal(&self, kind: RequestKind) -> Option<&Breaker> {
        Some(&self.refusals.get()?[kind.index()])
    }

    fn is_unreachable(&self, now_ms: u64) -> bool {
        let at_ms = self.unreachable_ms.load(Relaxed);
        at_ms != 0 && now_ms < at_ms + UNREACHABLE_MS
    }

    fn is_good(&self, kind: usize, now_ms: u64, within_ms: u64) -> bool {
        let tick = self.good[kind].load(Relaxed);
        let age = tick_of(now_ms).wrapping_sub(tick);
        // A clock that was read before the writer's makes it no older.
        tick != 0 && (age > u32::MAX / 2 || u64::from(age) * TICK_MS < within_ms)
    }
}

fn tick_of(now_ms: u64) -> u32 {
    // The low bits are meant: it wraps.
    ((now_ms / TICK_MS) as u32).max(1)
}

/// How a request was let through to an endpoint. Its end must be told to the endpoint: [`Endpoint::succeeded`],
/// [`Endpoint::failed`] or [`Endpoint::abandoned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    admit: Admit,
    kind: RequestKind,
    /// The breaker of its kind said so, and not the one for all requests.
    by_kind: bool,
    /// Its failure was told to the breaker of its kind.
    failed_kind: bool,
}

impl Admitted {
    /// Whether it is the one request that finds out.
    pub fn is_probe(&self) -> bool {
        self.admit == Admit::Probe
    }

    /// Whether it is sent in spite of an ejection.
    pub fn is_against(&self) -> bool {
        self.admit == Admit::No
    }
}

/// Why requests avoid an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Avoided {
    /// It sleeps.
    Asleep,
    /// It has failed.
    Ejected(Ejection),
    /// The observer cannot connect to it.
    Unreachable {
        /// When it last failed to, milliseconds on the gateway's clock.
        at_ms: u64,
    },
    /// It denies or does not know this kind of requests; it gets others.
    Refuses(RequestKind, Ejection),
}

impl Avoided {
    /// Stable word for pages: `asleep`, `unreachable`, or the failure's [`Cause::label`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Unreachable { .. } => Cause::Unreachable.label(),
            Self::Ejected(ejection) | Self::Refuses(_, ejection) => ejection.last.cause.label(),
        }
    }
}

impl Endpoint {
    /// Whether requests avoid it at `now_ms`, whatever they ask for: it sleeps, has failed and not answered well since, or
    /// cannot be reached.
    pub fn is_excluded(&self, now_ms: u64) -> bool {
        self.is_asleep() || self.state.health.breaker.is_out() || self.state.health.is_unreachable(now_ms)
    }

    /// What a request of this kind may expect of it at `now_ms`.
    pub fn standing(&self, kind: RequestKind, now_ms: u64) -> Standing {
        let health = &self.state.health;
        if self.is_asleep() || health.is_unreachable(now_ms) {
            return Standing::Out;
        }
        match (health.breaker.standing(now_ms), health.refusal(kind)) {
            (Standing::In, Some(refusal)) => refusal.standing(now_ms),
            (standing, _) => standing,
        }
    }

    /// Whether it is out for load and nothing worse.
    pub fn is_overloaded(&self, now_ms: u64) -> bool {
        let health = &self.state.health;
        health.breaker.is_overloaded() && !self.is_asleep() && !health.is_unreachable(now_ms)
    }

    /// Whether it gave a good answer to this kind of requests within [`PROVEN_MS`].
    pub fn is_proven(&self, kind: RequestKind, now_ms: u64) -> bool {
        self.state.health.is_good(kind.index(), now_ms, PROVEN_MS)
    }

    /// Whether it gave a good answer to this kind of requests within the last minute, and requests go there now.
    pub fn can_answer(&self, kind: RequestKind, now_ms: u64) -> bool {
        self.state.health.is_good(kind.index(), now_ms, ANSWERABLE_MS)
            && self.standing(kind, now_ms) == Standing::In
    }

    /// Whether it has ever given a good answer.
    pub fn has_answered(&self) -> bool {
        self.state.health.good.iter().any(|tick| tick.load(Relaxed) != 0)
    }

    /// Why requests avoid it at `now_ms`; of what it refuses, the first kind. `None`: they do not.
    pub fn avoided(&self, now_ms: u64) -> Option<Avoided> {
        let health = &self.state.health;
        if self.is_asleep() {
            return Some(Avoided::Asleep);
        }
        if let Some(ejection) = health.breaker.ejection() {
            return Some(Avoided::Ejected(ejection));
        }
        if health.is_unreachable(now_ms) {
            return Some(Avoided::Unreachable { at_ms: health.unreachable_ms.load(Relaxed) });
        }
        let refusals = health.refusals.get()?;
        refusals
            .iter()
            .enumerate()
            .find_map(|(kind, refusal)| Some(Avoided::Refuses(RequestKind::new(kind), refusal.ejection()?)))
    }

    /// The last failure of a request and its time, also where it is well since.
    pub fn last_failure(&self) -> Option<(Failed, u64)> {
        self.state.health.breaker.last_failure()
    }

    /// Asks at the moment a request is about to be sent there.
    pub fn admit(&self, kind: RequestKind, now_ms: u64) -> Admitted {
        let health = &self.state.health;
        let (admit, by_kind) = match (health.breaker.admit(now_ms), health.refusal(kind)) {
            (Admit::Yes, Some(refusal)) => (refusal.admit(now_ms), true),
            (admit, _) => (admit, false),
        };
        Admitted { admit, kind, by_kind, failed_kind: false }
    }

    /// A whole good answer.
    pub fn succeeded(&self, admitted: &Admitted, now_ms: u64) -> Option<Change> {
        let health = &self.state.health;
        let good = &health.good[admitted.kind.index()];
        let now = tick_of(now_ms);
        // Two ticks: under load it is written some fifteen times a second, and not with each answer.
        if now.wrapping_sub(good.load(Relaxed)) >= 2 {
            good.store(now, Relaxed);
        }
        if health.unreachable_ms.load(Relaxed) != 0 {
            health.unreachable_ms.store(0, Relaxed);
        }
        let of = |by_kind| if admitted.by_kind == by_kind { admitted.admit } else { Admit::Yes };
        let change = health.breaker.succeeded(of(false), now_ms);
        change.or(health.refusal(admitted.kind).and_then(|refusal| refusal.succeeded(of(true), now_ms)))
    }

    /// It failed the request, or was overloaded.
    pub fn failed(&self, admitted: &mut Admitted, failed: Failed, now_ms: u64) -> Option<Change> {
        let health = &self.state.health;
        let kind = admitted.kind.index();
        let is_of_kind = matches!(failed.cause, Cause::Denied | Cause::Missing);
        let serves_others =
            || (0..KINDS_MAX).any(|other| other != kind && health.is_good(other, now_ms, ANSWERABLE_MS));
        admitted.failed_kind = is_of_kind && (admitted.by_kind || !admitted.is_probe() && serves_others());
        if admitted.failed_kind {
            let refusals =
                health.refusals.get_or_init(|| Box::new(std::array::from_fn(|_| Breaker::default())));
            return refusals[kind].failed(failed, now_ms);
        }
        if admitted.by_kind && admitted.is_probe() {
            self.abandoned(admitted, now_ms);
        }
        health.breaker.failed(failed, now_ms)
    }

    /// The failure told last turned out to be the request's own.
    pub fn acquitted(&self, admitted: &Admitted, now_ms: u64) {
        let health = &self.state.health;
        if !admitted.failed_kind {
            let admit = if admitted.by_kind { Admit::Yes } else { admitted.admit };
            health.breaker.acquitted(admit, now_ms);
        } else if let Some(refusal) = health.refusal(admitted.kind) {
            refusal.acquitted(admitted.admit, now_ms);
        }
    }

    /// A probe ended without telling anything.
    pub fn abandoned(&self, admitted: &Admitted, now_ms: u64) {
        match (admitted.is_probe(), admitted.by_kind) {
            (false, _) => {}
            (true, false) => self.state.health.breaker.abandoned(now_ms),
            (true, true) => {
                if let Some(refusal) = self.state.health.refusal(admitted.kind) {
                    refusal.abandoned(now_ms);
                }
            }
        }
    }
}

impl EndpointState {
    /// What the observer found when it connected to the endpoint's own port: whether it could. A refusal keeps requests away
    /// for [`UNREACHABLE_MS`], or until one of either side gets through; a success lets the next request find out.
    pub fn observed(&self, is_reachable: bool, now_ms: u64) {
        let health = &self.health;
        health.unreachable_ms.store(if is_reachable { 0 } else { now_ms.max(1) }, Relaxed);
        if is_reachable {
            health.breaker.hurry(now_ms);
        }
    }
}

#[cfg(test)]
mod tests;
