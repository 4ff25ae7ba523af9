//! Tests of the index: against a naive model, at its bounds, and between threads.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

const ROOMY: usize = 8 << 20;

/// A prompt of `blocks` blocks, made of segments: two prompts share what their lists of segments share.
fn prompt(segments: &[u8], blocks: usize) -> PromptHashes {
    let mut bytes = Vec::new();
    for segment in segments {
        bytes.extend(std::iter::repeat_n(*segment, 1_500));
    }
    bytes.resize(block_edges()[blocks - 1] as usize + 1, 0xff);
    let mut hashes = PromptHashes::default();
    hash_prompt(1, &bytes, &mut hashes);
    assert_eq!(hashes.len(), blocks);
    hashes
}

fn lookup(index: &PrefixIndex, pool_key: u64, prompt: &PromptHashes, slots: &[u32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; slots.len()];
    let longest = index.lookup(pool_key, prompt, &SlotMap::new(slots.iter().copied()), &mut out);
    assert_eq!(longest, out.iter().copied().fold(0.0, f32::max));
    out
}

#[test]
fn endpoints_are_credited_with_the_longest_prefix_they_were_sent() {
    let index = PrefixIndex::new(ROOMY);
    let whole = prompt(&[1, 2, 3], 12);
    index.learn(9, &whole, 100);
    index.learn(9, &prompt(&[1, 2, 4], 12), 101);
    index.learn(9, &prompt(&[1, 5], 9), 102);
    index.learn(9, &prompt(&[6], 8), 103);
    // Segments are 1,500 bytes: two agree up to byte 3,000, one up to 1,500; the last full blocks before end at 2,048
    // and 1,024.
    assert_eq!(lookup(&index, 9, &whole, &[103, 102, 101, 100, 99]), [0.0, 256.0, 512.0, 1_280.0, 0.0]);
}

#[test]
fn pools_do_not_see_each_other() {
    let index = PrefixIndex::new(ROOMY);
    let prompt = prompt(&[1], 8);
    for pool in 0..50 {
        assert_eq!(lookup(&index, pool, &prompt, &[7]), [0.0], "pool {pool}");
        index.learn(pool, &prompt, 7);
        assert_eq!(lookup(&index, pool, &prompt, &[7]), [256.0], "pool {pool}");
    }
}

#[test]
fn a_forgotten_endpoint_holds_nothing_until_it_learns_again() {
    let index = PrefixIndex::new(ROOMY);
    let prompt = prompt(&[1], 8);
    index.learn(1, &prompt, 7);
    index.learn(1, &prompt, 8);
    index.forget(7);
    assert_eq!(lookup(&index, 1, &prompt, &[7, 8]), [0.0, 256.0]);
    index.learn(1, &prompt, 7);
    assert_eq!(lookup(&index, 1, &prompt, &[7, 8]), [256.0, 256.0]);
}

/// A1: the holder of a prompt that it failed loses it.
#[test]
fn what_an_endpoint_failed_it_no_longer_holds_and_others_keep_theirs() {
    let index = PrefixIndex::new(ROOMY);
    let (failed, other) = (prompt(&[1], 8), prompt(&[2], 8));
    for slot in [7, 8] {
        index.learn(1, &failed, slot);
        index.learn(1, &other, slot);
    }
    index.unlearn(1, &failed, 7);
    assert_eq!(lookup(&index, 1, &failed, &[7, 8]), [0.0, 256.0]);
    assert_eq!(lookup(&index, 1, &other, &[7, 8]), [256.0, 256.0]);
    // Shared by a crowd.
    for slot in 20..40 {
        index.learn(1, &failed, slot);
    }
    index.unlearn(1, &failed, 21);
    assert_eq!(lookup(&index, 1, &failed, &[20, 21, 22]), [256.0, 0.0, 256.0]);
    index.unlearn(2, &failed, 22);
    assert_eq!(lookup(&index, 1, &failed, &[22]), [256.0], "another pool's is not touched");
}

#[test]
fn a_block_that_everybody_shares_is_credited_to_everybody() {
    let index = PrefixIndex::new(ROOMY);
    let slots: Vec<u32> = (1_000..1_064).collect();
    for (own, slot) in (0_u8..).zip(&slots[..60]) {
        index.learn(1, &prompt(&[99, own], 9), *slot);
    }
    let found = lookup(&index, 1, &prompt(&[99, 5], 9), &slots);
    for (endpoint, tokens) in found.iter().enumerate() {
        let expected = match endpoint {
            5 => 512.0,
            0..60 => 256.0,
            _ => 0.0,
        };
        assert_eq!(*tokens, expected, "endpoint {endpoint}");
    }
    index.forget(1_003);
    assert_eq!(lookup(&index, 1, &prompt(&[99], 8), &slots)[3], 0.0, "also out of a crowd");
}

