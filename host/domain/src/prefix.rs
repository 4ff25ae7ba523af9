//! Which endpoint is believed to hold how much of a prompt in its KV cache: block hashes, and one bounded index.
//!
//! A prompt is cut into blocks whose hashes are chained ([`hash_prompt`]), so that one hash stands for a block and all
//! before it. [`PrefixIndex`] maps each to the endpoints that were sent it. It learns when a request is dispatched, forgets
//! an endpoint that leaves or restarts, and evicts what was not sent for longest. It is a belief: engines evict on their
//! own, so what it says may be too much, and after an eviction here too little. Nothing but speed depends on it.
//!
//! One index serves the process. Readers take no lock, wait for nobody and write nothing but two counters; writers take
//! turns per bucket of seven entries and rather leave a block out than wait. How that stays correct: `bucket.rs`.

mod bucket;
mod epoch;
mod hash;
mod lookup;
mod slots;

use std::mem::size_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bucket::{Bucket, Learned};
use epoch::Epochs;
pub use hash::{
    BLOCKS_MAX, BYTES_PER_TOKEN, PROMPT_BYTES_MAX, PromptHashes, block_edges, hash_prompt, prompt_seed,
};
use lookup::Walk;
pub use slots::SlotMap;

/// Default of `--prefix-index-bytes`: 64 MiB, about 1.4 million blocks.
pub const PREFIX_INDEX_BYTES_DEFAULT: usize = 64 << 20;

/// Buckets that are allocated together when the first entry falls among them: 20 KiB. Small, so that the memory of an
/// index comes with its entries; large enough that the table of shards is 0.1 % of it.
const SHARD_BUCKETS: usize = 64;

/// Cells that counters are spread over, so that workers do not fight for a cache line.
const COUNTER_CELLS: usize = 16;

/// Blocks whose buckets are drawn near before the first of them is changed.
const LEARN_TOGETHER: usize = 8;

type Shard = OnceLock<Box<[Bucket]>>;

/// Blocks of prompts and who holds them, bounded in bytes. See the module's page.
pub struct PrefixIndex {
    /// Empty if the bound leaves no room for one.
    shards: Box<[Shard]>,
    epochs: Epochs,
    counters: Box<[Counters]>,
}

/// What an index holds and how it fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Blocks known.
    pub entries: u64,
    /// Bytes allocated now, everything included but the allocator's own bookkeeping.
    pub bytes: u64,
    /// Bytes it may come to allocate; at most what it was given.
    pub bytes_max: u64,
    /// Blocks put out for others, ever.
    pub evictions: u64,
    /// Blocks not learned because another worker was writing next to them, ever.
    pub skipped: u64,
    /// Lookups, ever.
    pub lookups: u64,
    /// Lookups that found an endpoint which holds something, ever.
    pub hits: u64,
}

/// One cell of the counters, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    inserted: AtomicU64,
    evicted: AtomicU64,
    skipped: AtomicU64,
    lookups: AtomicU64,
    hits: AtomicU64,
}

