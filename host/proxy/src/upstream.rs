//! Connections to engines: each worker's own pools, and one request and answer over one of them.
//!
//! There is no task behind a connection. Whoever holds it polls it, and dropping it closes it, which is how a request
//! that ends early is aborted at the engine.

mod codec;
mod connect;
mod exchange;
mod head;
mod stream;
mod tls;

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use domain::endpoint::{EndpointSpec, EngineAuth, EngineTls};
use names::{Names, Route};
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) use codec::{AnswerHead, Framing, Piece};
pub(crate) use connect::ConnectError;
pub(crate) use exchange::{ExchangeError, Upload, exchange, next_piece};
pub(crate) use head::{Forwarded, listed_in_connection, write_head};
pub(crate) use stream::Stream;

use crate::clock::{Clock, Timer};

/// How long a connection may be idle: less than the least that engines grant (uvicorn: 5 s).
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Age at which a connection is not used for another request, so that engines behind a Service or a name share the load
/// anew; up to a quarter less, so that connections opened together do not end together.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Requests over one connection; up to a quarter less, likewise.
const REQUESTS_MAX: u32 = 10_000;
/// Idle connections kept for one endpoint by one worker.
const IDLE_CONNECTIONS_MAX: usize = 1_024;

/// A connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The stream.
    pub(crate) stream: Stream,
    /// Bytes read and not consumed.
    pub(crate) buffer: BytesMut,
    /// Slot of the endpoint it leads to.
    pub(crate) slot: u32,
    /// What the service that it was opened for says about its engines.
    access: Access,
    /// The name that led to it; `None` where the endpoint is an address.
    route: Option<Box<Route>>,
    /// When it becomes too old, on the worker's clock.
    retires_ms: u64,
    /// Requests that it may still carry, the present one included.
    requests_left: u32,
}

/// Credentials and trust of one service. Services that name the same URL share idle connections only where both are equal:
/// bytes that one service's requests leave behind on a connection must never be read as an answer to another's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Access {
    auth: Option<Arc<EngineAuth>>,
    tls: Option<Arc<EngineTls>>,
}

impl Access {
    fn of(spec: &EndpointSpec) -> Self {
        Self { auth: spec.auth.clone(), tls: spec.tls.clone() }
    }

    /// Whether a request of `spec` may use the connection. Compares pointers first.
    fn is_of(&self, spec: &EndpointSpec) -> bool {
        self.auth == spec.auth && self.tls == spec.tls
    }
}

/// One worker's connections to all endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
    clock: Rc<Clock>,
    names: Names,
    idle: RefCell<HashMap<u32, Vec<Idle>>>,
    tls: RefCell<tls::Configs>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since_ms: u64,
}

impl Connection {
    /// Whether it may carry another request: it is young, and its name still leads to where it goes.
    fn is_usable(&mut self, now_ms: u64) -> bool {
        let is_young = now_ms < self.retires_ms && self.requests_left > 0;
        is_young && self.route.as_mut().is_none_or(|route| route.is_current())
    }
}

impl Upstream {
    /// No connections yet.
    pub(crate) fn new(clock: Rc<Clock>, names: Names) -> Self {
        Self { clock, names, idle: RefCell::default(), tls: RefCell::default() }
    }

