//! What was decided for one request, and how far it has been followed.

use std::time::Instant;

use domain::endpoint::{Admitted, Endpoint};
use domain::failure::FailureKind;
use domain::plan::{At, Order, Plan, has_proven, has_well};
use domain::pool::Pool;
use domain::request::RequestKind;
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::dispatch::{Destination, Outgoing};
use crate::explain::{Mark, Seen};
use crate::flight::Flight;
use crate::record::Decision;
use crate::route::{Decided, Facts, Question};

/// What was decided, and how far it has been followed.
pub(crate) struct Course {
    pub(crate) decided: Decided,
    pub(crate) decided_at: Instant,
    order: Order,
    /// Kind and ticket of the request.
    facts: (RequestKind, u64),
    is_pinned: bool,
    tried: SmallVec<[u32; 8]>,
}

/// What a decision of this request is about.
pub(crate) fn question<'a>(
    to: Destination<'a>,
    facts: &'a Facts,
    outgoing: &'a Outgoing<'_>,
) -> Question<'a> {
    Question { pool: to.pool, facts, body: outgoing.body_bytes(), headers: outgoing.headers }
}

impl Course {
    /// Decides, and records what was decided. Fails if a policy turned the request away.
    pub(crate) fn begin(
        flight: &mut Flight,
        to: Destination<'_>,
        facts: &Facts,
        outgoing: &Outgoing<'_>,
    ) -> Result<Self, FailureKind> {
        let worker = &flight.worker;
        let now_ms = worker.clock.now_ms();
        let start = Instant::now();
        let mut decided = match to.pin {
            Some(index) => Decided::pinned(index),
            None => worker.router.borrow_mut().decide(question(to, facts, outgoing), now_ms),
        };
        let decided_at = Instant::now();
        flight.decision = decided_at.duration_since(start);
        let plan = std::mem::replace(&mut decided.plan, Plan::TurnAway(FailureKind::PolicyRejected));
        let (order, turned_away) = match plan {
            Plan::Single(order) => (order, None),
            Plan::TurnAway(kind) => (Order::new(SmallVec::new(), false), Some(kind)),
        };
        let is_pinned = to.pin.is_some();
        let facts_kept = (facts.kind, facts.ticket);
        let course =
            Self { decided, order, decided_at, facts: facts_kept, is_pinned, tried: SmallVec::new() };
        flight.mark = Some(course.record(flight, to, facts));
        if flight.worker.shared.options.answer_headers {
            flight.policy = course.decided.chooser(to.pool);
        }
        turned_away.map_or(Ok(course), Err)
    }

    fn record(&self, flight: &Flight, to: Destination<'_>, facts: &Facts) -> Mark {
        let worker = &flight.worker;
        let endpoint = self.order.clone().next(to.pool, &self.at(worker.clock.now_ms()));
        let router = worker.router.borrow();
        worker.recorder.set_policy_instances(router.policy_instances());
        // No policy is asked about a request that its client pinned.
        let none = Seen::default();
        let seen = if self.is_pinned { &none } else { router.shown() };
        worker.recorder.decided(&Decision {
            request_id: flight.request_id(),
            pool: to.pool,
            generation: to.generation,
            attempt: 0,
            candidates: self.decided.candidates,
            prompt_tokens: facts.prompt_tokens(),
            cached_tokens: endpoint.map_or(0, |index| self.decided.cached_tokens(index)),
            endpoint,
            traces: &self.decided.traces,
            took: flight.decision,
            seen,
        })
    }

    /// The endpoint to try now, which has let the request through. `None`: none is left.
    pub(crate) fn next(&mut self, pool: &Pool, clock: &Clock) -> Option<(u32, Endpoint, Admitted)> {
        let now_ms = clock.now_ms();
        loop {
            let at = At { kind: self.facts.0, tried: &self.tried, now_ms, ticket: self.facts.1 };
            let index = self.order.next(pool, &at)?;
            self.tried.push(index);
            let Some(endpoint) = pool.endpoint(index) else { continue };
            let admitted = endpoint.admit(self.facts.0, now_ms);
            // It was ejected, or got its probe, since the decision.
            if admitted.is_against() && !self.is_pinned && has_well(pool, &self.at(now_ms)) {
                continue;
            }
            return Some((index, endpoint.clone(), admitted));
        }
    }

    /// Whether there is one more to try.
    pub(crate) fn has_more(&self, pool: &Pool, clock: &Clock) -> bool {
        self.order.clone().next(pool, &self.at(clock.now_ms())).is_some()
    }

    /// Whether another endpoint is in, so that what failed can be repaired there.
    pub(crate) fn has_well(&self, pool: &Pool, clock: &Clock) -> bool {
        !self.is_pinned && has_well(pool, &self.at(clock.now_ms()))
    }

    /// Whether another endpoint is known to answer such requests.
    pub(crate) fn has_proven(&self, pool: &Pool, clock: &Clock) -> bool {
        !self.is_pinned && has_proven(pool, &self.at(clock.now_ms()))
    }

    /// What the request asks for.
    pub(crate) fn kind(&self) -> RequestKind {
        self.facts.0
    }

    fn at(&self, now_ms: u64) -> At<'_> {
        At { kind: self.facts.0, tried: &self.tried, now_ms, ticket: self.facts.1 }
    }
}
