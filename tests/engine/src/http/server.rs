//! The listener, its connections, and the faults that need hands on either.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::Shared;
use super::answer::{Answer, Call, answer, error, is_probe};
use super::body::{AnswerBody, BodyFault, Source, collect};
use super::fault::{Accept, FAULT_HEADER, Fault, GARBAGE};
use super::log::{Open, Outcome, Received};
use super::wire::{Control, Socket, Then, Wire, lock};

const BACKLOG: u32 = 4_096;

/// A listener, and a socket that is bound to the same port without listening: it keeps the port ours, and refuses, while
/// the listener is closed.
pub(super) fn bind(addr: SocketAddr) -> io::Result<(TcpListener, TcpSocket)> {
    let reservation = bound(addr)?;
    let listener = bound(reservation.local_addr()?)?.listen(BACKLOG)?;
    Ok((listener, reservation))
}

fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Accepts until aborted; its connections end with it.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener, reservation: TcpSocket) {
    let mut listener = Some(listener);
    let mut accept = shared.accept.subscribe();
    let mut connections = JoinSet::new();
    let mut next = 0;
    loop {
        let mode = *accept.borrow_and_update();
        if mode == Accept::Refuse {
            for stream in listener.take().map(drain).unwrap_or_default() {
                connections.spawn(connection(shared.clone(), stream, Accept::Serve, next));
                next += 1;
            }
        } else if listener.is_none() {
            listener =
                reservation.local_addr().and_then(bound).and_then(|socket| socket.listen(BACKLOG)).ok();
        }
        shared.accepting.send_replace(mode);
        tokio::select! {
            accepted = accept_one(listener.as_ref()) => {
                let Ok(stream) = accepted else { continue };
                connections.spawn(connection(shared.clone(), stream, mode, next));
                next += 1;
            }
            changed = accept.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Closes a listener but keeps who has connected already: closing alone would reset them.
fn drain(listener: TcpListener) -> Vec<TcpStream> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || {
        listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        })
    };
    std::iter::from_fn(|| accept().ok()).collect()
}

async fn accept_one(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Closes the connections that are open now; returns when they are.
pub(super) async fn close_all(shared: &Shared) {
    let mut counts = shared.counts.subscribe();
    let before = counts.borrow().connections_closed();
    let open = counts.borrow().connections_open;
    shared.close.send_modify(|generation| *generation += 1);
    // The sender is ours, so it cannot be gone.
    let _ = counts.wait_for(|counts| counts.connections_closed() >= before + open).await;
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, mode: Accept, id: u64) {
    // Dropped last, when everything on the connection has been counted.
    let _counted = Connected::new(&shared);
    let mut close = shared.close.subscribe();
    let served = async {
        match mode {
            Accept::Serve => serve(&shared, stream, id).await,
            Accept::Close | Accept::Refuse => drop(stream),
            Accept::Silent => {
                let _held = stream;
                std::future::pending::<()>().await;
            }
            Accept::Garbage => {
                let mut stream = stream;
                // The client may be gone already.
                let _ = stream.write_all(GARBAGE).await;
            }
        }
    };
    tokio::select! {
        () = served => {}
        _ = close.changed() => {}
    }
}

struct Connected<'a>(&'a Shared);

impl<'a> Connected<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.counts.send_modify(|counts| {
            counts.connections += 1;
            counts.connections_open += 1;
        });
        Self(shared)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.connections_open -= 1);
    }
}

async fn serve(shared: &Arc<Shared>, stream: TcpStream, id: u64) {
    // Without it small chunks would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let control = Arc::new(Control::default());
    match &shared.tls {
        None => serve_http(shared, (Wire::new(stream, control.clone()), control), id).await,
        Some(tls) => {
            // A client that cannot agree on TLS leaves nothing to serve.
            let Ok(stream) = tls.accept(stream).await else { return };
            serve_http(shared, (Wire::new(stream, control.clone()), control), id).await;
        }
    }
}