    /// The idle connection to `slot` that was used last, if one is alive and was opened with the credentials and the trust
    /// of `spec`. Connections of other services stay where they are.
    pub(crate) fn take_idle(&self, spec: &EndpointSpec, slot: u32) -> Option<Connection> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(&slot)?;
        while let Some(last) = idle.iter().rposition(|idle| idle.connection.access.is_of(spec)) {
            let Idle { mut connection, since_ms } = idle.remove(last);
            if self.is_fresh(since_ms)
                && connection.is_usable(self.clock.now_ms())
                && is_quiet(&mut connection)
            {
                return Some(connection);
            }
        }
        None
    }

    /// Connects to an endpoint. Ends at the latest when `timer` does.
    pub(crate) async fn connect(
        &self,
        spec: &EndpointSpec,
        slot: u32,
        timer: &Timer,
    ) -> Result<Connection, ConnectError> {
        let config = match spec.target.tls {
            true => {
                let nobody = EngineTls::default();
                let tls = spec.tls.as_deref().unwrap_or(&nobody);
                Some(self.tls.borrow_mut().get(tls).ok_or(ConnectError::Tls)?)
            }
            false => None,
        };
        // Boxed: connecting is rare, and its state would make every request's larger.
        let mut made = Box::pin(connect::connect(&self.names, &spec.target, config.clone(), timer)).await;
        if made.as_ref().is_err_and(|error| *error == ConnectError::Shortage) && self.close_idle() {
            made = Box::pin(connect::connect(&self.names, &spec.target, config, timer)).await;
        }
        let (stream, route) = made?;
        let jitter = fastrand::u32(0..1_000);
        let age_ms = AGE_MAX.as_millis() as u64;
        Ok(Connection {
            stream,
            buffer: BytesMut::new(),
            slot,
            access: Access::of(spec),
            route: route.map(Box::new),
            retires_ms: self.clock.now_ms() + age_ms - age_ms * u64::from(jitter) / 4_000,
            requests_left: REQUESTS_MAX - REQUESTS_MAX / 4_000 * jitter,
        })
    }

    /// Closes all idle connections, to free their descriptors. Whether there were any.
    fn close_idle(&self) -> bool {
        let mut all = self.idle.borrow_mut();
        let had_any = all.values().any(|idle| !idle.is_empty());
        all.clear();
        had_any
    }

    /// Takes back a connection whose last answer was read to its end.
    pub(crate) fn give_back(&self, mut connection: Connection) {
        // Unasked bytes: the engine has lost count, or something speaks in its name.
        if !connection.buffer.is_empty() {
            return;
        }
        connection.requests_left = connection.requests_left.saturating_sub(1);
        if !connection.is_usable(self.clock.now_ms()) {
            return;
        }
        // An idle connection holds no buffer: many connections are idle at a time, few are read.
        connection.buffer = BytesMut::new();
        let mut all = self.idle.borrow_mut();
        let idle = all.entry(connection.slot).or_default();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { connection, since_ms: self.clock.now_ms() });
        }
    }

    /// Closes what was idle for too long or is not to be used again, what its engine has closed, and where it spoke
    /// without having been asked. Has the names of the others looked up again when that is due.
    pub(crate) fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        for idle in self.idle.borrow_mut().values_mut() {
            idle.retain_mut(|idle| {
                let is_good = self.is_fresh(idle.since_ms) && idle.connection.is_usable(now_ms);
                is_good && is_quiet(&mut idle.connection)
            });
            // All of them have one name.
            if let Some(route) = idle.first().and_then(|idle| idle.connection.route.as_ref()) {
                route.refresh();
            }
        }
    }

    /// Closes connections to endpoints that left, and forgets TLS settings.
    pub(crate) fn retain(&self, is_live: impl Fn(u32) -> bool) {
        self.idle.borrow_mut().retain(|slot, _| is_live(*slot));
        self.tls.borrow_mut().clear();
    }

    fn is_fresh(&self, since_ms: u64) -> bool {
        self.clock.now_ms().saturating_sub(since_ms) < IDLE_MAX.as_millis() as u64
    }
}

/// Whether nothing has come over an idle connection: neither its end nor unasked bytes. Costs no system call while the
/// reactor has seen nothing.
fn is_quiet(connection: &mut Connection) -> bool {
    // Reading, because readiness may be left over from the last answer. A TLS session takes a late ticket on the way.
    let mut byte = [0; 1];
    let mut unasked = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    match &mut connection.stream {
        Stream::Plain(stream) => Pin::new(stream).poll_read(&mut cx, &mut unasked).is_pending(),
        Stream::Tls(stream) => Pin::new(stream).poll_read(&mut cx, &mut unasked).is_pending(),
    }
}
