//! What happens after a failed attempt: which failures are repaired at another endpoint, and at whose expense.
//!
//! Three reasons to go on, each with its own bound. A connection that was not made costs an engine nothing. A probe, and a
//! request to an endpoint that has not shown of late that it is well, are repaired at one that has: the gateway sent them
//! there at its own risk. Everything else is a retry, which the gateway's owner allows by count, status and budget.

use domain::breaker::Failed;
use domain::failure::FailureKind;
use domain::retry::{has_attempt_left, is_retryable_status};
use domain::sign::Sign;
use smallvec::SmallVec;

use crate::attempt::{Attempt, Suspicion};
use crate::course::Course;
use crate::dispatch::Destination;
use crate::explain::Why;
use crate::flight::Flight;
use crate::record;

/// Connections of one request that may fail to be made; further ones count as attempts.
pub(crate) const CONNECTS_MAX: u32 = 64;
/// Failures of one request that are repaired without counting as attempts.
pub(crate) const REPAIRS_MAX: u32 = 3;

/// The failed attempts of one request.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    suspicions: SmallVec<[Suspicion; 2]>,
    connects: u32,
    repairs: u32,
    /// Attempts that count against the gateway's settings.
    charged: u32,
}

impl Repair {
    /// An attempt ended with a failure of its engine, as `sign` says: tells the endpoint, and says why to go on; `None`: the request ends here. `kind` is
    /// what failed, a status among them.
    pub(crate) fn goes_on(
        &mut self,
        (flight, to): (&Flight, Destination<'_>),
        course: &Course,
        attempt: &mut Attempt,
        (sign, kind): (Sign, &FailureKind),
    ) -> Option<Why> {
        if self.suspicions.iter().any(|earlier| earlier.sign.agrees(sign)) {
            self.acquit(flight, sign);
            attempt.says_nothing();
            return None;
        }
        let goes_on = self.may_go_on((flight, to), course, attempt, (sign, kind));
        match sign {
            // The request may be at fault, and no other engine is asked.
            Sign::Odd(_) if goes_on.is_none() => attempt.says_nothing(),
            Sign::Nothing | Sign::Good => attempt.says_nothing(),
            Sign::Odd(_) | Sign::Bad(_) => self.suspicions.extend(attempt.failed(sign)),
        }
        goes_on
    }

    fn may_go_on(
        &mut self,
        (flight, to): (&Flight, Destination<'_>),
        course: &Course,
        attempt: &Attempt,
        (sign, kind): (Sign, &FailureKind),
    ) -> Option<Why> {
        let clock = &flight.worker.clock;
        let failed = sign.failed();
        if clock.now_ms() >= to.deadline_ms
            || *kind == FailureKind::DeadlineExceeded
            || !course.has_more(to.pool, clock)
        {
            return None;
        }
        if failed.is_some_and(|Failed { cause, .. }| cause.is_unconnected()) && self.connects < CONNECTS_MAX {
            self.connects += 1;
            return Some(Why::Reconnect);
        }
        let endpoint = attempt.endpoint();
        let at_risk = || {
            attempt.admitted().is_probe() && course.has_well(to.pool, clock)
                || !endpoint.is_proven(course.kind(), clock.now_ms()) && course.has_proven(to.pool, clock)
        };
        if failed.is_some() && self.repairs < REPAIRS_MAX && at_risk() {
            self.repairs += 1;
            return Some(Why::Repair);
        }
        self.charged += 1;
        let retries = &to.gateway.settings.retries;
        let is_wanted = match kind {
            FailureKind::Status { status } => is_retryable_status(*status, &retries.statuses),
            kind => domain::failure::Failure::from(kind.clone()).may_retry(),
        };
        let is_allowed = is_wanted
            && has_attempt_left(self.charged, retries.attempts)
            && to.gateway.state.retry_budget.try_take(retries.budget_percent, clock.now_ms());
        is_allowed.then_some(Why::Retry)
    }

    /// Another engine said the same: the request is at fault.
    fn acquit(&mut self, flight: &Flight, sign: Sign) {
        let now_ms = flight.worker.clock.now_ms();
        self.suspicions.retain(|earlier| {
            let agrees = earlier.sign.agrees(sign);
            if agrees {
                earlier.endpoint.acquitted(&earlier.admitted, now_ms);
            }
            !agrees
        });
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        for suspicion in &self.suspicions {
            record::health::changed(&suspicion.endpoint, suspicion.change);
        }
    }
}
