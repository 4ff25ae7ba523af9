//! The connection's own socket, wrapped so that a fault can put other bytes on it than the HTTP library would.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

/// Shared between a connection's socket and the requests on it.
#[derive(Debug, Default)]
pub(super) struct Control {
    armed: AtomicBool,
    instead: Mutex<Option<Instead>>,
    /// Whether the last write found the socket full.
    blocked: AtomicBool,
    /// Requests seen on this connection.
    pub(super) requests: AtomicU32,
    /// Requests on it that are not answered yet.
    pub(super) open: AtomicU32,
    /// Signalled when an answer ends; for the idle timer.
    pub(super) ended: Notify,
}

#[derive(Debug)]
struct Instead {
    bytes: Bytes,
    then: Then,
}

/// What follows the bytes a fault puts on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// What the HTTP library wanted to send.
    Continue,
    /// The end of the connection.
    Close,
    /// A reset.
    Reset,
}

impl Control {
    /// At the next write, sends `bytes` first.
    pub(super) fn send_instead(&self, bytes: Bytes, then: Then) {
        *lock(&self.instead) = Some(Instead { bytes, then });
        self.armed.store(true, Ordering::Release);
    }

    /// Whether what was written so far may still wait in this process.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

/// Nothing panics while it holds one of our locks, and if it did the data would still be whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream over a socket that can be reset.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The socket, or TLS over it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    control: std::sync::Arc<Control>,
}

impl<S: Socket> Wire<S> {
    pub(super) fn new(stream: S, control: std::sync::Arc<Control>) -> Self {
        Self { stream, control }
    }

    /// Sends what a fault asked for, if anything.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.control.armed.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut instead = lock(&self.control.instead);
        while let Some(Instead { bytes, then }) = &mut *instead {
            if !bytes.is_empty() {
                let n = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                bytes.advance(n);
                continue;
            }
            match *then {
                Then::Continue => *instead = None,
                Then::Reset => {
                    self.stream.tcp().set_zero_linger()?;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Then::Close => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
        }
        self.control.armed.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.control.blocked.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
