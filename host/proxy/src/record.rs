//! What every request leaves behind: counters, one log line, one entry in the decision log.
//!
//! A worker has one [`Recorder`]. Its cells are written by that worker only, with plain loads and stores, and read by
//! [`crate::metrics::Collector`]. A lock is taken when a worker meets a pool or an endpoint for the first time, never
//! else. Neither prompts nor headers nor tokens are kept anywhere.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use domain::endpoint::Endpoint;
use domain::failure::Failure;
use domain::name::{Generation, ModelName, ObjectName};
use domain::outcome::{Ending, Outcome};
use domain::policy::EntryTrace;
use domain::pool::{Pool, PoolKey};
use domain::snapshot::Snapshot;

use crate::explain;
use crate::metrics::Board;

pub(crate) mod cells;
pub(crate) mod content;
pub(crate) mod decisions;
pub(crate) mod health;
mod line;
pub mod usage;
pub(crate) mod window;

#[cfg(test)]
mod tests;

use cells::{PairCells, ServerCells, WorkerCells};
use decisions::PoolCells;

/// What is recorded of one decision, taken or tried.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The pool chosen from.
    pub pool: &'a Pool,
    /// The snapshot's generation.
    pub generation: Generation,
    /// 0 the first time.
    pub attempt: u32,
    /// Endpoints that could be chosen.
    pub candidates: u32,
    /// Estimated prompt length, tokens.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that the chosen endpoint is believed to hold.
    pub cached_tokens: u32,
    /// Index of the endpoint that the request goes to; `None`: turned away.
    pub endpoint: Option<u32>,
    /// What each entry of the chain did.
    pub traces: &'a [EntryTrace],
    /// What deciding took.
    pub took: Duration,
    /// What the policies saw.
    pub(crate) seen: &'a explain::Seen,
}

/// What is recorded at the end of a request.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The operation's label.
    pub operation: &'static str,
    /// The gateway, once known.
    pub gateway: Option<&'a ObjectName>,
    /// The routed model, once known.
    pub model: Option<&'a ModelName>,
    /// The last attempt at an engine, if one was made.
    pub attempt: Option<&'a Attempt>,
    /// Events of the answer where it was a stream of them ([`usage::UsageWatch::events`]); else 0.
    pub events: u64,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Milliseconds on the gateway's clock.
    pub now_ms: u64,
}

/// One worker's recorder. Stays on that worker's thread.
#[derive(Debug)]
pub struct Recorder {
    board: Arc<Board>,
    cells: Arc<WorkerCells>,
    known: RefCell<Known>,
    log: explain::Pen,
}

/// Most earlier cells that one worker keeps, about 2 KiB each; beyond, the oldest are forgotten and a counter starts anew.
const RETIRED_MAX: usize = 512;

/// Cells that this worker has met. Dropping one from here, and from all requests that hold it, forgets it.
#[derive(Debug, Default)]
struct Known {
    pools: HashMap<PoolKey, Arc<PoolCells>, KeyHash>,
    /// Earlier cells of pools that live on, oldest first: counters go on over a swap, and over the swap back.
    retired: VecDeque<(PoolKey, Arc<PoolCells>)>,
    pairs: HashMap<(PoolKey, u32), Arc<PairCells>, KeyHash>,
    servers: HashMap<u32, Arc<ServerCells>, KeyHash>,
    incoming: HashMap<ModelName, Arc<cells::ModelCells>>,
}

/// Hashes keys that are numbers of ours, on which nobody outside has a hold: a multiplication instead of a cipher.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

type KeyHash = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        // The high bits must depend on all of the key: the table takes its tags from there.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
}

impl Recorder {
    /// A recorder for one worker, seen by the collector of `board` from now on.
    pub fn new(board: &Arc<Board>, worker: usize) -> Self {
        Self {
            board: Arc::clone(board),
            cells: board.enter(worker),
            known: RefCell::default(),
            log: board.log().pen(),
        }
    }

    /// Lets go of what a newer snapshot does not hold any more. Call once per worker and snapshot.
    pub fn adopt(&self, snapshot: &Snapshot) {
        let mut known = self.known.borrow_mut();
        let keys: HashMap<PoolKey, &Pool> = snapshot.pools.iter().map(|pool| (pool.key, &**pool)).collect();
        let mut slots: Vec<u32> = snapshot.endpoints.iter().map(|endpoint| endpoint.state.slot).collect();
        slots.sort_unstable();
        let lives = |slot: u32| slots.binary_search(&slot).is_ok();
        // Of a pool that lives on with another chain or other endpoints, what was counted still counts.
        let (current, changed) =
            known.pools.drain().partition::<HashMap<_, _, KeyHash>, _>(|(key, cells)| {
                keys.get(key).is_none_or(|pool| cells.labels.is_of(pool))
            });
        known.pools = current;
        known.retired.extend(changed);
        known.pools.retain(|key, _| keys.contains_key(key));
        known.retired.retain(|(key, _)| keys.contains_key(key));
        let surplus = known.retired.len().saturating_sub(RETIRED_MAX);
        known.retired.drain(..surplus);
        known.pairs.retain(|(key, slot), _| keys.contains_key(key) && lives(*slot));
        known.servers.retain(|slot, _| lives(*slot));
        known.incoming.retain(|model, _| snapshot.gateway_by_model(model.as_str()).is_some());
    }

