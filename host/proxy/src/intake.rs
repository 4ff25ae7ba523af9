//! Reads a request's body, under limits on its size, its pace and the memory of all bodies together.
//!
//! A body that comes in one piece, as most do, stays where it was read; only one in several pieces is put together.

pub mod scan;

use std::future::poll_fn;
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

/// Bytes set aside for a body before any of it came, whatever length it claims.
const AHEAD_BYTES_MAX: usize = 1 << 20;
/// How long a client may pause within a body, and how long a body may take at least.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Slowest pace of a body over all, bytes per millisecond.
const BODY_PACE_MIN: u64 = 1;

/// A body that has arrived whole.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    _hold: BodyHold,
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

    /// Puts other bytes in place of the client's.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes.into();
    }
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    /// Bytes of this body.
    pub(crate) bytes_max: u64,
    /// All bodies of the process.
    pub(crate) memory: &'a BodyBytes,
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
    let mut hold = bounds.memory.try_hold(expected.min(bounds.bytes_max)).ok_or(FailureKind::BodyMemory)?;
    let mut pieces = Pieces::default();
    let start_ms = timer.clock().now_ms();
    timer.set_after(BODY_PAUSE_MAX);
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut incoming).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => timer.poll(cx).map(|()| Err(FailureKind::BodyTimeout)),
        });
        let data = match frame.await? {
            None => return Ok(Body { bytes: pieces.together(), _hold: hold }),
            Some(Err(_)) => return Err(FailureKind::ClientGone),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers of a request concern nobody behind us.
                Err(_) => continue,
            },
        };
        let length = (pieces.len() + data.len()) as u64;
        if length > bounds.bytes_max {
            return Err(FailureKind::BodyTooLarge { limit_bytes: bounds.bytes_max });
        }
        if length > hold.held() && !hold.try_grow(length - hold.held()) {
            return Err(FailureKind::BodyMemory);
        }
        if length == expected {
            // The end is known without asking for it once more.
            pieces.add(data, length);
            return Ok(Body { bytes: pieces.together(), _hold: hold });
        }
        pieces.add(data, expected);
        let pause_ms = BODY_PAUSE_MAX.as_millis() as u64;
        let paced_ms = start_ms + pause_ms + length / BODY_PACE_MIN;
        timer.set_at(paced_ms.min(timer.clock().now_ms() + pause_ms));
    }
}

/// A body on its way.
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
            let ahead =
                usize::try_from(expected).map_or(AHEAD_BYTES_MAX, |length| length.min(AHEAD_BYTES_MAX));
            self.all.reserve(ahead.max(self.first.len() + piece.len()));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn together(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}
