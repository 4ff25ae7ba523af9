//! A client's byte stream, shared between the protocol that reads it and the watch that looks whether it still stands.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::frames::Frames;
use super::watch::Watch;

/// Up to this many bytes in several pieces are put together before they are written: copying them costs less than
/// `writev` costs beyond `send`. A head with a short body, an event of a stream.
const GATHERED_BYTES_MAX: usize = 1 << 10;

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Rc<RefCell<TcpStream>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Rc::new(RefCell::new(stream)) }
    }

    /// The socket, for looking at it.
    pub(super) fn shared(&self) -> Rc<RefCell<TcpStream>> {
        Rc::clone(&self.stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut stream = self.stream.borrow_mut();
        if length > GATHERED_BYTES_MAX {
            return Pin::new(&mut *stream).poll_write_vectored(cx, slices);
        }
        let mut gathered = [0; GATHERED_BYTES_MAX];
        let mut end = 0;
        for slice in slices {
            gathered[end..end + slice.len()].copy_from_slice(slice);
            end += slice.len();
        }
        Pin::new(&mut *stream).poll_write(cx, &gathered[..end])
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}

/// What a client speaks over.
#[derive(Debug)]
pub(super) enum Wire {
    /// TCP.
    Plain(Socket),
    /// TLS over TCP.
    Tls(Box<TlsStream<Socket>>),
}

/// A client's byte stream, with what was read ahead to find out what it speaks.
#[derive(Debug)]
pub(super) struct ClientIo {
    wire: Wire,
    ahead: BytesMut,
    watch: Rc<Watch>,
    /// Counts HTTP/2's frames.
    frames: Option<Box<Frames>>,
    /// Nothing is half written.
    is_flushed: bool,
}

impl ClientIo {
    pub(super) fn new(wire: Wire, watch: Rc<Watch>) -> Self {
        Self { wire, ahead: BytesMut::new(), watch, frames: None, is_flushed: true }
    }

    /// What comes from here on, bytes put back included, is HTTP/2: its control frames have a budget.
    pub(super) fn count_frames(&mut self) {
        self.frames = Some(Box::new(Frames::new(self.watch.clock.now_ms())));
    }

    /// Looks at what was read. An error, and a GOAWAY for the client, if it sends too many control frames.
    fn inspect(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        if frames.read(bytes, self.watch.clock.now_ms()) {
            return Ok(());
        }
        let go_away = frames.go_away();
        self.watch.is_flooding.set(true);
        if self.is_flushed {
            // Only between two frames of ours. It is short; where there is no room for it, the end must do.
            let _ = Pin::new(&mut *self).poll_write(cx, &go_away);
            let _ = Pin::new(&mut *self).poll_flush(cx);
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many control frames"))
    }

    /// Bytes were written, or could not be.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_pending() {
            return;
        }
        self.watch.wrote_something();
        if let (Some(frames), Poll::Ready(Ok(bytes))) = (&mut self.frames, written) {
            self.is_flushed = false;
            frames.wrote(*bytes);
        }
    }

    /// Keeps bytes that were read, to be read again.
    pub(super) fn put_back(&mut self, bytes: BytesMut) {
        self.ahead = bytes;
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            let ahead = self.ahead.split_to(length);
            buffer.put_slice(&ahead);
            return Poll::Ready(self.inspect(&ahead, cx));
        }
        let before = buffer.filled().len();
        let this = &mut *self;
        let result = match &mut this.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Wire::Tls(session) => Pin::new(session).poll_read(cx, buffer),
        };
        if result.is_ready() && buffer.filled().len() > before {
            this.watch.read_something();
            if this.frames.is_some() {
                this.inspect(&buffer.filled()[before..], cx)?;
            }
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Wire::Tls(session) => Pin::new(session).poll_write(cx, bytes),
        };
        self.wrote(&written);
        written
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Wire::Tls(session) => Pin::new(session).poll_write_vectored(cx, slices),
        };
        self.wrote(&written);
        written
    }
    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(socket) => socket.is_write_vectored(),
            Wire::Tls(session) => session.is_write_vectored(),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Tls(session) => Pin::new(session).poll_flush(cx),
        };
        self.is_flushed |= flushed.is_ready();
        flushed
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(session) => Pin::new(session).poll_shutdown(cx),
        }
    }
}
