//! Carrying a request to an engine: in the order of its plan, over one connection after another, until one answers.
//!
//! Nothing of an answer has reached the client here, so another endpoint may be tried: if the failure allows it, if the
//! gateway's budget of retries agrees, and if there is time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::breaker::Admit;
use domain::endpoint::{Endpoint, InFlight};
use domain::failure::{Failure, FailureKind};
use domain::name::Generation;
use domain::plan::{Order, Plan};
use domain::pool::Pool;
use domain::retry::{has_attempt_left, is_retryable_status};
use domain::route::Gateway;
use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::flight::Flight;
use crate::intake::Body;
use crate::record::{self, Decision};
use crate::route::{Decided, Facts, Question};
use crate::server::Worker;
use crate::upstream::{
    AnswerHead, ConnectError, Connection, ExchangeError, Forwarded, Framing, Upload, exchange, next_piece,
    write_head,
};

/// What the head of a request usually takes, bytes.
const HEAD_BYTES: usize = 1 << 10;
/// Bodies up to this many bytes are copied behind their head: that costs less than writing from two places.
const SHORT_BODY_BYTES: usize = 8 << 10;

/// How soon after a request was written the end of a kept connection may be seen for the request to be sent again for
/// free: longer than a round trip to any engine, shorter than an engine computes anything worth having.
const STALE_SEEN_MAX: Duration = Duration::from_millis(250);

/// A request as it goes to an engine.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// Method.
    pub(crate) method: &'a Method,
    /// Path and query without the prefixes that are ours.
    pub(crate) path_and_query: &'a str,
    /// The client's header lines.
    pub(crate) headers: &'a HeaderMap,
    /// Names that `Connection` lists.
    pub(crate) listed: SmallVec<[HeaderName; 2]>,
    /// The body, if the request has one.
    pub(crate) body: Option<Body>,
}

impl Outgoing<'_> {
    fn body_bytes(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], Body::bytes)
    }
}

/// Where a request may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    /// The gateway.
    pub(crate) gateway: &'a Gateway,
    /// The pool of the route.
    pub(crate) pool: &'a Pool,
    /// The snapshot's generation.
    pub(crate) generation: Generation,
    /// The model's name as the client sent it.
    pub(crate) model: &'a str,
    /// The endpoint that the client asked for by its id.
    pub(crate) pin: Option<u32>,
    /// When the head of the answer must be here, on the gateway's clock.
    pub(crate) deadline_ms: u64,
}

/// What an engine sent of its answer before any of it goes to the client.
#[derive(Debug)]
struct Answering {
    head: AnswerHead,
    held: Held,
    connection: Connection,
    upload: Upload,
}

/// The first pieces of an answer's body, in their order: one, or none where the body is empty.
pub(crate) type Held = SmallVec<[Bytes; 1]>;

/// What of a request the engine had not taken when it began to answer.
#[derive(Debug)]
pub(crate) struct Unsent {
    /// To be written on while the answer is relayed.
    pub(crate) upload: Upload,
    /// Accounts for the memory of the body.
    _body: Option<Body>,
}

/// An engine has answered: the first byte of its answer's body is here, or the end of it.
#[derive(Debug)]
pub(crate) struct Won {
    head: Option<AnswerHead>,
    /// The first pieces of the body.
    pub(crate) held: Held,
    /// The connection, with the rest of the body to come.
    pub(crate) connection: Connection,
    /// The rest of the request, if the engine answers before it has read it.
    pub(crate) unsent: Option<Box<Unsent>>,
    /// Whether the connection may be used again after the body.
    pub(crate) keep_alive: bool,
    /// The attempt that won.
    pub(crate) attempt: Attempt,
}

impl Won {
    fn new(answering: Answering, attempt: Attempt, body: Option<Body>) -> Self {
        let Answering { head, held, connection, upload } = answering;
        let keep_alive = head.keep_alive;
        let unsent = (!upload.is_done()).then(|| Box::new(Unsent { upload, _body: body }));
        Self { head: Some(head), held, connection, unsent, keep_alive, attempt }
    }

    /// The head of the answer. Can be taken once.
    pub(crate) fn take_head(&mut self) -> AnswerHead {
        self.head.take().expect("the head is there until it is taken, which only the relay does")
    }
}