impl std::fmt::Debug for PrefixIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrefixIndex").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl PrefixIndex {
    /// An empty index that never takes more than `bytes_max`, everything included but the allocator's own bookkeeping.
    ///
    /// Takes 0.1 % of it now and the rest as blocks are learned. Less than about 160 KiB leaves no room for blocks: such
    /// an index (0, for example, to switch it off) learns nothing.
    pub fn new(bytes_max: usize) -> Self {
        let per_shard = SHARD_BUCKETS * size_of::<Bucket>() + size_of::<Shard>();
        let shards = bytes_max.saturating_sub(FIXED_BYTES_MAX) / per_shard;
        Self {
            shards: (0..shards).map(|_| Shard::new()).collect(),
            epochs: Epochs::default(),
            counters: (0..COUNTER_CELLS).map(|_| Counters::default()).collect(),
        }
    }

    /// Tokens of the prompt that each endpoint is believed to hold, written to `out` by endpoint index; 0 is nothing.
    /// Returns the most that any holds.
    ///
    /// `out` has a number for each endpoint of `slots`; what it held before does not matter. A block that an endpoint
    /// holds implies those before it, so depths are searched by halving: about nine probes for a prompt of any length,
    /// and as many more for each place where its holders change.
    pub fn lookup(&self, pool_key: u64, prompt: &PromptHashes, slots: &SlotMap, out: &mut [f32]) -> f32 {
        out.fill(0.0);
        if prompt.is_empty() {
            return 0.0;
        }
        let longest = Walk { index: self, pool_key, prompt, slots, out, longest: 0.0 }.run();
        let counters = self.counters(prompt);
        counters.lookups.fetch_add(1, Relaxed);
        if longest > 0.0 {
            counters.hits.fetch_add(1, Relaxed);
        }
        longest
    }

    /// Notes that the endpoint of `slot` was sent the prompt, and that all of its blocks were of use just now.
    ///
    /// For a prompt of 1 KiB 0.1 µs where its blocks are in the processor's cache, 1 to 1.7 µs where they come from
    /// memory; 10 to 15 µs for 128 KiB (measured on one busy core).
    pub fn learn(&self, pool_key: u64, prompt: &PromptHashes, slot: u32) {
        let holder = self.epochs.holder(slot);
        let (mut inserted, mut evicted, mut skipped) = (0, 0, 0);
        for hashes in prompt.as_slice().chunks(LEARN_TOGETHER) {
            let mut places: [(u64, Option<&Bucket>); LEARN_TOGETHER] = [(0, None); LEARN_TOGETHER];
            for (place, hash) in places.iter_mut().zip(hashes) {
                let key = key(pool_key, *hash);
                let bucket = self.bucket_or_new(key);
                if let Some(bucket) = bucket {
                    bucket.draw_near(key);
                }
                *place = (key, bucket);
            }
            for (key, bucket) in places {
                let Some(bucket) = bucket else { continue };
                match bucket.learn(key, holder, &self.epochs) {
                    Learned::Known => {}
                    Learned::Inserted => inserted += 1,
                    Learned::Evicting => evicted += 1,
                    Learned::Skipped => skipped += 1,
                }
            }
        }
        let counters = self.counters(prompt);
        let add = |counter: &AtomicU64, count: u64| {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        };
        add(&counters.inserted, inserted);
        add(&counters.evicted, evicted);
        add(&counters.skipped, skipped);
    }

    /// Takes back what [`Self::learn`] noted: the endpoint of `slot` failed the prompt, and holds none of it. What it held of
    /// it before is learned again with the next prompt that shares it.
    pub fn unlearn(&self, pool_key: u64, prompt: &PromptHashes, slot: u32) {
        let holder = self.epochs.holder(slot);
        for hash in prompt.as_slice() {
            let key = key(pool_key, *hash);
            if let Some(bucket) = self.bucket(key) {
                bucket.unlearn(key, holder);
            }
        }
    }

    /// Forgets everything about the endpoint of `slot`, at once and in constant time: it left, restarted, or slept.
    pub fn forget(&self, slot: u32) {
        self.epochs.advance(slot);
    }

    /// What it holds and how it fared. Walks the table of shards (3,000 at the default size): for a metrics page.
    pub fn stats(&self) -> PrefixStats {
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            self.counters.iter().map(|cell| counter(cell).load(Relaxed)).sum::<u64>()
        };
        let shard_bytes = SHARD_BUCKETS * size_of::<Bucket>();
        let allocated = self.shards.iter().filter(|shard| shard.get().is_some()).count();
        let table = size_of::<Self>() + COUNTER_CELLS * size_of::<Counters>() + size_of_val(&*self.shards);
        PrefixStats {
            entries: sum(|cell| &cell.inserted),
            bytes: (table + self.epochs.bytes() + allocated * shard_bytes) as u64,
            bytes_max: (table + Epochs::BYTES_MAX + self.shards.len() * shard_bytes) as u64,
            evictions: sum(|cell| &cell.evicted),
            skipped: sum(|cell| &cell.skipped),
            lookups: sum(|cell| &cell.lookups),
            hits: sum(|cell| &cell.hits),
        }
    }

    /// The bucket of a key, if its shard was ever written.
    fn bucket(&self, key: u64) -> Option<&Bucket> {
        let (shard, bucket) = self.place(key);
        self.shards.get(shard)?.get()?.get(bucket)
    }

    /// The bucket of a key; allocates its shard (microseconds, once for every 448 entries).
    fn bucket_or_new(&self, key: u64) -> Option<&Bucket> {
        let (shard, bucket) = self.place(key);
        let make = || (0..SHARD_BUCKETS).map(|_| Bucket::default()).collect();
        self.shards.get(shard)?.get_or_init(make).get(bucket)
    }

    /// Shard and bucket of a key: its high bits, scaled to the number of buckets.
    fn place(&self, key: u64) -> (usize, usize) {
        let buckets = self.shards.len() * SHARD_BUCKETS;
        let bucket = ((u128::from(key) * buckets as u128) >> 64) as usize;
        (bucket / SHARD_BUCKETS, bucket % SHARD_BUCKETS)
    }

    /// The counters for a prompt: any cell will do, as long as prompts spread over them.
    fn counters(&self, prompt: &PromptHashes) -> &Counters {
        let last = prompt.as_slice().last().copied().unwrap_or_default();
        &self.counters[last as usize % COUNTER_CELLS]
    }
}

/// What an index without any shard comes to at most.
const FIXED_BYTES_MAX: usize =
    size_of::<PrefixIndex>() + COUNTER_CELLS * size_of::<Counters>() + Epochs::BYTES_MAX;

/// Key of a block in a pool, never 0. Every bit of both counts in every bit of it (the finish of MurmurHash3), as the
/// high bits choose the bucket.
fn key(pool_key: u64, hash: u64) -> u64 {
    let mut key = hash ^ pool_key.rotate_left(32);
    key = (key ^ (key >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    key = (key ^ (key >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (key ^ (key >> 33)).max(1)
}

#[cfg(test)]
mod tests;
