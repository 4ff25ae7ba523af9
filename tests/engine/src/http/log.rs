//! What the engine received and how each request ended, with ways to wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::Shared;
use super::wire::lock;

/// One request as it arrived, and how it ended.
#[derive(Debug, Clone)]
pub struct Received {
    /// Counted from zero over the life of the engine, in the order in which bodies were complete.
    pub id: u64,
    /// Which connection, counted from zero in the order of acceptance.
    pub connection: u64,
    /// Which request on that connection, counted from one.
    pub on_connection: u32,
    /// When its body was complete, since the engine started.
    pub at: Duration,
    /// As received.
    pub method: Method,
    /// Path and query as received.
    pub target: String,
    /// As received.
    pub headers: HeaderMap,
    /// The body, cut at [`super::Config::log_body_bytes_max`].
    pub body: Bytes,
    /// How long the body was.
    pub body_bytes: u64,
    /// The status answered, if it came that far.
    pub status: Option<StatusCode>,
    /// Body bytes handed to the connection.
    pub sent_bytes: u64,
    /// Body pieces handed to the connection: chunks, for a stream.
    pub sent_chunks: u32,
    /// When each piece was handed over, if [`super::Config::log_chunk_times`].
    pub chunk_times: Vec<Duration>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, since the engine started.
    pub ended_at: Option<Duration>,
}

impl Received {
    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Open,
    /// Its whole answer was handed to the connection.
    Finished,
    /// The client left first.
    Aborted,
    /// A scripted fault ended it.
    Faulted,
}

/// Numbers that only grow, but for those that say otherwise. Probes (GET, and the engine's own control paths) have their
/// own count and touch no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Requests whose body is complete.
    pub received: u64,
    /// Requests being answered now (their body may still be on its way).
    pub in_flight: u64,
    /// The most at one time.
    pub in_flight_max: u64,
    /// Requests answered to the end.
    pub finished: u64,
    /// Requests whose client left before the end.
    pub aborted: u64,
    /// Requests a scripted fault ended.
    pub faulted: u64,
    /// Probes received.
    pub probes: u64,
}

impl Counts {
    pub(super) fn connections_closed(&self) -> u64 {
        self.connections - self.connections_open
    }
}

/// The last requests received, and the last probes.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) requests: Kept,
    pub(super) probes: Kept,
    next_id: u64,
}

/// Entries by ascending id, the oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    entries: VecDeque<Received>,
    body_bytes: usize,
}

/// Bodies kept in one list.
const KEPT_BYTES_MAX: usize = 64 << 20;

impl Kept {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Received> {
        self.entries.iter()
    }

    pub(super) fn last(&self) -> Option<&Received> {
        self.entries.back()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps an entry and forgets what is then too much; the newest always stays.
    fn push(&mut self, entry: Received, (entries_max, bytes_max): (usize, usize)) {
        self.body_bytes += entry.body.len();
        self.entries.push_back(entry);
        while self.entries.len() > 1 && (self.entries.len() > entries_max || self.body_bytes > bytes_max) {
            self.body_bytes -= self.entries.pop_front().map_or(0, |entry| entry.body.len());
        }
    }

    fn find(&mut self, id: u64) -> Option<&mut Received> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get_mut(at)
    }
}

impl Log {
    fn kept(&mut self, is_probe: bool) -> &mut Kept {
        if is_probe { &mut self.probes } else { &mut self.requests }
    }
}

/// Owns one request from its head to its end; dropped before [`Open::end`], it was aborted by the client.
#[derive(Debug)]
pub(super) struct Open {
    shared: Arc<Shared>,
    control: Arc<super::wire::Control>,
    is_probe: bool,
    /// Its entry in the log, once there is one.
    entry: Option<u64>,
    pub(super) sent_bytes: u64,
    pub(super) sent_chunks: u32,
    ended: bool,
}

impl Open {
    pub(super) fn new(shared: &Arc<Shared>, control: &Arc<super::wire::Control>, is_probe: bool) -> Self {
        control.open.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !is_probe {
            shared.counts.send_modify(|counts| {
                counts.in_flight += 1;
                counts.in_flight_max = counts.in_flight_max.max(counts.in_flight);
            });
        }
        Self {
            shared: shared.clone(),
            control: control.clone(),
            is_probe,
            entry: None,
            sent_bytes: 0,
            sent_chunks: 0,
            ended: false,
        }
    }

    /// Enters the complete request into the log.
    pub(super) fn receive(&mut self, request: impl FnOnce() -> Received) {
        let max = self.shared.config.log_max;
        if max > 0 {
            let mut log = lock(&self.shared.log);
            let id = log.next_id;
            log.next_id += 1;
            let entry = Received { id, ..request() };
            log.kept(self.is_probe).push(entry, (max, KEPT_BYTES_MAX));
            self.entry = Some(id);
        }
        self.shared.counts.send_modify(|counts| match self.is_probe {
            true => counts.probes += 1,
            false => counts.received += 1,
        });
    }

    pub(super) fn note_chunk(&self) {
        if self.shared.config.log_chunk_times {
            let at = self.shared.elapsed();
            self.update(|entry| entry.chunk_times.push(at));
        }
    }

    pub(super) fn answer(&self, status: StatusCode) {
        self.update(|entry| entry.status = Some(status));
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let at = self.shared.elapsed();
        let (bytes, chunks) = (self.sent_bytes, self.sent_chunks);
        self.update(|entry| {
            entry.outcome = outcome;
            entry.sent_bytes = bytes;
            entry.sent_chunks = chunks;
            entry.ended_at = Some(at);
        });
        self.control.open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        self.control.ended.notify_one();
        if self.is_probe {
            return;
        }
        self.shared.counts.send_modify(|counts| {
            counts.in_flight -= 1;
            match outcome {
                Outcome::Finished => counts.finished += 1,
                Outcome::Faulted => counts.faulted += 1,
                Outcome::Aborted | Outcome::Open => counts.aborted += 1,
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut Received)) {
        let Some(id) = self.entry else { return };
        let mut log = lock(&self.shared.log);
        // The entry may be forgotten already.
        if let Some(entry) = log.kept(self.is_probe).find(id) {
            change(entry);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Outcome::Aborted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, body: usize) -> Received {
        Received {
            id,
            connection: 0,
            on_connection: 1,
            at: Duration::ZERO,
            method: Method::POST,
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            body: vec![0; body].into(),
            body_bytes: body as u64,
            status: None,
            sent_bytes: 0,
            sent_chunks: 0,
            chunk_times: Vec::new(),
            outcome: Outcome::Open,
            ended_at: None,
        }
    }

    #[test]
    fn log_forgets_the_oldest_beyond_its_bounds_but_never_the_newest() {
        let mut kept = Kept::default();
        for (body, expected) in [
            (1, vec![0]),
            (1, vec![0, 1]),
            (1, vec![0, 1, 2]),
            (1, vec![1, 2, 3]),
            (9, vec![3, 4]),
            (99, vec![5]),
            (1, vec![6]),
        ] {
            let id = kept.last().map_or(0, |last| last.id + 1);
            kept.push(entry(id, body), (3, 10));
            assert_eq!(kept.iter().map(|entry| entry.id).collect::<Vec<_>>(), expected);
        }
        assert!(kept.find(5).is_none());
        assert_eq!(kept.find(6).unwrap().id, 6);
    }
}
