//! One accepted request, from its head to its end: what it needs everywhere, and what it did. It ends in one `Outcome`,
//! whatever drops it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use domain::admission::Permit;
use domain::name::{ModelName, ObjectName, PolicyName};
use domain::outcome::{Ending, Outcome, Usage};
use domain::route::{ErrorFormat, Timeouts};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::{Stall, Timer};
use crate::dialect::Operation;
use crate::dispatch::Won;
use crate::explain::{Mark, Trying};
use crate::record::{self, Accepted, End};
use crate::respond::X_REQUEST_ID;
use crate::server::{Client, Worker};

/// Longest request id taken over from a client, bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Which engine answered.
const X_ENDPOINT: HeaderName = HeaderName::from_static("x-wicketgate-endpoint");

/// Which policy chose it; absent where the last resort did.
const X_POLICY: HeaderName = HeaderName::from_static("x-wicketgate-policy");

/// One request.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The worker that serves it.
    pub(crate) worker: Rc<Worker>,
    /// Its client.
    pub(crate) client: Rc<Client>,
    /// Its one timer, set anew for each phase.
    pub(crate) timer: Timer,
    /// Its id.
    pub(crate) request_id: HeaderValue,
    /// When its head was in.
    pub(crate) arrived: Instant,
    /// When its body was in.
    pub(crate) body_in: Instant,
    /// When the first content of the answer was in: see [`crate::record::content`].
    pub(crate) first_byte: Option<Instant>,
    /// The gateway's name, once known.
    pub(crate) gateway: Option<ObjectName>,
    /// The routed model's name, once known.
    pub(crate) model: Option<ModelName>,
    /// The policy that chose; noted only where answers say so.
    pub(crate) policy: Option<PolicyName>,
    /// Where its decision is kept, once there is one.
    pub(crate) mark: Option<Mark>,
    /// The attempt under way.
    pub(crate) trying: Option<Trying>,
    /// The last attempt, if it failed.
    pub(crate) failed: Option<record::Attempt>,
    /// When it ended, where somebody looked at the clock anyway.
    pub(crate) ended_at: Option<Instant>,
    /// What it asks for; `None` until its path was understood.
    pub(crate) operation: Option<Operation>,
    /// Whether the client asked for a stream.
    pub(crate) streams: bool,
    /// Shape of error bodies; the gateway's once it is known.
    pub(crate) error_format: ErrorFormat,
    /// What deciding took.
    pub(crate) decision: Duration,
    /// Attempts at engines.
    pub(crate) attempts: u32,
    /// Body bytes from the client.
    pub(crate) request_bytes: u64,
    /// Body bytes to the client.
    pub(crate) response_bytes: u64,
    /// Body chunks to the client.
    pub(crate) chunks: u64,
    /// What the engine reported.
    pub(crate) usage: Option<Usage>,
    /// How long connecting may take; the gateway's setting.
    pub(crate) connect_max: Duration,
    /// The gateway's permit.
    pub(crate) permit: Option<Permit>,
    /// Counts it in flight; `None` once it has ended.
    accepted: Option<Accepted>,
    /// Notices that the client takes nothing, while an engine's answer goes to it.
    stall: Option<Rc<Stall>>,
}

impl Flight {
    /// A request whose head has arrived.
    pub(crate) fn begin(worker: Rc<Worker>, client: Rc<Client>, headers: &HeaderMap) -> Self {
        worker.begin();
        client.watch.begin();
        let accepted = worker.recorder.accept();
        let arrived = Instant::now();
        Self {
            timer: worker.clock.timer(),
            request_id: request_id(headers, &worker),
            worker,
            client,
            arrived,
            body_in: arrived,
            first_byte: None,
            gateway: None,
            model: None,
            policy: None,
            ended_at: None,
            failed: None,
            mark: None,
            trying: None,
            operation: None,
            streams: false,
            error_format: ErrorFormat::default(),
            decision: Duration::ZERO,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            chunks: 0,
            usage: None,
            connect_max: Timeouts::default().connect,
            permit: None,
            accepted: Some(accepted),
            stall: None,
        }
    }

    /// The request's id as text.
    pub(crate) fn request_id(&self) -> &str {
        // Only printable ids are taken over, and ours are.
        self.request_id.to_str().unwrap_or_default()
    }

    /// Says on the answer who gave it, if that is switched on.
    pub(crate) fn label_answer(&self, headers: &mut HeaderMap, won: &Won) {
        if !self.worker.shared.options.answer_headers {
            return;
        }
        if let Ok(url) = HeaderValue::from_str(&won.attempt.endpoint().spec.id.url) {
            headers.insert(X_ENDPOINT, url);
        }
        if let Some(policy) = self.policy.as_ref().and_then(|name| HeaderValue::from_str(name.as_str()).ok())
        {
            headers.insert(X_POLICY, policy);
        }
    }

    /// An engine's answer begins to go to the client, which may take nothing for so long.
    pub(crate) fn watch_client(&mut self, idle: Duration) {
        let stall = self.client.watch.stall();
        stall.watch(&self.timer, idle);
        self.stall = Some(stall);
    }

    /// The attempt under way has ended so. Its first content counts where it went to the client.
    pub(crate) fn tried(&mut self, result: &'static str, status: u16, now: Instant) {
        if let (Some(mark), Some(trying)) = (self.mark, self.trying.take()) {
            self.worker.recorder.tried(mark, trying.ended((result, status), self.first_byte, now));
        }
    }

    /// The request has ended. Only the first call counts.
    pub(crate) fn finish(&mut self, ending: Ending) {
        let failed = self.failed.take();
        self.finish_at(ending, failed.as_ref(), 0);
    }

    /// The request has ended at an engine, with this many events of a stream. Only the first call counts.
    pub(crate) fn finish_at(&mut self, ending: Ending, attempt: Option<&record::Attempt>, events: u64) {
        let Some(accepted) = self.accepted.take() else { return };
        let now = self.ended_at.unwrap_or_else(Instant::now);
        let (result, status) = match &ending {
            Ending::Answered { status } | Ending::Local { status } => ("answered", *status),
            Ending::Failed { failure, .. } => (failure.label(), 0),
            Ending::ClientGone => ("client_gone", 0),
        };
        self.tried(result, status, now);
        let outcome = Outcome {
            ending,
            attempts: self.attempts,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            chunks: self.chunks,
            duration: now.duration_since(self.arrived),
            first_byte: self.first_byte.map(|first| first.duration_since(self.body_in)),
            decision: self.decision,
            usage: self.usage,
        };
        self.worker.recorder.finished(&End {
            request_id: self.request_id(),
            operation: self.operation.map_or("unknown", Operation::label),
            gateway: self.gateway.as_ref(),
            model: self.model.as_ref(),
            attempt,
            events,
            outcome: &outcome,
            now_ms: self.worker.clock.exact_ms(now),
        });
        drop(accepted);
        self.permit = None;
        if let Some(stall) = self.stall.take() {
            // What is left for the client to take holds nothing of the gateway's any more.
            stall.clear();
        }
        self.client.watch.end();
        self.worker.end();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.finish(Ending::ClientGone);
    }
}

/// The client's id of the request if it is short and printable, else one of ours.
fn request_id(headers: &HeaderMap, worker: &Worker) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|id| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some(id) = given {
        return id.clone();
    }
    let mut router = worker.router.borrow_mut();
    let random = u128::from(router.random()) << 64 | u128::from(router.random());
    let id = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