#[test]
fn an_index_without_room_knows_nothing_and_harms_nobody() {
    for bytes in [0, 1_000, 150_000] {
        let index = PrefixIndex::new(bytes);
        index.learn(1, &prompt(&[1], 8), 7);
        index.forget(7);
        assert_eq!(lookup(&index, 1, &prompt(&[1], 8), &[7]), [0.0]);
        assert_eq!(index.stats().entries, 0);
    }
}

#[test]
fn a_prompt_without_blocks_and_a_pool_without_endpoints_are_served() {
    let index = PrefixIndex::new(ROOMY);
    let none = PromptHashes::default();
    index.learn(1, &none, 7);
    assert_eq!(lookup(&index, 1, &none, &[7]), [0.0]);
    assert_eq!(index.stats().lookups, 0, "nothing was asked");
    index.learn(1, &prompt(&[1], 8), 7);
    assert_eq!(lookup(&index, 1, &prompt(&[1], 8), &[]), [0.0_f32; 0]);
}

#[test]
fn memory_never_exceeds_its_bound_and_what_was_used_last_stays() {
    let bytes_max = 1 << 20;
    let index = PrefixIndex::new(bytes_max);
    assert!(index.stats().bytes < 16 << 10, "empty: {:?}", index.stats());
    let prompts: Vec<PromptHashes> = (0..10_000_u32).map(|number| distinct(number, 8)).collect();
    let favourite = &prompts[0];
    for prompt in &prompts {
        index.learn(1, prompt, 7);
        index.learn(1, favourite, 7);
        assert!(index.stats().bytes <= bytes_max as u64);
    }
    (0..70_000).for_each(|slot| index.forget(slot * 3));
    let stats = index.stats();
    assert!(stats.bytes <= stats.bytes_max && stats.bytes_max <= bytes_max as u64, "{stats:?}");
    assert!(stats.bytes_max > bytes_max as u64 - 24_000, "and the bound is used: {stats:?}");
    assert!(stats.evictions > 50_000 && stats.entries > 15_000, "{stats:?}");
    let index = PrefixIndex::new(bytes_max);
    for prompt in &prompts {
        index.learn(1, prompt, 7);
        index.learn(1, favourite, 7);
    }
    assert_eq!(lookup(&index, 1, favourite, &[7]), [256.0], "in use all the time");
    let known = |prompts: &[PromptHashes]| {
        prompts.iter().filter(|prompt| lookup(&index, 1, prompt, &[7])[0] > 200.0).count()
    };
    let (old, young) = (known(&prompts[1..1_001]), known(&prompts[9_000..]));
    assert!(young > 950 && old < 50, "{young} of the last 1,000, {old} of the first");
}

/// A prompt that shares no block with another of a different number.
fn distinct(number: u32, blocks: usize) -> PromptHashes {
    let bytes = number.to_be_bytes().repeat(block_edges()[blocks - 1] as usize / 4 + 1);
    let mut hashes = PromptHashes::default();
    hash_prompt(1, &bytes, &mut hashes);
    hashes
}

#[test]
fn hits_are_counted() {
    let index = PrefixIndex::new(ROOMY);
    index.learn(1, &distinct(1, 8), 7);
    lookup(&index, 1, &distinct(1, 8), &[7]);
    lookup(&index, 1, &distinct(2, 8), &[7]);
    let stats = index.stats();
    assert_eq!((stats.entries, stats.lookups, stats.hits, stats.skipped), (8, 2, 1, 0));
}

/// What the index believes, with no bound and in the plainest way.
#[derive(Default)]
struct Model {
    holders: HashMap<(u64, u64), HashSet<u32>>,
}

