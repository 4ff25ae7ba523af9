//! Reads a request's body, under limits on its size, its pace and the memory of all bodies together.
//!
//! A body that comes in one piece, as most do, stays where it was read; only one in several pieces is put together.

pub(crate) mod apart;
pub mod scan;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use domain::admission::{BodyBytes, BodyHold};
use domain::failure::FailureKind;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::clock::Timer;
use scan::Splice;

/// Bytes of memory that a body holds beyond what has come of it, whatever length it claims. A body that claims no more holds
/// its length at once.
const AHEAD_BYTES: u64 = 64 << 10;
/// How long a client may pause within a body, and how long a body may take at least.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Slowest pace of a body over all, bytes per millisecond.
const BODY_PACE_MIN: u64 = 1;

/// A body that has arrived whole.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    hold: BodyHold,
}

impl Body {
    /// The client's bytes, or those put in their place.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, shared and not copied. The memory is accounted for while the body lives.
    pub(crate) fn share(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether it is read apart from the worker.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() > apart::LARGE_BYTES
    }

    /// Puts a copy with other values of `model` in place of the client's bytes. While it is being made, both are held.
    ///
    /// Fails with `BodyMemory`, and nothing changes.
    pub(crate) fn rewrite(&mut self, splice: &Splice) -> Result<(), FailureKind> {
        let length = splice.length(self.bytes.len()) as u64;
        if !self.hold.try_grow(length) {
            return Err(FailureKind::BodyMemory);
        }
        self.bytes = splice.apply(&self.bytes).into();
        self.hold.shrink_to(length);
        Ok(())
    }
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    /// Bytes of this body.
    pub(crate) bytes_max: u64,
    /// All bodies of the process.
    pub(crate) memory: &'a BodyBytes,
    /// Whose body it is: its client has a share of the memory for bodies on their way.
    pub(crate) client: IpAddr,
}

/// Refuses what need not even be read: compressed bodies, and those that say they are too large.
pub(crate) fn inspect(headers: &HeaderMap, bytes_max: u64) -> Result<(), FailureKind> {
    for coding in headers.get_all(CONTENT_ENCODING) {
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
            return Err(FailureKind::BodyEncoded);
        }
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > bytes_max => Err(FailureKind::BodyTooLarge { limit_bytes: bytes_max }),
        _ => Ok(()),
    }
}

/// Reads a body to its end.
///
/// Fails with `BodyTooLarge`, `BodyMemory`, `BodyTimeout`, or `ClientGone` where the body broke off.
pub(crate) async fn read(
    mut incoming: Incoming,
    bounds: Bounds<'_>,
    timer: &Timer,
) -> Result<Body, FailureKind> {
    let expected = incoming.size_hint().exact().unwrap_or(0);
    let at_once = expected.min(AHEAD_BYTES).min(bounds.bytes_max);
    let hold = bounds.memory.try_hold(at_once).ok_or(FailureKind::BodyMemory)?;
    let mut coming = Coming { expected, bounds, hold, pieces: Pieces::default() };
    let start_ms = timer.clock().now_ms();
    timer.set_after(BODY_PAUSE_MAX);
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut incoming).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => timer.poll(cx).map(|()| Err(FailureKind::BodyTimeout)),
        });
        let data = match frame.await? {
            None => return Ok(coming.whole()),
            Some(Err(_)) => return Err(FailureKind::ClientGone),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers of a request concern no engine.
                Err(_) => continue,
            },
        };
        if coming.take(data)? {
            // The end is known without asking for it once more.
            return Ok(coming.whole());
        }
        let pause_ms = BODY_PAUSE_MAX.as_millis() as u64;
        let paced_ms = start_ms + pause_ms + coming.pieces.len() as u64 / BODY_PACE_MIN;
        timer.set_at(paced_ms.min(timer.clock().now_ms() + pause_ms));
    }
}

/// A body on its way, and the memory that it holds.
struct Coming<'a> {
    /// Its length as claimed; 0: unknown.
    expected: u64,
    bounds: Bounds<'a>,
    hold: BodyHold,
    pieces: Pieces,
}

impl Coming<'_> {
    /// Takes a piece. True if it was the last of a body of known length.
    fn take(&mut self, data: Bytes) -> Result<bool, FailureKind> {
        let length = (self.pieces.len() + data.len()) as u64;
        if length > self.bounds.bytes_max {
            return Err(FailureKind::BodyTooLarge { limit_bytes: self.bounds.bytes_max });
        }
        let is_last = length == self.expected;
        if !is_last && !self.hold.try_arrive_from(self.bounds.client) {
            return Err(FailureKind::BodyMemory);
        }
        if length > self.hold.held() && !self.grow(length) {
            return Err(FailureKind::BodyMemory);
        }
        self.pieces.add(data, self.expected);
        Ok(is_last)
    }

    /// Holds memory for `length` bytes, and for a step beyond where there is some.
    fn grow(&mut self, length: u64) -> bool {
        let ahead = length + AHEAD_BYTES;
        let ahead = if self.expected > length { ahead.min(self.expected) } else { ahead };
        let held = self.hold.held();
        self.hold.try_grow(ahead - held) || self.hold.try_grow(length - held)
    }

    fn whole(self) -> Body {
        let Self { mut hold, pieces, .. } = self;
        hold.arrived();
        hold.shrink_to(pieces.len() as u64);
        Body { bytes: pieces.together(), hold }
    }
}

/// What has come of a body.
#[derive(Debug, Default)]
struct Pieces {
    /// The first piece, while it is the only one.
    first: Bytes,
    /// All of them, from the second on.
    all: Vec<u8>,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn add(&mut self, piece: Bytes, expected: u64) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.reserve(self.first.len() + piece.len(), expected);
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        } else {
            self.reserve(piece.len(), expected);
        }
        self.all.extend_from_slice(&piece);
    }

    /// Makes room for `more` bytes and as much again as there is, but not beyond the claimed length. What is not yet written
    /// takes no memory.
    fn reserve(&mut self, more: usize, expected: u64) {
        if self.all.capacity() - self.all.len() >= more {
            return;
        }
        let length = self.all.len() + more;
        let doubled = (length * 2).max(AHEAD_BYTES as usize);
        let wanted = usize::try_from(expected).unwrap_or(usize::MAX);
        let room = if wanted >= length { doubled.min(wanted) } else { doubled };
        self.all.reserve_exact(room - self.all.len());
    }

    fn together(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}
