//! Runs chains: asks each entry in turn, checks what it says, and makes one verdict of it.

use std::sync::Arc;
use std::time::Instant;

use domain::policy::{
    CHAIN_MAX, Call, Choice, EntryTrace, Evaluate, FailureMode, Fault, Mode, Step, Verdict,
};
use domain::pool::{Entry, Pool};
use http::{HeaderName, HeaderValue};

use crate::answer::{self, Answer, Question};
use crate::bindings::wicketgate::routing::types;
use crate::convert;
use crate::instances::{Bench, Instances, ready};
use crate::rank;
use crate::ready::Ready;

/// One decision in this many is timed: reading the clock costs as much as a small policy.
pub(crate) const TIMED_EVERY: u64 = 16;

/// Decides for one worker, on that worker's thread.
pub struct Evaluator {
    instances: Instances,
    columns: Vec<f32>,
    decisions: u64,
}

/// What came of asking one entry.
enum Asked {
    /// Not called, or the call or its answer is at fault.
    Not(Step),
    Answered(Answer),
}

/// What the decided part of a chain says to its caller.
enum Next {
    GoOn,
    End(Choice),
}

impl Evaluator {
    /// Keeps at most `instances_max` instances.
    pub(crate) fn new(instances_max: usize) -> Self {
        Self { instances: Instances::new(instances_max), columns: Vec::new(), decisions: 0 }
    }
}

impl Evaluate for Evaluator {
    fn evaluate(&mut self, call: Call<'_>) -> Verdict {
        let entries = &call.pool.chain.entries;
        if entries.is_empty() || call.pool.endpoints.is_empty() {
            return Verdict::default();
        }
        let timed = self.decisions.is_multiple_of(TIMED_EVERY);
        self.decisions += 1;
        let mut run = Run {
            call,
            bench: self.instances.enter(call.pool),
            columns: &mut self.columns,
            clock: timed.then(Instant::now),
            scores: None,
            verdict: Verdict::default(),
        };
        let mut ended = false;
        for (place, entry) in entries.iter().enumerate().take(CHAIN_MAX) {
            match entry.spec.mode {
                // An entry that only watches does so also where the decision has fallen before it.
                Mode::Shadow => run.shadow(place, entry),
                Mode::Active if ended => {}
                Mode::Active => {
                    if let Next::End(choice) = run.active(place, entry) {
                        run.verdict.choice = choice;
                        ended = true;
                    }
                }
            }
        }
        if !ended && let Some(scores) = run.scores.take() {
            let best = rank::best(&scores, (call.pool, run.bench.common), call.request, call.fleet);
            run.verdict.choice = if best.is_empty() { Choice::None } else { Choice::Scored(best) };
        }
        run.verdict
    }

    fn retain(&mut self, live: &[Arc<Pool>]) {
        self.instances.retain(live);
    }

    fn instances(&self) -> usize {
        self.instances.live()
    }
}

/// One decision under way.
struct Run<'a> {
    call: Call<'a>,
    bench: Bench<'a>,
    columns: &'a mut Vec<f32>,
    /// When the last entry was done; `None` where this decision is not timed.
    clock: Option<Instant>,
    scores: Option<Vec<f32>>,
    verdict: Verdict,
}

