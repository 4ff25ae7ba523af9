//! From a chain's verdict to the legs that the request path executes, and the order in which others are tried.

use smallvec::SmallVec;

use crate::failure::FailureKind;
use crate::policy::{Choice, ORDERED_MAX};
use crate::pool::Pool;

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

    /// The next endpoint to try: never one of `tried`, never one excluded now. `None`: nobody is left in this order.
    pub fn next(&mut self, pool: &Pool, tried: &[u32], now_ms: u64, ticket: u64) -> Option<u32> {
        while let Some(&index) = self.ranked.get(self.next) {
            self.next += 1;
            let fresh = !tried.contains(&index);
            if fresh && pool.endpoint(index).is_some_and(|e| self.next == 1 || !e.is_excluded(now_ms)) {
                return Some(index);
            }
        }
        if self.open_ended { last_resort(pool, tried, now_ms, ticket) } else { None }
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

/// The last resort: least in flight ÷ weight, ties by rotation, among those neither excluded now nor in `tried`.
/// When every endpoint is ejected, ejection is ignored (but sleep is not): guessing beats certain failure.
pub fn last_resort(pool: &Pool, tried: &[u32], now_ms: u64, ticket: u64) -> Option<u32> {
    least_loaded(pool, now_ms, ticket, |index| {
        !tried.contains(&index) && !pool.endpoints[index as usize].is_excluded(now_ms)
    })
    .or_else(|| {
        least_loaded(pool, now_ms, ticket, |index| {
            !tried.contains(&index) && !pool.endpoints[index as usize].is_asleep()
        })
    })
}

fn least_loaded(pool: &Pool, now_ms: u64, ticket: u64, eligible: impl Fn(u32) -> bool) -> Option<u32> {
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

/// Endpoints that must not be chosen at `now_ms`, ascending. If that would be all of them, ejected ones are allowed
/// again (the panic guard); sleeping ones never are.
pub fn excluded(pool: &Pool, now_ms: u64, out: &mut Vec<u32>) {
    out.clear();
    for (index, endpoint) in pool.endpoints.iter().enumerate() {
        if endpoint.is_excluded(now_ms) {
            out.push(index as u32);
        }
    }
    if !out.is_empty() && out.len() == pool.endpoints.len() {
        out.retain(|index| pool.endpoints[*index as usize].is_asleep());
    }
}

#[cfg(test)]
mod tests;