impl Model {
    fn learn(&mut self, pool_key: u64, prompt: &PromptHashes, slot: u32) {
        for hash in prompt.as_slice() {
            self.holders.entry((pool_key, *hash)).or_default().insert(slot);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.holders.values_mut().for_each(|slots| slots.retain(|held| *held != slot));
    }

    fn lookup(&self, pool_key: u64, prompt: &PromptHashes, slots: &[u32]) -> Vec<f32> {
        let holds = |depth: &usize, slot: u32| {
            self.holders
                .get(&(pool_key, prompt.as_slice()[*depth]))
                .is_some_and(|slots| slots.contains(&slot))
        };
        let deepest = |slot: &u32| (0..prompt.len()).rev().find(|depth| holds(depth, *slot));
        slots.iter().map(|slot| deepest(slot).map_or(0.0, |depth| prompt.tokens_through(depth))).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Learn { pool: u64, segments: Vec<u8>, blocks: usize, slot: u32 },
    Forget { slot: u32 },
    Lookup { pool: u64, segments: Vec<u8>, blocks: usize },
}

fn steps(slots: u32, with_forget: bool) -> impl Strategy<Value = Vec<Step>> {
    let prompt = || (1..3_u64, prop::collection::vec(0..3_u8, 0..8), 1..20_usize);
    let learn = (prompt(), 0..slots).prop_map(|((pool, segments, blocks), slot)| Step::Learn {
        pool,
        segments,
        blocks,
        slot,
    });
    let lookup = prompt().prop_map(|(pool, segments, blocks)| Step::Lookup { pool, segments, blocks });
    let forget = (0..slots).prop_map(|slot| Step::Forget { slot });
    prop::collection::vec(prop_oneof![6 => learn, 4 => lookup, u32::from(with_forget) => forget], 1..60)
}

fn agrees_with_the_model(steps: Vec<Step>, slots: u32) {
    // Numbers of a real process do not begin at 0, and a pool's follow each other.
    let number = |slot: u32| 70_000 + slot;
    let pool_slots: Vec<u32> = (0..slots).map(number).collect();
    let (index, mut model) = (PrefixIndex::new(ROOMY), Model::default());
    for step in steps {
        match step {
            Step::Learn { pool, segments, blocks, slot } => {
                let prompt = prompt(&segments, blocks);
                index.learn(pool, &prompt, number(slot));
                model.learn(pool, &prompt, number(slot));
            }
            Step::Forget { slot } => {
                index.forget(number(slot));
                model.forget(number(slot));
            }
            Step::Lookup { pool, segments, blocks } => {
                let prompt = prompt(&segments, blocks);
                let found = lookup(&index, pool, &prompt, &pool_slots);
                assert_eq!(found, model.lookup(pool, &prompt, &pool_slots));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_model_while_nothing_is_evicted(steps in steps(8, true)) {
        agrees_with_the_model(steps, 8);
    }

    #[test]
    fn agrees_with_a_naive_model_in_pools_whose_prompts_are_shared_by_many(steps in steps(40, false)) {
        agrees_with_the_model(steps, 40);
    }

    #[test]
    fn under_eviction_it_may_know_less_but_never_more(seed in 0..u64::MAX) {
        let mut random = fastrand::Rng::with_seed(seed);
        // One shard: 448 entries.
        let (index, mut model) = (PrefixIndex::new(FIXED_BYTES_MAX + 40_000), Model::default());
        for _ in 0..150 {
            let prompt = prompt(&[random.u8(0..4), random.u8(..), random.u8(..)], random.usize(10..16));
            let slot = random.u32(0..6);
            index.learn(1, &prompt, slot);
            model.learn(1, &prompt, slot);
            let found = lookup(&index, 1, &prompt, &[0, 1, 2, 3, 4, 5]);
            for (found, true_value) in found.iter().zip(model.lookup(1, &prompt, &[0, 1, 2, 3, 4, 5])) {
                prop_assert!(*found <= true_value);
            }
            prop_assert!(found[slot as usize] > 0.0);
        }
        prop_assert!(index.stats().evictions > 0);
    }
}

/// Readers and writers on one shard, so that entries are replaced under the readers' eyes all the time. Every prompt is
/// sent to one endpoint only, so any other that is credited with it was read out of another prompt's entry.
#[test]
fn a_reader_between_writers_never_credits_one_prompt_with_the_holders_of_another() {
    let index = PrefixIndex::new(FIXED_BYTES_MAX + 40_000);
    let prompts: Vec<PromptHashes> = (0..3_000).map(|number| distinct(number, 2)).collect();
    let slots: Vec<u32> = (0..64).collect();
    let map = SlotMap::new(slots.iter().copied());
    let done = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (index, prompts, map, done, hits) = (&index, &prompts, &map, &done, &hits);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(reader);
                let mut out = vec![0.0; 64];
                while !done.load(Relaxed) {
                    let number = random.usize(..prompts.len());
                    if index.lookup(1, &prompts[number], map, &mut out) > 0.0 {
                        hits.fetch_add(1, Relaxed);
                    }
                    for (endpoint, tokens) in out.iter().enumerate() {
                        assert!(
                            *tokens == 0.0 || endpoint == number % 64,
                            "endpoint {endpoint}, prompt {number}"
                        );
                    }
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (index, prompts) = (&index, &prompts);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(10 + writer);
                    for _ in 0..30_000 {
                        let number = random.usize(..prompts.len());
                        index.learn(1, &prompts[number], (number % 64) as u32);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("writer"));
        done.store(true, Relaxed);
    });
    let stats = index.stats();
    assert!(stats.evictions > 10_000 && hits.load(Relaxed) > 0, "{stats:?}");
    assert!(stats.entries <= 448, "{stats:?}");
}