impl Run<'_> {
    /// Asks an entry that decides.
    fn active(&mut self, place: usize, entry: &Entry) -> Next {
        let (asked, mut trace) = self.ask(place, entry);
        let (step, next) = match asked {
            // As if it had abstained: it was never meant to be asked.
            Asked::Not(Step::NoSession) => (Step::NoSession, Next::GoOn),
            Asked::Not(step) => (step, on_failure(entry.spec.failure_mode)),
            Asked::Answered(answer) => {
                add_headers(&mut self.verdict.headers, answer.headers);
                self.act(answer.choice)
            }
        };
        trace.step = step;
        self.verdict.traces.push(trace);
        next
    }

    /// Asks an entry that only watches.
    fn shadow(&mut self, place: usize, entry: &Entry) {
        let (asked, mut trace) = self.ask(place, entry);
        trace.step = match asked {
            Asked::Not(step) => step,
            Asked::Answered(answer) => Step::Shadow(self.would_choose(&answer.choice)),
        };
        self.verdict.traces.push(trace);
    }

    /// What an answer means for the chain.
    fn act(&mut self, choice: answer::Choice) -> (Step, Next) {
        match choice {
            answer::Choice::Endpoint(index) => (Step::Chose(index), Next::End(Choice::Endpoint(index))),
            answer::Choice::Ordered(list) => {
                (Step::Chose(list.first().copied().unwrap_or_default()), Next::End(Choice::Ordered(list)))
            }
            answer::Choice::Scores(scores) => {
                let best = rank::first_best(&scores);
                self.scores = Some(scores);
                (Step::Scored(best), Next::GoOn)
            }
            answer::Choice::Refuse(refusal) => (Step::Refused, Next::End(Choice::Refuse(refusal))),
            answer::Choice::Abstain => (Step::Abstained, Next::GoOn),
            // Refused as a fault before it gets here, while no data plane executes pairs.
            answer::Choice::PrefillDecode(prefill, decode) => {
                (Step::Chose(decode), Next::End(Choice::PrefillDecode { prefill, decode }))
            }
            answer::Choice::DraftTarget(draft, target) => {
                (Step::Chose(target), Next::End(Choice::DraftTarget { draft, target }))
            }
        }
    }

    fn would_choose(&self, choice: &answer::Choice) -> Option<u32> {
        match choice {
            answer::Choice::Endpoint(index) => Some(*index),
            answer::Choice::Ordered(list) => list.first().copied(),
            answer::Choice::Scores(scores) => {
                let pool = (self.call.pool, self.bench.common);
                rank::best(scores, pool, self.call.request, self.call.fleet).first().copied()
            }
            answer::Choice::PrefillDecode(_, decode) => Some(*decode),
            answer::Choice::DraftTarget(_, target) => Some(*target),
            answer::Choice::Refuse(_) | answer::Choice::Abstain => None,
        }
    }

    /// Calls one entry's policy, unless there is a reason not to. The trace's step is for the caller to fill in.
    fn ask(&mut self, place: usize, entry: &Entry) -> (Asked, EntryTrace) {
        let mut trace = EntryTrace { entry: place as u8, step: Step::Unavailable, fuel: 0, nanoseconds: 0 };
        let Some(ready) = ready(entry) else {
            return (Asked::Not(Step::Unavailable), trace);
        };
        let request = self.call.request;
        if ready.description.needs_session && request.session.is_none() {
            return (Asked::Not(Step::NoSession), trace);
        }
        if self.bench.is_skipping(place, ready, request.now_ms) {
            return (Asked::Not(Step::Unavailable), trace);
        }
        let result = self.call(place, ready, &mut trace);
        if let Some(clock) = &mut self.clock {
            let now = Instant::now();
            let spent = now.duration_since(std::mem::replace(clock, now));
            trace.nanoseconds = u32::try_from(spent.as_nanos()).unwrap_or(u32::MAX);
        }
        match result {
            Ok(answer) => (Asked::Answered(answer), trace),
            Err((fault, reason)) => {
                self.count_fault(place, ready, fault, &reason);
                (Asked::Not(Step::Fault(fault)), trace)
            }
        }
    }

    fn call(
        &mut self,
        place: usize,
        ready: &Ready,
        trace: &mut EntryTrace,
    ) -> Result<Answer, (Fault, String)> {
        let Call { pool, request, fleet } = self.call;
        let instance = self
            .bench
            .instance(place, ready, || ready.recipe.start(pool))
            .map_err(|error| (error.fault(), error.to_string()))?;
        let columns = convert::columns(fleet, &ready.description, self.columns);
        let scores = self.scores.as_deref();
        let decided = instance.pick(request, &ready.description, types::Fleet { scores, columns });
        trace.fuel = instance.fuel_used();
        let decision = decided.map_err(|error| (error.fault, error.to_string()))?;
        let question = Question { pool, excluded: request.excluded, scores };
        let answer = answer::check(decision, question).map_err(|error| (Fault::Answer, error.to_string()))?;
        match answer.choice {
            answer::Choice::PrefillDecode(..) | answer::Choice::DraftTarget(..) => {
                Err((Fault::NotExecuted, "this version does not execute pairs of endpoints".to_owned()))
            }
            _ => Ok(answer),
        }
    }

    fn count_fault(&mut self, place: usize, ready: &Ready, fault: Fault, reason: &str) {
        let skipped_ms = self.bench.fault(place, ready, self.call.request.now_ms);
        let policy = &*ready.recipe.log.policy;
        if let Some(skipped_ms) = skipped_ms {
            tracing::warn!(policy, fault = fault.label(), skipped_ms, "policy fails too often: {reason}");
        } else if ready.recipe.log.admit() {
            tracing::warn!(policy, fault = fault.label(), "policy failed: {reason}");
        }
    }
}

/// How the chain goes on where an active entry cannot be asked, or fails.
fn on_failure(mode: FailureMode) -> Next {
    match mode {
        FailureMode::NextPolicy => Next::GoOn,
        FailureMode::LeastInFlight => Next::End(Choice::None),
        FailureMode::Reject => Next::End(Choice::Reject),
    }
}

/// Adds headers; a later policy's replace an earlier one's of the same name.
fn add_headers(headers: &mut Vec<(HeaderName, HeaderValue)>, more: Vec<(HeaderName, HeaderValue)>) {
    if more.is_empty() {
        return;
    }
    headers.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    headers.extend(more);
}

#[cfg(test)]
mod tests;
