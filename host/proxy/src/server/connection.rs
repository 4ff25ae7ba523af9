//! One client connection: TLS where the listener has it, HTTP/1.1 or HTTP/2 by what the client says first, until its end.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::io::{ClientIo, Socket, Wire};
use super::watch::{Order, STREAM_STALL, Watch};
use super::worker::Worker;
use crate::clock::{Clock, Stall};
use crate::request;
use crate::respond::Dialect;

/// What every HTTP/2 connection begins with.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams of one HTTP/2 connection: all of them share one worker.
const H2_STREAMS_MAX: u32 = 100;
/// Header lines of a request.
const HEADERS_MAX: usize = 100;
/// Head of a request, and what is read ahead of a body that nobody takes, bytes.
const READ_BUFFER_BYTES_MAX: usize = 256 << 10;
/// Decoded header list of an HTTP/2 request, bytes.
const H2_HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Receive windows of HTTP/2, bytes: a stream's, and a connection's.
const H2_WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// How long, and for how many bytes, a client may go on sending after the end of its connection.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A client, as its requests see it.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its connection.
    pub(crate) watch: Rc<Watch>,
    /// How the listener speaks.
    pub(crate) dialect: Dialect,
}

/// What of a listener its connections need.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    pub(super) dialect: Dialect,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Serves a connection until it ends, is told to, or its client leaves.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, speech: Speech) {
    // An answer's last part must not wait for an acknowledgement. Without the option it still works.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream);
    let watch = Watch::new(socket.shared(), peer, &worker.clock);
    let _watched = worker.watches.add(Rc::clone(&watch));
    let mut opening = pin!(open(socket, &watch, speech.tls));
    let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened),
        // Whatever it is told, a connection without a request has nothing to finish.
        Poll::Pending if watch.poll_order(cx).is_some() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    let Some((mut io, is_h2)) = opened else { return };
    let client = Rc::new(Client { watch: Rc::clone(&watch), dialect: speech.dialect });
    let service =
        service_fn(move |incoming| request::serve(Rc::clone(&worker), Rc::clone(&client), incoming));
    let ended = if is_h2 {
        watch.set_h2();
        io.count_frames();
        let connection = http2::Builder::new(Local { clock: Rc::clone(&watch.clock) })
            .max_concurrent_streams(H2_STREAMS_MAX)
            .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(H2_WINDOWS.0)
            .initial_connection_window_size(H2_WINDOWS.1)
            .serve_connection(TokioIo::new(io), service);
        drive(pin!(connection), &watch, |connection| connection.graceful_shutdown()).await
    } else {
        let connection = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(io), service);
        drive(pin!(connection), &watch, |connection| connection.graceful_shutdown()).await
    };
    // A client that floods gets a GOAWAY with the reason, and must be able to read it.
    if ended == Ended::Orderly || watch.is_flooding.get() {
        linger(&watch).await;
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Everything was said, and our side of the stream closed.
    Orderly,
    /// In the middle of something. It must look like that to the client, too.
    Broken,
}

/// Reads on for a moment what the client still sends. Closing a socket with unread bytes resets it, and a reset can
/// overtake our last answer, which the client then never sees.
async fn linger(watch: &Watch) {
    let timer = watch.clock.timer();
    timer.set_after(LINGER_MAX);
    let mut left = LINGER_BYTES_MAX;
    poll_fn(|cx| {
        let mut buffer = [0; 4 << 10];
        while left > 0 {
            let mut bytes = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *watch.socket.borrow_mut()).poll_read(cx, &mut bytes) {
                Poll::Ready(Ok(())) if !bytes.filled().is_empty() => {
                    left = left.saturating_sub(bytes.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.poll(cx),
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Finds out what the client speaks. `None`: it left, or speaks nothing of ours.
async fn open(socket: Socket, watch: &Rc<Watch>, tls: Option<Arc<ServerConfig>>) -> Option<(ClientIo, bool)> {
    if let Some(config) = tls {
        let session = TlsAcceptor::from(config).accept(socket).await.ok()?;
        if let Some(protocol) = session.get_ref().1.alpn_protocol() {
            let is_h2 = protocol == b"h2";
            return Some((ClientIo::new(Wire::Tls(Box::new(session)), Rc::clone(watch)), is_h2));
        }
        return sniff(ClientIo::new(Wire::Tls(Box::new(session)), Rc::clone(watch))).await;
    }
    sniff(ClientIo::new(Wire::Plain(socket), Rc::clone(watch))).await
}

/// Reads ahead until it is clear whether this is HTTP/2's preface.
async fn sniff(mut io: ClientIo) -> Option<(ClientIo, bool)> {
    let mut ahead = BytesMut::with_capacity(4 << 10);
    loop {
        if io.read_buf(&mut ahead).await.ok()? == 0 {
            return None;
        }
        let known = ahead.len().min(H2_PREFACE.len());
        let may_be_h2 = ahead[..known] == H2_PREFACE[..known];
        if !may_be_h2 || known == H2_PREFACE.len() {
            io.put_back(ahead);
            return Some((io, may_be_h2));
        }
    }
}

/// Polls a connection to its end, and does what its watch says.
async fn drive<C, E>(mut connection: Pin<&mut C>, watch: &Watch, finish: impl Fn(Pin<&mut C>)) -> Ended
where
    C: Future<Output = Result<(), E>>,
{
    let mut told = false;
    let ended = |result: Result<(), E>| if result.is_ok() { Ended::Orderly } else { Ended::Broken };
    poll_fn(|cx| {
        let order = watch.poll_order(cx);
        if order == Some(Order::Drop) {
            return Poll::Ready(Ended::Broken);
        }
        // Polled before it is told, so that a request which is here already is not taken for none.
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() && watch.stall.is_stalled(cx) {
            return Poll::Ready(Ended::Broken);
        }
        if polled.is_ready() || told || order != Some(Order::Finish) {
            return polled.map(ended);
        }
        told = true;
        finish(connection.as_mut());
        connection.as_mut().poll(cx).map(ended)
    })
    .await
}

/// Runs HTTP/2's streams as tasks of this worker.
#[derive(Clone, Debug)]
struct Local {
    clock: Rc<Clock>,
}

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let stall = Stall::new(&self.clock);
        // The task ends with its connection, which owns the other end of it.
        drop(tokio::task::spawn_local(STREAM_STALL.scope(Rc::clone(&stall), drive_stream(future, stall))));
    }
}

/// Polls a stream to its end, or until its client has stalled. Dropping a stream resets it.
async fn drive_stream<F: Future>(stream: F, stall: Rc<Stall>) {
    let mut stream = pin!(stream);
    poll_fn(|cx| match stream.as_mut().poll(cx) {
        Poll::Pending if !stall.is_stalled(cx) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}