async fn serve_http<S: Socket>(shared: &Arc<Shared>, (wire, control): (Wire<S>, Arc<Control>), id: u64) {
    let service = service_fn(|request| {
        let (shared, control) = (shared.clone(), control.clone());
        async move { respond(shared, control, id, request).await }
    });
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(wire), service));
    let Some(keep_alive) = shared.config.keep_alive else {
        // Whatever ended it has been counted where it happened.
        let _ = connection.await;
        return;
    };
    tokio::select! {
        _ = &mut connection => {}
        () = idle(&control, keep_alive) => {}
    }
}

/// Ends when nothing was asked of the connection for so long after its last answer. Before the first request it waits: closing
/// then would not be a stale connection but an engine that refuses.
async fn idle(control: &Control, keep_alive: Duration) {
    loop {
        let seen = control.requests.load(Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(keep_alive) => {
                if control.open.load(Ordering::Relaxed) > 0 {
                    control.ended.notified().await;
                } else if seen > 0 && control.requests.load(Ordering::Relaxed) == seen {
                    return;
                }
            }
            () = control.ended.notified() => {}
        }
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by a scripted fault")
    }
}

impl std::error::Error for Hangup {}

async fn respond(
    shared: Arc<Shared>,
    control: Arc<Control>,
    connection: u64,
    request: http::Request<Incoming>,
) -> Result<Response<AnswerBody>, Hangup> {
    let on_connection = control.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (head, body) = request.into_parts();
    let is_probe = is_probe(&head.method, head.uri.path());
    let mut open = Open::new(&shared, &control, is_probe);
    let fault = fault_of(&shared, &head.headers, is_probe);
    let origin = (connection, on_connection);
    if let Ok(Fault::Early(code)) = &fault {
        open.receive(|| received(&shared, &head, origin, &Bytes::new()));
        let answer = scripted_status(*code, None);
        return Ok(response(&shared, &head, answer, BodyFault::default(), (open, control)));
    }
    let body = match Limited::new(body, shared.config.body_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(problem) if problem.is::<LengthLimitError>() => {
            let answer = error(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", None);
            return Ok(response(&shared, &head, answer, BodyFault::default(), (open, control)));
        }
        // The client left in the middle of its body; nothing more can be sent.
        Err(_) => return Err(Hangup),
    };
    open.receive(|| received(&shared, &head, origin, &body));
    let fault = match fault {
        Ok(fault) => fault,
        Err(answer) => return Ok(response(&shared, &head, answer, BodyFault::default(), (open, control))),
    };
    before_answer(&control, &fault, on_connection, &mut open).await?;
    let call = Call {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        body: &body,
    };
    let mut answered = match &fault {
        Fault::Status { code, body, .. } => scripted_status(*code, body.as_deref()),
        Fault::Garbage | Fault::Reset => error(StatusCode::OK, "", None),
        _ => answer(&shared, call).await,
    };
    if fault == Fault::UntilClose {
        until_close(&control, &mut answered).await;
    }
    if fault == Fault::Gzip {
        answered.source = Source::Whole(gzip(&collect(answered.source).await));
    }
    let mut response = response(&shared, &head, answered, body_fault(&fault), (open, control));
    add_headers(&fault, response.headers_mut());
    Ok(response)
}

fn received(
    shared: &Shared,
    head: &http::request::Parts,
    (connection, on_connection): (u64, u32),
    body: &Bytes,
) -> Received {
    Received {
        id: 0,
        connection,
        on_connection,
        at: shared.elapsed(),
        method: head.method.clone(),
        target: head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string),
        headers: head.headers.clone(),
        body: match shared.config.log_body_bytes_max {
            max if max < body.len() => Bytes::copy_from_slice(&body[..max]),
            _ => body.clone(),
        },
        body_bytes: body.len() as u64,
        status: None,
        sent_bytes: 0,
        sent_chunks: 0,
        chunk_times: Vec::new(),
        outcome: Outcome::Open,
        ended_at: None,
    }
}