    /// A request is accepted: counts as in flight on this worker until the guard is dropped.
    pub fn accept(&self) -> Accepted {
        self.cells.in_flight.add(1);
        Accepted(Arc::clone(&self.cells))
    }

    /// A request for a model has arrived; `None` for a model that nobody routes. Call before 404 and 503 are decided.
    pub fn incoming(&self, model: Option<&ModelName>) {
        let Some(model) = model else { return self.cells.incoming_other.add(1) };
        let mut known = self.known.borrow_mut();
        if let Some(cells) = known.incoming.get(model) {
            return cells.requests.add(1);
        }
        let cells = self.board.model(model);
        cells.requests.add(1);
        known.incoming.insert(model.clone(), cells);
    }

    /// How many policy instances this worker keeps.
    pub fn set_policy_instances(&self, count: usize) {
        self.cells.policy_instances.set(count as u64);
    }

    /// A decision was taken. Returns where it is kept, for [`Self::tried`].
    pub(crate) fn decided(&self, decision: &Decision<'_>) -> explain::Mark {
        let pool = self.pool(decision.pool);
        pool.decided(decision);
        self.log.write(decision, &pool.labels)
    }

    /// An attempt that followed from a decision has ended.
    pub(crate) fn tried(&self, mark: explain::Mark, tried: explain::Tried) {
        self.log.tried(mark, tried);
    }

    /// A request goes to an endpoint. It counts as in prefill there until its first byte, as in decoding until the drop.
    pub fn attempt(&self, pool: &Pool, endpoint: &Endpoint, now_ms: u64) -> Attempt {
        let pair = self.pair(pool, endpoint);
        pair.server.window.arrived(now_ms);
        pair.server.prefill.add(1);
        Attempt { pair, decoding: false }
    }

    /// A request has ended.
    pub fn finished(&self, end: &End<'_>) {
        let outcome = end.outcome;
        let (status, failure) = match &outcome.ending {
            Ending::Answered { status } | Ending::Local { status } => (*status, None),
            Ending::Failed { failure, status } => (*status, Some(failure.label())),
            Ending::ClientGone => (0, Some(CLIENT_GONE)),
        };
        self.cells.ended(status, failure);
        if let Some(attempt) = end.attempt {
            attempt.pair.ended(end, failure.or((status >= 500).then_some(STATUS)));
        }
        self.cells.retries.add(u64::from(outcome.attempts.saturating_sub(1)));
        line::write(end, status, failure);
    }

    fn pool(&self, pool: &Pool) -> Arc<PoolCells> {
        let mut known = self.known.borrow_mut();
        if let Some(cells) = known.pools.get(&pool.key).filter(|cells| cells.labels.is_of(pool)) {
            return Arc::clone(cells);
        }
        let back = known.retired.iter().position(|(key, cells)| *key == pool.key && cells.labels.is_of(pool));
        let cells = match back.and_then(|index| known.retired.remove(index)) {
            Some((_, cells)) => cells,
            None => self.board.pool(pool),
        };
        if let Some(old) = known.pools.insert(pool.key, Arc::clone(&cells)) {
            known.retired.push_back((pool.key, old));
        }
        cells
    }

    fn pair(&self, pool: &Pool, endpoint: &Endpoint) -> Arc<PairCells> {
        let mut known = self.known.borrow_mut();
        let slot = endpoint.state.slot;
        if let Some(pair) = known.pairs.get(&(pool.key, slot)) {
            return Arc::clone(pair);
        }
        let server = match known.servers.get(&slot) {
            Some(server) => Arc::clone(server),
            None => {
                let server = self.board.server(slot);
                known.servers.insert(slot, Arc::clone(&server));
                server
            }
        };
        let pair = self.board.pair(pool, endpoint, server);
        known.pairs.insert((pool.key, slot), Arc::clone(&pair));
        pair
    }
}

/// The label of requests whose client left.
const CLIENT_GONE: &str = "client_gone";
/// The label of answers with a status of 500 or more.
const STATUS: &str = "status";

/// A request in flight on a worker.
#[derive(Debug)]
pub struct Accepted(Arc<WorkerCells>);

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.in_flight.sub(1);
    }
}

/// A request at an endpoint, counted there until it is dropped.
#[derive(Debug)]
pub struct Attempt {
    pair: Arc<PairCells>,
    decoding: bool,
}

impl Attempt {
    /// The first byte of the answer's body is here: from prefill to decoding.
    pub fn first_byte(&mut self) {
        if !std::mem::replace(&mut self.decoding, true) {
            self.pair.server.prefill.sub(1);
            self.pair.server.decoding.add(1);
        }
    }

    /// The attempt failed and another endpoint is tried: counted as an error of this one.
    pub fn failed(&self, failure: &Failure) {
        self.pair.failed(failure.label());
    }

    /// The endpoint's URL.
    pub fn url(&self) -> &Arc<str> {
        &self.pair.url
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let server = &self.pair.server;
        if self.decoding { server.decoding.sub(1) } else { server.prefill.sub(1) }
    }
}