/// One attempt at one endpoint: counted there while it lives, and told to its breaker.
#[derive(Debug)]
pub(crate) struct Attempt {
    endpoint: Endpoint,
    in_flight: InFlight,
    /// Tokens of the prompt that the engine probably has to compute.
    uncached_tokens: u32,
    clock: Rc<Clock>,
    sent: Instant,
    first_byte: Option<Instant>,
    record: Option<record::Attempt>,
    /// A probe whose result has not been told.
    is_probing: bool,
}

impl Attempt {
    fn begin(worker: &Worker, pool: &Pool, endpoint: Endpoint, uncached_tokens: u32, sent: Instant) -> Self {
        let clock = &worker.clock;
        let is_probing = endpoint.state.breaker.admit(clock.now_ms()) == Admit::Probe;
        endpoint.state.recent_tokens().add(uncached_tokens as f32, clock.now_ms());
        Self {
            uncached_tokens,
            in_flight: InFlight::begin(Arc::clone(&endpoint.state), uncached_tokens),
            record: Some(worker.recorder.attempt(pool, &endpoint, clock.now_ms())),
            endpoint,
            clock: Rc::clone(clock),
            sent,
            first_byte: None,
            is_probing,
        }
    }

    /// Where it went.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The head of an answer is here: the engine lives.
    fn answered(&mut self) {
        self.is_probing = false;
        self.endpoint.state.breaker.succeeded(self.clock.now_ms());
    }

    /// No answer: the engine is at fault.
    fn failed(&mut self) {
        self.is_probing = false;
        self.endpoint.state.breaker.failed(self.clock.now_ms());
        self.computed(0.0);
        self.lost();
    }

    /// What counts it; `None` once taken.
    pub(crate) fn record(&self) -> Option<&record::Attempt> {
        self.record.as_ref()
    }

    /// The first byte of the answer's body is here.
    pub(crate) fn first_byte(&mut self, now: Instant) {
        self.first_byte = Some(now);
        self.in_flight.prefill_done();
        if let Some(record) = &mut self.record {
            record.first_byte();
        }
        let first_token_ms = now.duration_since(self.sent).as_secs_f32() * 1_000.0;
        self.endpoint.state.requests.averages.observe_first_token(first_token_ms, self.clock.now_ms());
    }

