//! Carrying a request to an engine: in the order of its plan, over one connection after another, until one answers.
//!
//! Nothing of an answer has reached the client here, so another endpoint may be tried; [`crate::repair`] says when.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::endpoint::Endpoint;
use domain::failure::{Failure, FailureKind};
use domain::name::Generation;
use domain::pool::Pool;
use domain::route::Gateway;
use domain::sign::Sign;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use crate::attempt::Attempt;
use crate::course::{Course, question};
use crate::explain::{Trying, Why};
use crate::flight::Flight;
use crate::intake::Body;
use crate::repair::Repair;
use crate::route::{Decided, Facts};
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

/// Longest time for which the first byte of a probe's answer is held back.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// Most bytes of a probe's answer that are held back, but for the piece that exceeds it.
const HOLD_BYTES_MAX: usize = 64 << 10;

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
    pub(crate) fn body_bytes(&self) -> &[u8] {
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

impl Answering {
    /// What the status says of the engine.
    fn sign(&self) -> Sign {
        let status = self.head.status.as_u16();
        // The header is looked at for an engine that is overloaded only.
        Sign::of_status(status, if status >= 400 { retry_after_ms(&self.head.headers) } else { 0 })
    }
}

/// How long an engine asks to be left alone, milliseconds; 0 if it does not say, or names a date.
fn retry_after_ms(headers: &HeaderMap) -> u32 {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    seconds.unwrap_or(0).saturating_mul(1_000)
}

/// The first pieces of an answer's body, in their order: one, none where the body is empty, several of a probe's.
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

/// Decides, sends, and tries again where that is allowed, until an engine has answered.
///
/// The answer of an engine is the answer, whatever its status, unless [`crate::repair`] says to try another.
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
    let mut repair = Repair::default();
    let mut last: Option<FailureKind> = None;
    let mut why = Why::Decided;
    while let Some((index, endpoint, admitted)) = course.next(to.pool, clock) {
        let uncached = facts.prompt_tokens().saturating_sub(course.decided.cached_tokens(index));
        let sent = if flight.attempts == 0 { course.decided_at } else { Instant::now() };
        let mut attempt = Attempt::begin(&worker, to.pool, (endpoint, admitted), (uncached, sent));
        flight.attempts += 1;
        let why_now = if attempt.admitted().is_probe() { Why::Probe } else { why };
        flight.trying = Some(Trying { endpoint: index, why: why_now, sent });
        worker.router.borrow_mut().learn(question(to, facts, &outgoing), attempt.endpoint().state.slot);
        let answering =
            match send(flight, attempt.endpoint(), &course.decided, &outgoing, to.deadline_ms).await {
                Ok(mut answering) => match answering.sign() {
                    Sign::Good if !attempt.admitted().is_probe() => {
                        return Ok(Won::new(answering, attempt, outgoing.body.take()));
                    }
                    // Boxed: it is rare, and its state would make every request's larger.
                    Sign::Good => match Box::pin(hold(flight, &mut answering)).await {
                        Ok(()) => {
                            attempt.succeeded();
                            return Ok(Won::new(answering, attempt, outgoing.body.take()));
                        }
                        Err(kind) => Err(kind),
                    },
                    _ => Ok(answering),
                },
                Err(kind) => Err(kind),
            };
        if matches!(answering, Err(FailureKind::Shortage)) {
            // The engine was not asked: nothing is counted there.
            attempt.computed(0.0);
            return Err(FailureKind::Shortage);
        }
        let (sign, kind) = match &answering {
            Ok(answering) => {
                (answering.sign(), FailureKind::Status { status: answering.head.status.as_u16() })
            }
            Err(kind) => (attempt.sign_of(kind), kind.clone()),
        };
        let goes_on = repair.goes_on((flight, to), &course, &mut attempt, (sign, &kind));
        if attempt.is_ill() {
            let slot = attempt.endpoint().state.slot;
            worker.router.borrow_mut().unlearn(question(to, facts, &outgoing), slot, clock.now_ms());
        }
        let status = answering.as_ref().map_or(0, |answering| answering.head.status.as_u16());
        if let (Ok(answering), None) = (answering, goes_on) {
            if sign != Sign::Nothing {
                attempt.lingers(&worker, to.pool);
            }
            return Ok(Won::new(answering, attempt, outgoing.body.take()));
        }
        attempt.is_over(&worker, to.pool);
        let record = attempt.take_record();
        let Some(next) = goes_on else {
            flight.failed = record;
            return Err(kind);
        };
        why = next;
        flight.tried(Failure::from(kind.clone()).label(), status, Instant::now());
        if let Some(record) = record {
            record.failed(&Failure::from(kind.clone()));
        }
        last = Some(kind);
    }
    Err(last.unwrap_or_else(|| FailureKind::ModelUnavailable { model: to.model.into() }))
}

/// Reads on into what is held of a probe's answer: to its end, or for [`HOLD_MAX`], or up to [`HOLD_BYTES_MAX`]. If the answer
/// breaks off before, the probe is repaired at another engine; the client has seen nothing.
async fn hold(flight: &Flight, answering: &mut Answering) -> Result<(), FailureKind> {
    let Answering { head, held, connection, upload } = answering;
    flight.timer.set_after(HOLD_MAX);
    while !head.framing.is_ended() && held.iter().map(Bytes::len).sum::<usize>() < HOLD_BYTES_MAX {
        match next_piece(connection, upload, &mut head.framing, &flight.timer).await {
            Ok(Some(piece)) => held.push(piece),
            Ok(None) | Err(ExchangeError::Timeout) => break,
            Err(_) => return Err(FailureKind::LostMidway),
        }
    }
    Ok(())
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
    let worker = &flight.worker;
    let (mut connection, mut is_kept) = match worker.upstream.take_idle(&endpoint.spec, endpoint.state.slot) {
        Some(connection) => (connection, true),
        // Boxed: it is rare, and its state would make every request's larger.
        None => (Box::pin(connect(flight, endpoint, deadline_ms)).await?, false),
    };
    loop {
        flight.timer.set_at(deadline_ms);
        let written_ms = worker.clock.now_ms();
        match exchange(&mut connection, &mut upload, is_head, &flight.timer).await {
            Ok(mut head) => {
                let held = open(flight, &mut head, &mut connection, &mut upload).await?;
                return Ok(Answering { head, held, connection, upload });
            }
            Err(ExchangeError::Unanswered)
                if is_kept && worker.clock.is_within(written_ms, STALE_SEEN_MAX) =>
            {
                upload.rewind();
                is_kept = false;
                connection = Box::pin(connect(flight, endpoint, deadline_ms)).await?;
            }
            Err(error) => return Err(failure(error)),
        }
    }
}

/// Waits for the first byte of the body that follows a head, or for its end.
async fn open(
    flight: &Flight,
    head: &mut AnswerHead,
    connection: &mut Connection,
    upload: &mut Upload,
) -> Result<Held, FailureKind> {
    match next_piece(connection, upload, &mut head.framing, &flight.timer).await {
        // A stream without one event that ends with its connection: the engine died, and cannot say so.
        Ok(None) if flight.streams && head.framing == Framing::UntilClose && head.status.is_success() => {
            Err(FailureKind::LostBeforeHead)
        }
        Ok(first) => Ok(first.into_iter().collect()),
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
        Err(ConnectError::Shortage) => Err(FailureKind::Shortage),
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
