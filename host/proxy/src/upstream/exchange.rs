//! One request over one connection, up to the first piece of its answer's body.
//!
//! Writing and reading go on side by side: an engine may answer before it has read the request, and may read on while
//! it answers. Dropping any of this leaves the connection in the middle: it must be dropped as well.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Connection;
use super::codec::{AnswerHead, Framing, Interim, Piece, take_head};
use super::stream::Stream;
use crate::clock::Timer;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection ended before any byte of an answer.
    #[error("connection ended without an answer")]
    Unanswered,
    /// The connection ended within the head, or before the first byte of the body.
    #[error("connection ended before the body")]
    Cut,
    /// The answer is not HTTP.
    #[error("answer is not HTTP")]
    Malformed,
    /// The time was up.
    #[error("no answer in time")]
    Timeout,
}

/// Bytes of a request that are written in one turn of its task: a fraction of a millisecond.
const TURN_BYTES: usize = 1 << 20;

/// A request on its way to an engine: what is to be written, and how much of it has been.
#[derive(Debug)]
pub(crate) struct Upload {
    head: Vec<u8>,
    body: Bytes,
    /// Bytes of both that the connection has taken.
    written: usize,
    is_flushed: bool,
    /// Writing failed. Reading shows why: an answer may be there, else the end.
    is_broken: bool,
}

impl Upload {
    /// Nothing of it is written. Either part may be empty.
    pub(crate) fn new(head: Vec<u8>, body: Bytes) -> Self {
        Self { head, body, written: 0, is_flushed: false, is_broken: false }
    }

    /// To be written again from its start, over another connection.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
        self.is_flushed = false;
        self.is_broken = false;
    }

    /// Whether the connection has taken all of it.
    pub(crate) fn is_done(&self) -> bool {
        self.is_flushed && self.written == self.head.len() + self.body.len()
    }

    /// What is not written yet.
    fn rest(&self) -> [&[u8]; 2] {
        let of_body = self.written.saturating_sub(self.head.len());
        [&self.head[self.written.min(self.head.len())..], &self.body[of_body..]]
    }

    /// Writes on as far as the connection takes it. The task is woken when it takes more.
    pub(crate) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        if self.is_broken || self.is_done() {
            return;
        }
        let turn_end = self.written + TURN_BYTES;
        while self.written < self.head.len() + self.body.len() {
            if self.written >= turn_end {
                // An engine that reads as fast as this writes must not keep the worker to itself.
                cx.waker().wake_by_ref();
                return;
            }
            match stream.poll_write(cx, self.rest()) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.is_broken = true;
                    return;
                }
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Pending => break,
            }
        }
        match stream.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.is_flushed = true,
            Poll::Ready(Err(_)) => self.is_broken = true,
            Poll::Pending => {}
        }
    }
}

/// Sends a request and reads the head of the answer, until `timer` ends it. `to_head`: the request is a HEAD.
///
/// The engine may answer before it has taken all of the request: see [`Upload::is_done`].
pub(crate) async fn exchange(
    connection: &mut Connection,
    upload: &mut Upload,
    to_head: bool,
    timer: &Timer,
) -> Result<AnswerHead, ExchangeError> {
    let mut interim = Interim::default();
    poll_fn(|cx| {
        upload.poll(&mut connection.stream, cx);
        loop {
            let before = connection.buffer.len();
            match connection.stream.poll_read(cx, &mut connection.buffer) {
                Poll::Pending => return timer.poll(cx).map(|()| Err(ExchangeError::Timeout)),
                Poll::Ready(Ok(0) | Err(_)) => {
                    let is_begun = before > 0 || interim != Interim::default();
                    let lost = if is_begun { ExchangeError::Cut } else { ExchangeError::Unanswered };
                    return Poll::Ready(Err(lost));
                }
                Poll::Ready(Ok(_)) => match take_head(&mut connection.buffer, to_head, &mut interim) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(ExchangeError::Malformed)),
                },
            }
        }
    })
    .await
}

/// Waits for the next piece of an answer's body, until `timer` ends it. `None`: the body has ended.
///
/// What came with the head, or with the piece before, is taken without a system call.
pub(crate) async fn next_piece(
    connection: &mut Connection,
    upload: &mut Upload,
    framing: &mut Framing,
    timer: &Timer,
) -> Result<Option<Bytes>, ExchangeError> {
    poll_fn(|cx| {
        upload.poll(&mut connection.stream, cx);
        loop {
            match framing.take(&mut connection.buffer) {
                Ok(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Piece::End) => return Poll::Ready(Ok(None)),
                Ok(Piece::More) => {}
                Err(_) => return Poll::Ready(Err(ExchangeError::Malformed)),
            }
            match connection.stream.poll_read(cx, &mut connection.buffer) {
                Poll::Pending => return timer.poll(cx).map(|()| Err(ExchangeError::Timeout)),
                Poll::Ready(Ok(0)) if *framing == Framing::UntilClose => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(ExchangeError::Cut)),
                Poll::Ready(Ok(_)) => {}
            }
        }
    })
    .await
}