    /// The answer is complete.
    pub(crate) fn completed(&self, flight: &Flight, status: u16) {
        let now_ms = self.clock.now_ms();
        let averages = &self.endpoint.state.requests.averages;
        averages.observe_end(status >= 500, now_ms);
        if let Some(first) = self.first_byte
            && flight.chunks > 1
        {
            let token_ms = first.elapsed().as_secs_f32() * 1_000.0 / (flight.chunks - 1) as f32;
            averages.observe_token(token_ms, now_ms);
        }
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
    pub(crate) fn lost(&self) {
        self.endpoint.state.requests.averages.observe_end(true, self.clock.now_ms());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_probing {
            self.endpoint.state.breaker.abandoned(self.clock.now_ms());
        }
    }
}

/// Decides, sends, and tries again where that is allowed, until an engine has answered.
///
/// The answer of an engine is the answer, whatever its status, unless the gateway wants that status retried and there is
/// somebody left to try.
pub(crate) async fn dispatch(
    flight: &mut Flight,
    to: Destination<'_>,
    facts: &Facts,
    mut outgoing: Outgoing<'_>,
) -> Result<Won, FailureKind> {
    let worker = Rc::clone(&flight.worker);
    let clock = &worker.clock;
    to.gateway.state.retry_budget.count_request(clock.now_ms());
    let mut course = Course::begin(flight, to, facts, &outgoing)?;
    let mut last: Option<FailureKind> = None;
    while let Some(index) = course.next(to.pool, clock) {
        let Some(endpoint) = to.pool.endpoint(index) else { continue };
        let uncached = facts.prompt_tokens().saturating_sub(course.decided.cached_tokens(index));
        let sent = if flight.attempts == 0 { course.decided_at } else { Instant::now() };
        let mut attempt = Attempt::begin(&worker, to.pool, endpoint.clone(), uncached, sent);
        flight.attempts += 1;
        worker.router.borrow_mut().learn(question(to, facts, &outgoing), endpoint.state.slot);
        let (failure, may_retry) =
            match send(flight, endpoint, &course.decided, &outgoing, to.deadline_ms).await {
                Ok(answering) => {
                    attempt.answered();
                    let status = answering.head.status.as_u16();
                    let is_unwanted = is_retryable_status(status, &to.gateway.settings.retries.statuses);
                    if !(is_unwanted && course.has_more(to.pool, clock) && may_go_on(flight, to)) {
                        return Ok(Won::new(answering, attempt, outgoing.body.take()));
                    }
                    attempt.computed(0.0);
                    attempt.lost();
                    (Failure::from(FailureKind::Status { status }), true)
                }
                Err(kind) => {
                    attempt.failed();
                    let failure = Failure::from(kind);
                    let may_retry =
                        failure.may_retry() && course.has_more(to.pool, clock) && may_go_on(flight, to);
                    (failure, may_retry)
                }
            };
        let record = attempt.record.take();
        if !may_retry {
            flight.failed = record;
            return Err(failure.kind);
        }
        if let Some(record) = record {
            record.failed(&failure);
        }
        last = Some(failure.kind);
    }
    Err(last.unwrap_or_else(|| FailureKind::ModelUnavailable { model: to.model.into() }))
}

/// Whether count and budget allow another attempt. Takes it out of the budget if so.
fn may_go_on(flight: &Flight, to: Destination<'_>) -> bool {
    let retries = &to.gateway.settings.retries;
    let now_ms = flight.worker.clock.now_ms();
    has_attempt_left(flight.attempts, retries.attempts)
        && now_ms < to.deadline_ms
        && to.gateway.state.retry_budget.try_take(retries.budget_percent, now_ms)
}

fn question<'a>(to: Destination<'a>, facts: &'a Facts, outgoing: &'a Outgoing<'_>) -> Question<'a> {
    Question { pool: to.pool, facts, body: outgoing.body_bytes(), headers: outgoing.headers }
}

/// What was decided, and how far it has been followed.
struct Course {
    decided: Decided,
    order: Order,
    decided_at: Instant,
    ticket: u64,
    tried: SmallVec<[u32; 8]>,
}

impl Course {
    /// Decides, and records what was decided. Fails if a policy turned the request away.
    fn begin(
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
        let course = Self { decided, order, decided_at, ticket: facts.ticket, tried: SmallVec::new() };
        course.record(flight, to, facts);
        if flight.worker.shared.options.answer_headers {
            flight.policy = course.decided.chooser(to.pool);
        }
        turned_away.map_or(Ok(course), Err)
    }

    fn record(&self, flight: &Flight, to: Destination<'_>, facts: &Facts) {
        let worker = &flight.worker;
        let endpoint = self.order.clone().next(to.pool, &[], worker.clock.now_ms(), self.ticket);
        worker.recorder.set_policy_instances(worker.router.borrow().policy_instances());
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
        });
    }

    fn next(&mut self, pool: &Pool, clock: &Clock) -> Option<u32> {
        let index = self.order.next(pool, &self.tried, clock.now_ms(), self.ticket)?;
        self.tried.push(index);
        Some(index)
    }

    fn has_more(&self, pool: &Pool, clock: &Clock) -> bool {
        self.order.clone().next(pool, &self.tried, clock.now_ms(), self.ticket).is_some()
    }
}

