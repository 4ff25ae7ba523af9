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

/// The last requests received.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) requests: VecDeque<Received>,
    pub(super) probes: VecDeque<Received>,
    next_id: u64,
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
            let entries = if self.is_probe { &mut log.probes } else { &mut log.requests };
            if entries.len() == max {
                entries.pop_front();
            }
            entries.push_back(Received { id, ..request() });
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
        let entries = if self.is_probe { &mut log.probes } else { &mut log.requests };
        // Ids ascend; an entry may have left the bounded log.
        if let Ok(at) = entries.binary_search_by_key(&id, |entry| entry.id) {
            change(&mut entries[at]);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Outcome::Aborted);
    }
}
