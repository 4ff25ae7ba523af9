//! One request over one connection, up to the head of its answer.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::Connection;
use super::codec::{AnswerHead, take_head};
use crate::clock::Timer;

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection ended before any byte of an answer.
    #[error("connection ended without an answer")]
    Unanswered,
    /// The connection ended within the head.
    #[error("connection ended within the head")]
    Cut,
    /// The answer is not HTTP.
    #[error("answer is not HTTP")]
    Malformed,
    /// The time was up.
    #[error("no answer in time")]
    Timeout,
}

/// Sends `request` (two pieces, in one write where it fits) and reads the head of the answer, until `timer` ends it.
///
/// An engine may answer before it has read everything. The answer counts, and the connection is then not kept.
/// Dropping this leaves the connection in the middle: it must be dropped as well.
pub(crate) async fn exchange(
    connection: &mut Connection,
    request: [&[u8]; 2],
    to_head: bool,
    timer: &Timer,
) -> Result<AnswerHead, ExchangeError> {
    let mut sending = Sending { rest: request, is_broken: false };
    poll_fn(|cx| {
        sending.poll(connection, cx);
        match poll_head(connection, to_head, cx) {
            Poll::Ready(Ok(mut head)) => {
                head.keep_alive &= sending.is_done();
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => timer.poll(cx).map(|()| Err(ExchangeError::Timeout)),
        }
    })
    .await
}

/// What of a request is on its way.
struct Sending<'a> {
    rest: [&'a [u8]; 2],
    /// Writing failed. Reading tells why: an answer may be there, else the end.
    is_broken: bool,
}

impl Sending<'_> {
    fn is_done(&self) -> bool {
        self.rest[0].is_empty() && self.rest[1].is_empty()
    }

    fn poll(&mut self, connection: &mut Connection, cx: &mut Context<'_>) {
        while !self.is_done() && !self.is_broken {
            match connection.stream.poll_write(cx, self.rest) {
                Poll::Ready(Ok(0) | Err(_)) => self.is_broken = true,
                Poll::Ready(Ok(written)) => {
                    let of_first = written.min(self.rest[0].len());
                    self.rest[0] = &self.rest[0][of_first..];
                    self.rest[1] = &self.rest[1][written - of_first..];
                }
                Poll::Pending => break,
            }
        }
        if !self.is_broken {
            self.is_broken = matches!(connection.stream.poll_flush(cx), Poll::Ready(Err(_)));
        }
    }
}

fn poll_head(
    connection: &mut Connection,
    to_head: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<AnswerHead, ExchangeError>> {
    loop {
        let before = connection.buffer.len();
        match connection.stream.poll_read(cx, &mut connection.buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => {
                let lost = if before == 0 { ExchangeError::Unanswered } else { ExchangeError::Cut };
                return Poll::Ready(Err(lost));
            }
            Poll::Ready(Ok(_)) => match take_head(&mut connection.buffer, to_head) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(ExchangeError::Malformed)),
            },
        }
    }
}
