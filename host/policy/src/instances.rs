//! The instances of one worker: one per pool, place in the chain and policy, kept from request to request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use domain::pool::{Entry, Pool, PoolKey};

use crate::backoff::Backoff;
use crate::instance::Instance;
use crate::rank::Common;
use crate::ready::Ready;

/// Generations of a pool whose instances live side by side: the one in force, and the one that requests in flight still
/// read.
const GENERATIONS_MAX: usize = 2;

/// All instances of one worker.
pub(crate) struct Instances {
    pools: HashMap<PoolKey, PoolInstances, BuildHasherDefault<KeyHasher>>,
    live: usize,
    live_max: usize,
    /// Counts calls: what was used least recently has the smallest number.
    tick: u64,
}

/// The instances of one pool, over generations.
#[derive(Default)]
pub(crate) struct PoolInstances {
    generations: Vec<Generation>,
    /// Entries that failed lately; usually none.
    backoffs: Vec<((usize, u64), Backoff)>,
}

/// The instances of one pool as it was at one time.
struct Generation {
    signature: u64,
    used: u64,
    common: Common,
    places: Vec<Place>,
}

/// One entry's place in the chain.
#[derive(Default)]
pub(crate) struct Place {
    /// Which policy the instance is of; 0 for none.
    ready: u64,
    instance: Option<Instance>,
}

/// A pool's instances, for the time of one decision.
pub(crate) struct Bench<'a> {
    /// What the pool's endpoints have in common.
    pub(crate) common: Common,
    places: &'a mut [Place],
    backoffs: &'a mut Vec<((usize, u64), Backoff)>,
    live: &'a mut usize,
}

impl Instances {
    /// At most `live_max` instances, and at least one.
    pub(crate) fn new(live_max: usize) -> Self {
        Self { pools: HashMap::default(), live: 0, live_max: live_max.max(1), tick: 0 }
    }

    /// How many are live.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The instances of `pool`, with room for those that are missing.
    pub(crate) fn enter(&mut self, pool: &Pool) -> Bench<'_> {
        self.tick += 1;
        let len = pool.chain.entries.len();
        // Room for a whole chain, so that none is dropped while it is on the bench.
        if self.live + len > self.live_max && !self.is_complete(pool) {
            self.evict(pool.key, len);
        }
        let instances = self.pools.entry(pool.key).or_default();
        let at = instances.generation(pool, &mut self.live);
        let generation = &mut instances.generations[at];
        generation.used = self.tick;
        if generation.places.len() < len {
            generation.places.resize_with(len, Place::default);
        }
        Bench {
            common: generation.common,
            places: &mut generation.places,
            backoffs: &mut instances.backoffs,
            live: &mut self.live,
        }
    }

    /// Drops what none of these pools needs.
    pub(crate) fn retain(&mut self, live: &[Arc<Pool>]) {
        let wanted: HashMap<PoolKey, &Arc<Pool>> = live.iter().map(|pool| (pool.key, pool)).collect();
        let count = &mut self.live;
        self.pools.retain(|key, instances| {
            let Some(pool) = wanted.get(key) else {
                *count -= instances.count();
                return false;
            };
            instances.retain(pool, count);
            true
        });
    }

    /// Whether every entry of the pool has its instance.
    fn is_complete(&self, pool: &Pool) -> bool {
        let generations = self.pools.get(&pool.key).map_or(&[][..], |instances| &instances.generations);
        let Some(generation) = generations.iter().find(|generation| generation.signature == pool.signature)
        else {
            return false;
        };
        let fits = |(place, entry): (usize, &Entry)| {
            let place = generation.places.get(place);
            ready(entry)
                .is_none_or(|ready| place.is_some_and(|p| p.ready == ready.id && p.instance.is_some()))
        };
        pool.chain.entries.iter().enumerate().all(fits)
    }

    /// Drops the least recently used, an eighth at a time, so that finding them costs little per instance.
    fn evict(&mut self, keep: PoolKey, room: usize) {
        let mut used: Vec<(u64, PoolKey)> = self
            .pools
            .iter()
            .filter(|(key, _)| **key != keep)
            .map(|(key, instances)| (instances.last_used(), *key))
            .collect();
        used.sort_unstable();
        let target = (self.live_max - self.live_max / 8).saturating_sub(room);
        for (_, key) in used {
            if self.live <= target {
                return;
            }
            if let Some(dropped) = self.pools.remove(&key) {
                self.live -= dropped.count();
            }
        }
    }
}

