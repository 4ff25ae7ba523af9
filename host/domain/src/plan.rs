//! From a chain's verdict to the legs that the request path executes, and the order in which others are tried.

use smallvec::SmallVec;

use crate::breaker::Standing;
use crate::endpoint::Endpoint;
use crate::failure::FailureKind;
use crate::policy::{Choice, ORDERED_MAX};
use crate::pool::Pool;
use crate::request::RequestKind;

/// The order in which endpoints are tried for one leg. Names only endpoints of its snapshot's pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    ranked: SmallVec<[u32; ORDERED_MAX]>,
    next: usize,
    /// After the ranked ones, the last resort may go on.
    open_ended: bool,
}

impl Order {
    /// Exactly these, best first; `open_ended`: the last resort goes on after them.
    pub fn new(ranked: SmallVec<[u32; ORDERED_MAX]>, open_ended: bool) -> Self {
        Self { ranked, next: 0, open_ended }
    }

    /// The endpoints named, best first; the last resort may know others.
    pub fn ranked(&self) -> &[u32] {
        &self.ranked
    }

    /// The same with `first` before all others, for a request that finds out whether that endpoint is well again.
    #[must_use]
    pub fn after(mut self, first: u32) -> Self {
        self.ranked.truncate(ORDERED_MAX - 1);
        self.ranked.insert(0, first);
        self
    }

    /// The next endpoint to try: never one of `tried`, never one that is out now. `None`: this order has no more.
    pub fn next(&mut self, pool: &Pool, at: &At<'_>) -> Option<u32> {
        while let Some(&index) = self.ranked.get(self.next) {
            self.next += 1;
            let fresh = !at.tried.contains(&index);
            if fresh && pool.endpoint(index).is_some_and(|e| self.next == 1 || at.is_in(e)) {
                return Some(index);
            }
        }
        if self.open_ended { last_resort(pool, at) } else { None }
    }
}

/// The moment at which an endpoint is looked for, and what is not looked at again.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// What the request asks for.
    pub kind: RequestKind,
    /// Endpoints that were tried.
    pub tried: &'a [u32],
    /// Milliseconds on the gateway's clock.
    pub now_ms: u64,
    /// The request's position in the pool.
    pub ticket: u64,
}

impl At<'_> {
    fn is_in(&self, endpoint: &Endpoint) -> bool {
        endpoint.standing(self.kind, self.now_ms) == Standing::In
    }
}

/// What to execute. One leg in this version; pairs are in the contract and are a policy fault until they are executed.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// One engine answers.
    Single(Order),
    /// The request is turned away.
    TurnAway(FailureKind),
}

impl Plan {
    /// The plan that a verdict's choice means.
    pub fn of(choice: Choice) -> Self {
        match choice {
            Choice::Endpoint(index) => Self::Single(Order::new(SmallVec::from_slice(&[index]), true)),
            Choice::Ordered(list) | Choice::Scored(list) => Self::Single(Order::new(list, true)),
            Choice::Refuse(refusal) => Self::TurnAway(FailureKind::Refused {
                status: refusal.status,
                reason: refusal.reason,
                retry_after: refusal.retry_after,
            }),
            Choice::Reject => Self::TurnAway(FailureKind::PolicyRejected),
            // Evaluators turn pairs into faults while no data plane executes them.
            Choice::PrefillDecode { .. } | Choice::DraftTarget { .. } | Choice::None => {
                Self::Single(Order::new(SmallVec::new(), true))
            }
        }
    }
}

/// The last resort: least in flight ÷ weight, ties by rotation, among those neither out now nor in `tried`.
/// When none is left, ejection is ignored (but sleep is not): guessing beats certain failure. Overloaded ones come first
/// then: they are well.
pub fn last_resort(pool: &Pool, at: &At<'_>) -> Option<u32> {
    let least = |eligible: &dyn Fn(&Endpoint) -> bool| {
        least_loaded(pool, at, |index| {
            !at.tried.contains(&index) && eligible(&pool.endpoints[index as usize])
        })
    };
    least(&|endpoint| at.is_in(endpoint))
        .or_else(|| least(&|endpoint| endpoint.is_overloaded(at.now_ms)))
        .or_else(|| least(&|endpoint| !endpoint.is_asleep()))
}

/// Whether an endpoint that is well is left to try.
pub fn has_well(pool: &Pool, at: &At<'_>) -> bool {
    let mut fresh = (0..).zip(&pool.endpoints).filter(|(index, _)| !at.tried.contains(index));
    fresh.any(|(_, endpoint)| at.is_in(endpoint))
}

/// Whether another endpoint than the tried ones is known to answer such requests.
pub fn has_proven(pool: &Pool, at: &At<'_>) -> bool {
    let mut fresh = (0..).zip(&pool.endpoints).filter(|(index, _)| !at.tried.contains(index));
    fresh.any(|(_, endpoint)| endpoint.can_answer(at.kind, at.now_ms))
}

fn least_loaded(pool: &Pool, at: &At<'_>, eligible: impl Fn(u32) -> bool) -> Option<u32> {
    let (now_ms, ticket) = (at.now_ms, at.ticket);
    let len = pool.endpoints.len() as u32;
    if len == 0 {
        return None;
    }
    let start = (ticket % u64::from(len)) as u32;
    let mut best: Option<(f32, u32)> = None;
    // Starting at the ticket's place and keeping the first minimum makes ties rotate.
    for index in (start..len).chain(0..start) {
        if !eligible(index) {
            continue;
        }
        let endpoint = &pool.endpoints[index as usize];
        // One more than is there, so that an idle endpoint that warms up is not as good as one that is warm.
        let load = (endpoint.state.inflight() as f32 + 1.0) / endpoint.capacity(now_ms);
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, index));
        }
    }
    best.map(|(_, index)| index)
}

/// What [`excluded`] found besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// An endpoint that is excluded, and that one request should ask whether it is well again.
    pub due: Option<u32>,
    /// All were out, so that those are allowed that do not sleep (the panic guard).
    pub guarded: bool,
}

/// Endpoints that a request of this kind must not choose at `now_ms`, ascending. If that would be all of them, those are
/// allowed again that are only overloaded; if there are none, all that do not sleep.
pub fn excluded(pool: &Pool, kind: RequestKind, now_ms: u64, out: &mut Vec<u32>) -> Exclusions {
    out.clear();
    let mut found = Exclusions::default();
    for (index, endpoint) in (0..).zip(&pool.endpoints) {
        match endpoint.standing(kind, now_ms) {
            Standing::In => continue,
            Standing::Due => found.due = found.due.or(Some(index)),
            Standing::Out => {}
        }
        out.push(index);
    }
    if !out.is_empty() && out.len() == pool.endpoints.len() {
        let at = |index: &u32| &pool.endpoints[*index as usize];
        out.retain(|index| !at(index).is_overloaded(now_ms));
        if out.len() == pool.endpoints.len() {
            out.retain(|index| at(index).is_asleep());
        }
        found.guarded = out.len() < pool.endpoints.len();
    }
    found
}

#[cfg(test)]
mod tests;