/// One attempt: head and body over an idle connection, or a new one, up to the first byte of the answer's body.
///
/// Many engines send the head of a stream before they have computed anything, so a head alone is no answer: until the
/// first byte of the body (or its end) the deadline holds, and a failure may be repaired by another attempt.
///
/// An engine may close an idle connection just as we use it. Such a request was not processed, and is sent once more over
/// a new connection, outside the budget of retries: if the end was seen within [`STALE_SEEN_MAX`] of writing. Later the
/// engine may have worked on it, and the attempt has failed.
async fn send(
    flight: &Flight,
    endpoint: &Endpoint,
    decided: &Decided,
    outgoing: &Outgoing<'_>,
    deadline_ms: u64,
) -> Result<Answering, FailureKind> {
    let mut upload = upload(flight, endpoint, decided, outgoing);
    let is_head = outgoing.method == Method::HEAD;
    if !flight.streams {
        // To the back of the run queue: requests that came together are read together and sent together, so that engines
        // (and other processes on their cores) are woken once for several. Not where a client waits for the first token:
        // behind the chunks of other streams that turn is long.
        tokio::task::yield_now().await;
    }
    let clock = &flight.worker.clock;
    if let Some(mut connection) = flight.worker.upstream.take_idle(&endpoint.spec, endpoint.state.slot) {
        flight.timer.set_at(deadline_ms);
        let written_ms = clock.now_ms();
        match exchange(&mut connection, &mut upload, is_head, &flight.timer).await {
            Ok(head) => return open(flight, Answering { head, held: Held::new(), connection, upload }).await,
            Err(ExchangeError::Unanswered) if clock.is_within(written_ms, STALE_SEEN_MAX) => upload.rewind(),
            Err(error) => return Err(failure(error)),
        }
    }
    let mut connection = connect(flight, endpoint, deadline_ms).await?;
    flight.timer.set_at(deadline_ms);
    match exchange(&mut connection, &mut upload, is_head, &flight.timer).await {
        Ok(head) => open(flight, Answering { head, held: Held::new(), connection, upload }).await,
        Err(error) => Err(failure(error)),
    }
}

/// Waits for the first byte of the body that follows a head, or for its end.
async fn open(flight: &Flight, mut answering: Answering) -> Result<Answering, FailureKind> {
    let Answering { head, held, connection, upload } = &mut answering;
    match next_piece(connection, upload, &mut head.framing, &flight.timer).await {
        // A stream without one event that ends with its connection: the engine died, and cannot say so.
        Ok(None) if flight.streams && head.framing == Framing::UntilClose && head.status.is_success() => {
            Err(FailureKind::LostBeforeHead)
        }
        Ok(first) => {
            held.extend(first);
            Ok(answering)
        }
        Err(error) => Err(failure(error)),
    }
}

/// The request as it is written to an engine.
fn upload(flight: &Flight, endpoint: &Endpoint, decided: &Decided, outgoing: &Outgoing<'_>) -> Upload {
    let body = outgoing.body_bytes();
    let is_short = body.len() <= SHORT_BODY_BYTES;
    let mut head = Vec::with_capacity(HEAD_BYTES + if is_short { body.len() } else { 0 });
    let forwarded = Forwarded {
        method: outgoing.method,
        path_and_query: outgoing.path_and_query,
        headers: outgoing.headers,
        listed: &outgoing.listed,
        request_id: flight.request_id(),
        client: flight.client.watch.peer.ip(),
        added: &decided.headers,
        body_bytes: outgoing.body.as_ref().map(|body| body.bytes().len()),
    };
    write_head(&mut head, &endpoint.spec, &forwarded);
    if is_short {
        head.extend_from_slice(body);
        return Upload::new(head, Bytes::new());
    }
    Upload::new(head, outgoing.body.as_ref().map_or_else(Bytes::new, Body::share))
}

async fn connect(flight: &Flight, endpoint: &Endpoint, deadline_ms: u64) -> Result<Connection, FailureKind> {
    let clock = &flight.worker.clock;
    flight.timer.set_at(clock.after(flight.connect_max).min(deadline_ms));
    let connecting = flight.worker.upstream.connect(&endpoint.spec, endpoint.state.slot, &flight.timer);
    match connecting.await {
        Ok(connection) => Ok(connection),
        Err(ConnectError::Timeout) if clock.now_ms() >= deadline_ms => Err(FailureKind::DeadlineExceeded),
        Err(_) => Err(FailureKind::Connect),
    }
}

fn failure(error: ExchangeError) -> FailureKind {
    match error {
        ExchangeError::Unanswered | ExchangeError::Cut => FailureKind::LostBeforeHead,
        ExchangeError::Malformed => FailureKind::BadAnswer,
        ExchangeError::Timeout => FailureKind::DeadlineExceeded,
    }
}