impl PoolInstances {
    /// Index of the generation of this pool's signature, made if it is new; the oldest makes room.
    fn generation(&mut self, pool: &Pool, live: &mut usize) -> usize {
        let signature = pool.signature;
        if let Some(at) = self.generations.iter().position(|generation| generation.signature == signature) {
            return at;
        }
        if self.generations.len() == GENERATIONS_MAX {
            let used = self.generations.iter().map(|generation| generation.used);
            if let Some((oldest, _)) = used.enumerate().min_by_key(|(_, used)| *used) {
                *live -= self.generations.swap_remove(oldest).count();
            }
        }
        self.generations.push(Generation {
            signature,
            used: 0,
            common: Common::of(pool),
            places: Vec::new(),
        });
        self.generations.len() - 1
    }

    fn retain(&mut self, pool: &Pool, live: &mut usize) {
        self.generations.retain(|generation| {
            let current = generation.signature == pool.signature;
            *live -= if current { 0 } else { generation.count() };
            current
        });
        let id = |place: usize| pool.chain.entries.get(place).and_then(ready).map(|ready| ready.id);
        for generation in &mut self.generations {
            for (at, place) in generation.places.iter_mut().enumerate() {
                if id(at) != Some(place.ready) && place.instance.take().is_some() {
                    *live -= 1;
                }
            }
            generation.places.truncate(pool.chain.entries.len());
        }
        self.backoffs.retain(|((place, ready), _)| id(*place) == Some(*ready));
    }

    fn count(&self) -> usize {
        self.generations.iter().map(Generation::count).sum()
    }

    fn last_used(&self) -> u64 {
        self.generations.iter().map(|generation| generation.used).max().unwrap_or(0)
    }
}

impl Generation {
    fn count(&self) -> usize {
        self.places.iter().filter(|place| place.instance.is_some()).count()
    }
}

impl Bench<'_> {
    /// The instance of this policy at this place; one that `start` makes, if there is none.
    pub(crate) fn instance<E>(
        &mut self,
        place: usize,
        ready: &Ready,
        start: impl FnOnce() -> Result<Instance, E>,
    ) -> Result<&mut Instance, E> {
        if self.places[place].ready != ready.id {
            self.drop_instance(place);
        }
        let Place { ready: id, instance } = &mut self.places[place];
        match instance {
            Some(instance) => Ok(instance),
            None => {
                let made = instance.insert(start()?);
                *id = ready.id;
                *self.live += 1;
                Ok(made)
            }
        }
    }

    /// Drops the instance at this place: after an error it may be unusable.
    pub(crate) fn drop_instance(&mut self, place: usize) {
        if self.places[place].instance.take().is_some() {
            *self.live -= 1;
        }
    }

    /// Whether the entry is left alone at `now_ms` after too many faults.
    pub(crate) fn is_skipping(&self, place: usize, ready: &Ready, now_ms: u64) -> bool {
        self.backoffs.iter().any(|(key, backoff)| *key == (place, ready.id) && backoff.is_skipping(now_ms))
    }

    /// Counts a fault of an entry. Returns for how many milliseconds it is skipped, if it is from now on.
    pub(crate) fn fault(&mut self, place: usize, ready: &Ready, now_ms: u64) -> Option<u64> {
        self.drop_instance(place);
        self.backoffs.retain(|(_, backoff)| !backoff.is_over(now_ms));
        let key = (place, ready.id);
        let at = self.backoffs.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.backoffs.push((key, Backoff::default()));
            self.backoffs.len() - 1
        });
        self.backoffs[at].1.fault(now_ms)
    }
}

/// This crate's own policy behind an entry, if it is loaded.
pub(crate) fn ready(entry: &Entry) -> Option<&Ready> {
    entry.prepared.as_ref()?.as_any().downcast_ref()
}

/// Pool keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
