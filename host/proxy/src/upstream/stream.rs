//! A byte stream to an engine, plain or TLS, polled in the task of the request that uses it.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Room that a read finds at least; more is asked for when a read filled it.
const READ_ROOM: usize = 4 << 10;
/// Room of a fresh buffer.
const BUFFER: usize = 8 << 10;
/// Most room a read asks for.
const READ_ROOM_MAX: usize = 64 << 10;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads what is there to the end of `buffer`. 0: the other side has closed.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        if room < READ_ROOM / 2 {
            // A body that arrives faster than it fits gets more room; a stream of small chunks stays small.
            let wanted =
                if buffer.capacity() == 0 { BUFFER } else { buffer.len().clamp(READ_ROOM, READ_ROOM_MAX) };
            buffer.reserve(wanted);
        }
        // The future keeps nothing between polls, so that making one anew each time loses nothing.
        match self {
            Self::Plain(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            Self::Tls(stream) => pin!(stream.read_buf(buffer)).poll(cx),
        }
    }

    /// Writes what fits of two pieces, either of which may be empty, but not both.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, pieces: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        let one = match pieces {
            [only, []] | [[], only] => Some(only),
            _ => None,
        };
        let both = pieces.map(IoSlice::new);
        match (self, one) {
            (Self::Plain(stream), Some(piece)) => Pin::new(stream).poll_write(cx, piece),
            (Self::Plain(stream), None) => Pin::new(stream).poll_write_vectored(cx, &both),
            (Self::Tls(stream), Some(piece)) => Pin::new(stream).poll_write(cx, piece),
            (Self::Tls(stream), None) => Pin::new(stream).poll_write_vectored(cx, &both),
        }
    }

    /// Sends what a TLS session holds back.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}