fn fault_of(shared: &Shared, headers: &http::HeaderMap, is_probe: bool) -> Result<Fault, Answer> {
    if let Some(words) = headers.get(FAULT_HEADER) {
        let words = String::from_utf8_lossy(words.as_bytes());
        return words.parse().map_err(|problem: super::UnknownFault| {
            error(StatusCode::BAD_REQUEST, &problem.to_string(), Some(FAULT_HEADER))
        });
    }
    if !shared.scripted.load(Ordering::Acquire) {
        return Ok(Fault::None);
    }
    let mut script = lock(&shared.script);
    let fault = script.next(is_probe);
    shared.scripted.store(!script.is_empty(), Ordering::Release);
    Ok(fault.unwrap_or(Fault::None))
}

/// Faults that come before, or instead of, the head.
async fn before_answer(
    control: &Control,
    fault: &Fault,
    on_connection: u32,
    open: &mut Open,
) -> Result<(), Hangup> {
    match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Delay(pause) => tokio::time::sleep(*pause).await,
        Fault::Close => {
            open.end(Outcome::Faulted);
            return Err(Hangup);
        }
        Fault::CloseReused if on_connection > 1 => {
            open.end(Outcome::Faulted);
            return Err(Hangup);
        }
        Fault::Reset => {
            open.end(Outcome::Faulted);
            control.send_instead(Bytes::new(), Then::Reset);
        }
        Fault::Garbage => {
            open.end(Outcome::Faulted);
            control.send_instead(Bytes::from_static(GARBAGE), Then::Close);
        }
        Fault::Interim(count) => {
            let early = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
            control.send_instead(early.repeat(*count as usize).into(), Then::Continue);
        }
        _ => {}
    }
    Ok(())
}

/// Writes the whole response by hand, since no HTTP library leaves length and chunks out.
async fn until_close(control: &Control, answered: &mut Answer) {
    let source = std::mem::replace(&mut answered.source, Source::Whole(Bytes::new()));
    let body = collect(source).await;
    let (status, kind) = (answered.status.as_u16(), answered.content_type);
    let mut bytes = BytesMut::from(
        format!("HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    bytes.extend_from_slice(&body);
    control.send_instead(bytes.freeze(), Then::Close);
}

fn scripted_status(code: u16, body: Option<&str>) -> Answer {
    // Parsing a fault and the documentation of `Fault::Status` allow no other codes.
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match body {
        Some(body) => Answer::json(status, body.to_owned()),
        None => error(status, "scripted fault", None),
    }
}

fn body_fault(fault: &Fault) -> BodyFault {
    let none = BodyFault::default();
    match fault {
        Fault::Cut(bytes) => BodyFault { limit: Some(*bytes), ..none },
        Fault::Stall(bytes) => BodyFault { limit: Some(*bytes), stall: true, ..none },
        Fault::SlowChunks(pause) => BodyFault { pause: Some(*pause), piece_bytes: Some(16), ..none },
        Fault::Chunked => BodyFault { pause: Some(Duration::from_millis(1)), piece_bytes: Some(64), ..none },
        _ => none,
    }
}

fn add_headers(fault: &Fault, headers: &mut http::HeaderMap) {
    match fault {
        Fault::Gzip => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Fault::BigHeaders(bytes) => {
            const EACH: usize = 1_024;
            for n in 0..bytes.div_ceil(EACH) {
                let name = http::HeaderName::try_from(format!("x-big-{n}"));
                let value = HeaderValue::try_from("b".repeat(EACH.min(bytes - n * EACH)));
                if let (Ok(name), Ok(value)) = (name, value) {
                    headers.insert(name, value);
                }
            }
        }
        Fault::Status { headers: more, .. } => {
            for (name, value) in more {
                let name = http::HeaderName::try_from(name.as_str());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str())) {
                    headers.append(name, value);
                }
            }
        }
        _ => {}
    }
}

fn response(
    shared: &Shared,
    head: &http::request::Parts,
    answer: Answer,
    fault: BodyFault,
    (open, control): (Open, Arc<Control>),
) -> Response<AnswerBody> {
    open.answer(answer.status);
    let mut response = Response::new(AnswerBody::new(answer.source, fault, open, control));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Ok(name) = HeaderValue::try_from(shared.name.as_str()) {
        headers.insert("x-engine", name);
    }
    if let Some(id) = head.headers.get("x-request-id") {
        headers.insert("x-request-id", id.clone());
    }
    response
}

fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}
