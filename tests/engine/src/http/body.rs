//! The body of an answer: tracks how much was sent and whether the client stayed, and carries faults of the body.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::log::{Open, Outcome};
use super::wire::Control;

/// Where the bytes come from.
pub(super) enum Source {
    /// All there already; has a length.
    Whole(Bytes),
    /// Pieces as they come.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// What a fault does to a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BodyFault {
    /// Send so many bytes, then …
    pub(super) limit: Option<u64>,
    /// … hang rather than close.
    pub(super) stall: bool,
    /// Wait before each piece.
    pub(super) pause: Option<Duration>,
    /// Hide the length of a whole body and send it in pieces of at most so many bytes.
    pub(super) piece_bytes: Option<usize>,
}

/// The body hyper sends.
pub(super) struct AnswerBody {
    pieces: VecDeque<Bytes>,
    stream: Option<Pin<Box<dyn Stream<Item = Bytes> + Send>>>,
    fault: BodyFault,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the pause before the next piece is over.
    paused: bool,
    flushed: bool,
    open: Open,
    control: Arc<Control>,
    has_length: bool,
}

impl AnswerBody {
    pub(super) fn new(source: Source, fault: BodyFault, open: Open, control: Arc<Control>) -> Self {
        let has_length = matches!(source, Source::Whole(_)) && fault.piece_bytes.is_none();
        let (pieces, stream) = match source {
            Source::Whole(bytes) => (split(bytes, fault.piece_bytes), None),
            Source::Stream(stream) => (VecDeque::new(), Some(stream)),
        };
        let mut body = Self {
            pieces,
            stream,
            fault,
            sleep: None,
            paused: false,
            flushed: false,
            open,
            control,
            has_length,
        };
        if body.is_done() {
            body.open.end(Outcome::Finished);
        }
        body
    }

    fn is_done(&self) -> bool {
        self.pieces.is_empty() && self.stream.is_none() && self.fault.limit.is_none()
    }

    /// Waits until everything so far is in the socket, so that a cut falls exactly where it was asked for.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.flushed && !self.control.is_blocked() {
            return Poll::Ready(());
        }
        // Hyper flushes when a body is pending; come back a moment later to see whether it could.
        self.flushed = true;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(1))));
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        match self.control.is_blocked() {
            true => self.poll_flushed(cx),
            false => Poll::Ready(()),
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pause) = self.fault.pause.filter(|_| !self.paused) else { return Poll::Ready(()) };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        self.paused = true;
        Poll::Ready(())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(piece));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let piece = ready!(stream.as_mut().poll_next(cx));
        if piece.is_none() {
            self.stream = None;
        }
        Poll::Ready(piece)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.fault.limit == Some(0) {
            if this.fault.stall {
                return Poll::Pending;
            }
            ready!(this.poll_flushed(cx));
            this.open.end(Outcome::Faulted);
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        ready!(this.poll_pause(cx));
        let Some(mut piece) = ready!(this.poll_piece(cx)) else {
            // A limit beyond the end of the body: nothing was cut.
            this.open.end(Outcome::Finished);
            return Poll::Ready(None);
        };
        this.paused = false;
        if let Some(limit) = &mut this.fault.limit {
            piece.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
            *limit -= piece.len() as u64;
        }
        this.open.sent_bytes += piece.len() as u64;
        this.open.sent_chunks += 1;
        this.open.note_chunk();
        if this.is_done() {
            this.open.end(Outcome::Finished);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.has_length {
            true => SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum()),
            false => SizeHint::default(),
        }
    }
}

/// A body that is all there, for when the rest must be written by hand.
pub(super) async fn collect(source: Source) -> Bytes {
    use futures::StreamExt as _;
    match source {
        Source::Whole(bytes) => bytes,
        Source::Stream(stream) => stream.collect::<Vec<Bytes>>().await.concat().into(),
    }
}

fn split(mut bytes: Bytes, piece_bytes: Option<usize>) -> VecDeque<Bytes> {
    let size = piece_bytes.unwrap_or(usize::MAX).max(1);
    let mut pieces = VecDeque::new();
    while bytes.len() > size {
        pieces.push_back(bytes.split_to(size));
    }
    if !bytes.is_empty() {
        pieces.push_back(bytes);
    }
    pieces
}
