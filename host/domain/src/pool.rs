//! A pool: the endpoints that serve one model of one gateway, and the chain that chooses among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::endpoint::{Endpoint, Endpoints};
use crate::grudge::Grudges;
use crate::name::{ModelName, ObjectName};
use crate::policy::{EntrySpec, Prepared, Wants};
use crate::prefix::SlotMap;
use crate::ring::LazyRing;

/// What a pool is, over generations: a hash of gateway, service and model. Keys tickets, prefix entries and instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey(pub u64);

impl PoolKey {
    /// The key of the pool of `model` in `gateway`.
    pub fn of(gateway: &ObjectName, model: &ModelName) -> Self {
        let text = format!("{}\0{}\0{}", gateway.namespace, gateway.name, model);
        Self(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }
}

/// State of a pool that outlives generations: a swap loses neither rotation nor affinity.
#[derive(Debug, Default)]
pub struct PoolState {
    tickets: AtomicU64,
    /// Which endpoints failed which prompts and sessions of late.
    pub grudges: Grudges,
}

impl PoolState {
    /// The next request's position in the pool, from 0.
    pub fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed)
    }
}

/// The endpoints of one model of one gateway.
#[derive(Debug)]
pub struct Pool {
    /// Identity over generations.
    pub key: PoolKey,
    /// Hash of everything a policy learns in `sync`: changes exactly when instances must be made anew.
    pub signature: u64,
    /// The gateway.
    pub gateway: ObjectName,
    /// The model, as the engines know it.
    pub model: ModelName,
    /// Endpoints, sorted by URL; a policy's index counts here.
    pub endpoints: Endpoints,
    /// Endpoint by slot number, for the prefix index.
    pub slots: SlotMap,
    /// The session ring over the endpoints' URLs, built on first use.
    pub ring: Arc<LazyRing>,
    /// The chain.
    pub chain: Chain,
    /// What outlives generations.
    pub state: Arc<PoolState>,
}

impl Pool {
    /// The endpoint at `index`, if there is one.
    pub fn endpoint(&self, index: u32) -> Option<&Endpoint> {
        self.endpoints.get(index as usize)
    }
}

/// A policy chain, as it is in force.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Entries in order.
    pub entries: Box<[Entry]>,
    /// What has to be gathered before it is asked.
    pub wants: Wants,
}

impl Chain {
    /// A chain of these entries.
    pub fn new(entries: Vec<Entry>) -> Self {
        let wants = Wants::of(&entries);
        Self { entries: entries.into(), wants }
    }
}

/// One entry of a chain.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was asked for.
    pub spec: Arc<EntrySpec>,
    /// What decides. `None`: left out, as it is not ready and this pool never had a chain that was.
    pub prepared: Option<Arc<dyn Prepared>>,
}
