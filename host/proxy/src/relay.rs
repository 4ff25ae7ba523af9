//! The engine's answer on its way to the client: chunk by chunk as it comes, each byte as it is.
//!
//! The body is polled by the client's connection and polls the engine's in the same task. Dropping it, as happens when the
//! client leaves, closes the engine's connection. An answer that breaks off breaks off for the client too: nothing is ever
//! faked to look like its end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::failure::FailureKind;
use domain::outcome::{Ending, computed_tokens};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};

use crate::dispatch::Won;
use crate::flight::Flight;
use crate::record::content::ContentWatch;
use crate::record::usage::{Shape, UsageWatch};
use crate::respond::X_REQUEST_ID;
use crate::upstream::{Framing, Piece};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Ours, whole.
    Full(Bytes),
    /// The engine's.
    Relay(Box<Relay>),
}

/// The engine's answer broke off; the client's connection must as well.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the engine's answer broke off")]
pub(crate) struct Broken;

/// An engine's answer being relayed, from its first byte on.
#[derive(Debug)]
pub(crate) struct Relay {
    /// `None` once the answer has ended.
    won: Option<Box<Won>>,
    framing: Framing,
    flight: Flight,
    status: u16,
    idle: Duration,
    usage: UsageWatch,
    content: ContentWatch,
}

/// The answer to the client, from the head and the first piece of the body that an engine sent.
pub(crate) fn answer(mut won: Box<Won>, flight: Flight, idle: Duration) -> Response<Answer> {
    let head = won.take_head();
    let mut headers = head.headers;
    let is_bodiless = head.framing == Framing::Length(0) && won.held.is_empty();
    if !is_bodiless && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    }
    headers.insert(X_REQUEST_ID, flight.request_id.clone());
    flight.label_answer(&mut headers, &won);
    let shape = Shape::of(&headers);
    let (usage, content) = (UsageWatch::new(shape), ContentWatch::new(shape));
    let status = head.status.as_u16();
    let mut relay = Relay { framing: head.framing, won: Some(won), flight, status, idle, usage, content };
    let body = if is_bodiless {
        relay.finish();
        Answer::Full(Bytes::new())
    } else {
        relay.flight.timer.set_after(idle);
        relay.flight.watch_client(idle);
        Answer::Relay(Box::new(relay))
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    response
}

impl Relay {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut has_read = false;
        loop {
            let Some(won) = &mut self.won else { return Poll::Ready(None) };
            if let Some(unsent) = &mut won.unsent {
                unsent.upload.poll(&mut won.connection.stream, cx);
                if unsent.upload.is_done() {
                    won.unsent = None;
                }
            }
            if !won.held.is_empty() {
                let data = won.held.remove(0);
                self.passed(&data);
                return Poll::Ready(Some(Ok(data)));
            }
            match self.framing.take(&mut won.connection.buffer) {
                Ok(Piece::Data(data)) => {
                    if !has_read {
                        // The client has taken what came before: that is progress as well.
                        self.flight.timer.set_after(self.idle);
                    }
                    self.passed(&data);
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Piece::End) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Piece::More) => {}
                Err(_) => return Poll::Ready(Some(Err(self.lose()))),
            }
            match won.connection.stream.poll_read(cx, &mut won.connection.buffer) {
                Poll::Ready(Ok(0)) if self.framing == Framing::UntilClose => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(self.lose()))),
                Poll::Ready(Ok(_)) => {
                    has_read = true;
                    self.flight.timer.set_after(self.idle);
                }
                Poll::Pending => {
                    return self.flight.timer.poll(cx).map(|()| Some(Err(self.lose())));
                }
            }
        }
    }

    /// How much is to come, where the engine said so.
    fn size_hint(&self) -> SizeHint {
        let held = self.won.iter().flat_map(|won| &won.held).map(Bytes::len).sum::<usize>();
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left + held as u64),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::new(),
        }
    }

    /// Accounts for data that goes to the client.
    fn passed(&mut self, data: &Bytes) {
        self.flight.response_bytes += data.len() as u64;
        self.flight.chunks += 1;
        self.usage.feed(data);
        let is_last = self.framing.is_ended() && self.won.as_ref().is_none_or(|won| won.held.is_empty());
        if self.flight.first_byte.is_none() && self.content.feed(data) {
            let now = Instant::now();
            self.flight.first_byte = Some(now);
            if is_last {
                self.flight.ended_at = Some(now);
            }
            if let Some(won) = &mut self.won {
                won.attempt.first_byte(now);
            }
        }
        if is_last {
            self.finish();
        }
    }

    /// The answer is complete: the connection may serve the next request.
    fn finish(&mut self) {
        let Some(mut won) = self.won.take() else { return };
        self.account(&won);
        won.attempt.completed(&self.flight, self.status);
        let ending = Ending::Answered { status: self.status };
        self.flight.finish_at(ending, won.attempt.record(), self.usage.events());
        if won.keep_alive && won.unsent.is_none() {
            self.flight.worker.upstream.give_back(won.connection);
        }
    }

    /// Notes what the engine reported up to here, and with it what it computed.
    fn account(&mut self, won: &Won) {
        self.flight.usage = self.usage.usage();
        let ended = (self.status, self.usage.events());
        won.attempt.computed(computed_tokens(won.attempt.uncached_tokens(), self.flight.usage, ended));
    }

    /// The answer broke off.
    fn lose(&mut self) -> Broken {
        if let Some(mut won) = self.won.take() {
            self.account(&won);
            won.attempt.lost();
            let ending = Ending::Failed { failure: FailureKind::LostMidway.into(), status: 0 };
            self.flight.finish_at(ending, won.attempt.record(), self.usage.events());
        }
        Broken
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The client left. What the engine reported up to here is known all the same.
        if let Some(won) = self.won.take() {
            self.account(&won);
            self.flight.finish_at(Ending::ClientGone, won.attempt.record(), self.usage.events());
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Relay(relay) => relay.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.won.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}
