//! One attempt at one endpoint: counted there while it lives, and its end told to the endpoint.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use domain::breaker::{Cause, Change};
use domain::endpoint::{Admitted, Endpoint, InFlight};
use domain::failure::FailureKind;
use domain::pool::Pool;
use domain::sign::Sign;

use crate::clock::Clock;
use crate::flight::Flight;
use crate::linger;
use crate::record;
use crate::server::Worker;

/// One attempt at one endpoint.
///
/// Its end is told to the endpoint once: a whole good answer, a failure, or that it says nothing. Dropping it before tells
/// nothing, and another request becomes the probe if this was one.
#[derive(Debug)]
pub(crate) struct Attempt {
    endpoint: Endpoint,
    admitted: Admitted,
    in_flight: Option<InFlight>,
    /// Tokens of the prompt that the engine probably has to compute.
    uncached_tokens: u32,
    clock: Rc<Clock>,
    sent: Instant,
    first_byte: Option<Instant>,
    record: Option<record::Attempt>,
    /// The endpoint was told how it ended.
    is_told: bool,
    /// It failed for a reason other than load, and not for want of a connection.
    is_ill: bool,
}

/// A failed attempt, as far as a later one may show that the engine was not at fault.
#[derive(Debug)]
pub(crate) struct Suspicion {
    pub(crate) endpoint: Endpoint,
    pub(crate) admitted: Admitted,
    pub(crate) sign: Sign,
    /// What it changed, to be logged unless it is taken back.
    pub(crate) change: Option<Change>,
}

impl Attempt {
    /// Counts a request at `endpoint`, which has let it through.
    pub(crate) fn begin(
        worker: &Worker,
        pool: &Pool,
        (endpoint, admitted): (Endpoint, Admitted),
        (uncached_tokens, sent): (u32, Instant),
    ) -> Self {
        let clock = &worker.clock;
        endpoint.state.recent_tokens().add(uncached_tokens as f32, clock.now_ms());
        Self {
            uncached_tokens,
            in_flight: Some(InFlight::begin(Arc::clone(&endpoint.state), uncached_tokens)),
            record: Some(worker.recorder.attempt(pool, &endpoint, clock.now_ms())),
            endpoint,
            admitted,
            clock: Rc::clone(clock),
            sent,
            first_byte: None,
            is_told: false,
            is_ill: false,
        }
    }

    /// Where it went.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How it was let through.
    pub(crate) fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// What a failure without an answer says of the engine.
    pub(crate) fn sign_of(&self, kind: &FailureKind) -> Sign {
        Sign::of_failure(kind, self.sent.elapsed().as_millis() as u64)
    }

    /// It gave a whole good answer, or enough of one to know that it is well. Only the first telling counts.
    pub(crate) fn succeeded(&mut self) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let change = self.endpoint.succeeded(&self.admitted, self.clock.now_ms());
        record::health::changed(&self.endpoint, change);
    }

    /// Its end says nothing of the engine.
    pub(crate) fn says_nothing(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.endpoint.abandoned(&self.admitted, self.clock.now_ms());
        }
    }

    /// The engine failed it. The caller logs the change, or takes it back. Only the first telling counts.
    pub(crate) fn failed(&mut self, sign: Sign) -> Option<Suspicion> {
        let failed = sign.failed()?;
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        self.is_ill = failed.cause != Cause::Overloaded && !failed.cause.is_unconnected();
        let change = self.endpoint.failed(&mut self.admitted, failed, self.clock.now_ms());
        Some(Suspicion { endpoint: self.endpoint.clone(), admitted: self.admitted, sign, change })
    }

    /// Whether the engine failed it, for a reason other than load and not for want of a connection.
    pub(crate) fn is_ill(&self) -> bool {
        self.is_ill
    }

    /// It is over without an answer for the client: the engine computed nothing that counts, and goes on looking as busy as
    /// an engine that works ([`linger`]).
    pub(crate) fn is_over(&mut self, worker: &Worker, pool: &Pool) {
        self.computed(0.0);
        self.endpoint.state.requests.averages.observe_end(true, self.clock.now_ms());
        self.lingers(worker, pool);
    }

    /// A quick failure is not room for more: the request goes on counting as in flight for as long as others take.
    pub(crate) fn lingers(&mut self, worker: &Worker, pool: &Pool) {
        if let Some(in_flight) = self.in_flight.take() {
            let took_ms = self.sent.elapsed().as_millis() as u64;
            worker
                .linger
                .keep(in_flight, linger::rest_ms(pool, self.endpoint.state.slot, took_ms, &self.clock));
        }
    }

    /// What counts it; `None` once taken.
    pub(crate) fn record(&self) -> Option<&record::Attempt> {
        self.record.as_ref()
    }

    /// Takes what counts it, for an attempt that has failed.
    pub(crate) fn take_record(&mut self) -> Option<record::Attempt> {
        self.record.take()
    }

    /// The first byte of the answer's body is here.
    pub(crate) fn first_byte(&mut self, now: Instant) {
        self.first_byte = Some(now);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.prefill_done();
        }
        if let Some(record) = &mut self.record {
            record.first_byte();
        }
        if self.is_told {
            // The time of an error says nothing of how fast the engine is.
            return;
        }
        let first_token_ms = now.duration_since(self.sent).as_secs_f32() * 1_000.0;
        self.endpoint.state.requests.averages.observe_first_token(first_token_ms, self.clock.now_ms());
    }

    /// The answer is complete.
    pub(crate) fn completed(&mut self, flight: &Flight, status: u16) {
        let now_ms = self.clock.now_ms();
        let averages = &self.endpoint.state.requests.averages;
        averages.observe_end(status >= 500, now_ms);
        if let Some(first) = self.first_byte
            && flight.chunks > 1
        {
            let token_ms = first.elapsed().as_secs_f32() * 1_000.0 / (flight.chunks - 1) as f32;
            averages.observe_token(token_ms, now_ms);
        }
        self.succeeded();
    }

    /// What the engine computed for it, in place of what it was expected to: once, when that is known.
    pub(crate) fn computed(&self, tokens: f32) {
        let recent = self.endpoint.state.recent_tokens();
        recent.add(tokens - self.uncached_tokens as f32, self.clock.now_ms());
    }

    /// Tokens of the prompt that the engine was expected to compute.
    pub(crate) fn uncached_tokens(&self) -> u32 {
        self.uncached_tokens
    }

    /// The answer broke off.
    pub(crate) fn lost(&mut self) {
        self.endpoint.state.requests.averages.observe_end(true, self.clock.now_ms());
        let sign = self.sign_of(&FailureKind::LostMidway);
        if let Some(suspicion) = self.failed(sign) {
            record::health::changed(&self.endpoint, suspicion.change);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.says_nothing();
    }
}
