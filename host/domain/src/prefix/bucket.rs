//! Seven entries of the index that are read and written together.
//!
//! # Why a reader never sees one prompt's holders under another's key
//!
//! A bucket is a sequence lock made of atomics. A writer takes it by making `version` odd (compare-exchange, acquire),
//! issues a release fence, changes keys and holders (relaxed), and stores the next even version (release). A reader loads
//! the version (acquire), reads (relaxed), issues an acquire fence, and loads the version again: if it read anything of a
//! write, its fence pairs with the writer's, and the second load sees a version that differs. Then it tries again, and
//! after a few tries says that nothing is known. So it waits for nobody, not even for a writer that lost its core.
//!
//! A writer that finds the bucket taken tries for about a microsecond and gives up: a block less is known.
//!
//! Two things are written without the lock: `clock` and `stamps`, which only say what to evict. A race there at worst
//! evicts another entry than the oldest.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use super::epoch::{Epochs, Holder};

/// Entries of a bucket: with the version, their keys fill one cache line.
const WAYS: usize = 7;

/// Holders that an entry can list by name.
pub(super) const HOLDERS_MAX: usize = 8;

const READ_TRIES: u32 = 4;
const WRITE_TRIES: u32 = 64;

/// Entries and what is needed to read, change and evict them. All zero when empty. Five cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Odd while it is being changed.
    version: AtomicU32,
    /// Bit w: the holders of entry w are a [`Held::Crowd`].
    crowds: AtomicU32,
    /// 0 is a free entry.
    keys: [AtomicU64; WAYS],
    holders: [[AtomicU32; HOLDERS_MAX]; WAYS],
    /// What `clock` said when the entry was last of use.
    stamps: [AtomicU32; WAYS],
    clock: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 320, "five cache lines");

/// Who holds a block, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Up to eight [`Holder`]s, in no order; 0 is nobody. Some may no longer be live.
    Few([u32; HOLDERS_MAX]),
    /// More than that: a set of [`Holder::crowd_bit`]s in the same 256 bits. Who is in it is found; at times also who is
    /// not. Such blocks are system prompts that everybody shares, where naming eight of sixty would gather all on eight.
    Crowd([u32; HOLDERS_MAX]),
}

/// What became of a block to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// Its entry was there.
    Known,
    /// A new entry in a free place.
    Inserted,
    /// A new entry in place of the one that was of no use for longest.
    Evicting,
    /// Not learned: others were writing all the time.
    Skipped,
}

impl Bucket {
    /// Who holds the block of `key`. `None`: it is not known, or the bucket is being changed.
    pub(super) fn read(&self, key: u64) -> Option<Held> {
        for _ in 0..READ_TRIES {
            let version = self.version.load(Acquire);
            if version.is_multiple_of(2) {
                // A key that is being added meanwhile may be missed, as if we had come before it.
                let held = self.held(self.way(key)?);
                fence(Acquire);
                if self.version.load(Relaxed) == version {
                    return Some(held);
                }
            }
            spin_loop();
        }
        None
    }

    /// Reads what [`Self::learn`] is about to touch. Buckets lie all over the memory: called for several before the first
    /// is changed, their cache misses overlap, which the compare-exchange of the lock would not let them.
    pub(super) fn draw_near(&self, key: u64) {
        let way = self.way(key).unwrap_or_else(|| self.oldest());
        black_box(self.holders[way][0].load(Relaxed));
    }

    /// Adds `holder` to the holders of `key`, and notes that the entry was of use.
    pub(super) fn learn(&self, key: u64, holder: Holder, epochs: &Epochs) -> Learned {
        // Almost always it is all there. Not checked for a race: at worst a block is not learned.
        if let Some(way) = self.way(key)
            && self.held(way).names(holder)
        {
            self.touch(way);
            return Learned::Known;
        }
        let Some(version) = self.lock() else { return Learned::Skipped };
        let (way, learned) = match self.way(key) {
            Some(way) => {
                self.add_holder(way, holder, epochs);
                (way, Learned::Known)
            }
            None => self.insert(key, holder),
        };
        self.version.store(version.wrapping_add(2), Release);
        self.touch(way);
        learned
    }

    /// Takes `holder` out of the holders of `key`. Of a crowd, others that look the same leave with it.
    pub(super) fn unlearn(&self, key: u64, holder: Holder) {
        if !self.way(key).is_some_and(|way| self.held(way).names(holder)) {
            return;
        }
        let Some(version) = self.lock() else { return };
        if let Some(way) = self.way(key) {
            self.write(way, self.held(way).without(holder));
        }
        self.version.store(version.wrapping_add(2), Release);
    }

    /// Takes the bucket for writing; returns the version to count on from. `None`: it stayed taken.
    fn lock(&self) -> Option<u32> {
        for _ in 0..WRITE_TRIES {
            let version = self.version.load(Relaxed);
            if version.is_multiple_of(2)
                && self.version.compare_exchange(version, version.wrapping_add(1), Acquire, Relaxed).is_ok()
            {
                // Whoever sees what is stored from here on sees the odd version too.
                fence(Release);
                return Some(version);
            }
            spin_loop();
        }
        None
    }

    /// Under the lock: a new entry with one holder.
    fn insert(&self, key: u64, holder: Holder) -> (usize, Learned) {
        let (way, learned) = match self.way(0) {
            Some(free) => (free, Learned::Inserted),
            None => (self.oldest(), Learned::Evicting),
        };
        let mut words = [0; HOLDERS_MAX];
        words[0] = holder.0;
        self.keys[way].store(key, Relaxed);
        self.write(way, Held::Few(words));
        (way, learned)
    }

    /// Under the lock: one holder more, unless another writer was faster.
    fn add_holder(&self, way: usize, holder: Holder, epochs: &Epochs) {
        let mut held = self.held(way);
        if held.names(holder) {
            return;
        }
        if let Held::Few(words) = &mut held {
            if let Some(gone) = words.iter_mut().find(|word| !epochs.is_live(Holder(**word))) {
                *gone = holder.0;
                self.write(way, held);
                return;
            }
            held =
                words.iter().fold(Held::Crowd([0; HOLDERS_MAX]), |crowd, word| crowd.joined(Holder(*word)));
        }
        self.write(way, held.joined(holder));
    }

    /// The entry of `key`; of 0, a free one.
    fn way(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|held| held.load(Relaxed) == key)
    }

    fn held(&self, way: usize) -> Held {
        let words = std::array::from_fn(|place| self.holders[way][place].load(Relaxed));
        if self.crowds.load(Relaxed) >> way & 1 == 0 { Held::Few(words) } else { Held::Crowd(words) }
    }

    fn write(&self, way: usize, held: Held) {
        let crowds = self.crowds.load(Relaxed);
        let (words, crowds) = match held {
            Held::Few(words) => (words, crowds & !(1 << way)),
            Held::Crowd(words) => (words, crowds | 1 << way),
        };
        self.crowds.store(crowds, Relaxed);
        for (place, word) in self.holders[way].iter().zip(words) {
            place.store(word, Relaxed);
        }
    }

    /// Makes an entry the youngest. Writes nothing if it is: a block that every prompt shares stays in every core's cache.
    fn touch(&self, way: usize) {
        let clock = self.clock.load(Relaxed);
        if self.stamps[way].load(Relaxed) != clock || clock == 0 {
            let next = clock.wrapping_add(1);
            self.clock.store(next, Relaxed);
            self.stamps[way].store(next, Relaxed);
        }
    }

    /// The entry that was of no use for longest. Ages wrap with the clock, after 4 billion uses of one bucket.
    fn oldest(&self) -> usize {
        let clock = self.clock.load(Relaxed);
        let age = |way: &usize| clock.wrapping_sub(self.stamps[*way].load(Relaxed));
        (0..WAYS).max_by_key(age).unwrap_or(0)
    }
}

impl Held {
    /// Whether `holder` needs no more adding.
    fn names(&self, holder: Holder) -> bool {
        match self {
            Self::Few(words) => words.contains(&holder.0),
            Self::Crowd(words) => crowd_has(words, holder.crowd_bit()),
        }
    }

    /// The same with one less.
    fn without(self, holder: Holder) -> Self {
        match self {
            Self::Few(words) => Self::Few(words.map(|word| if word == holder.0 { 0 } else { word })),
            Self::Crowd(mut words) => {
                let bit = holder.crowd_bit();
                words[usize::from(bit / 32)] &= !(1 << (bit % 32));
                Self::Crowd(words)
            }
        }
    }

    /// A crowd with one more in it.
    fn joined(self, holder: Holder) -> Self {
        match self {
            Self::Few(_) => self,
            Self::Crowd(mut words) => {
                let bit = holder.crowd_bit();
                words[usize::from(bit / 32)] |= 1 << (bit % 32);
                Self::Crowd(words)
            }
        }
    }
}

/// Whether a crowd has the endpoint of this [`Holder::crowd_bit`] in it, or another that looks the same.
pub(super) fn crowd_has(words: &[u32; HOLDERS_MAX], bit: u8) -> bool {
    words[usize::from(bit / 32)] >> (bit % 32) & 1 != 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Twice as many keys as places, so that entries change hands under the reader's eyes. Each key has one holder.
    #[test]
    fn a_reader_never_sees_the_holder_of_another_key() {
        let (bucket, epochs, done) = (Bucket::default(), Epochs::default(), AtomicBool::new(false));
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0_u64;
                while !done.load(Relaxed) {
                    for key in 1..=14 {
                        if let Some(held) = bucket.read(key) {
                            let mut words = [0; HOLDERS_MAX];
                            words[0] = epochs.holder(key as u32).0;
                            assert_eq!(held, Held::Few(words), "key {key}");
                            seen += 1;
                        }
                    }
                }
                seen
            });
            let writers = [0, 1].map(|seed| {
                let (bucket, epochs) = (&bucket, &epochs);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..150_000 {
                        let key = random.u32(1..=14);
                        bucket.learn(u64::from(key), epochs.holder(key), epochs);
                    }
                })
            });
            writers.into_iter().for_each(|writer| writer.join().expect("writer"));
            done.store(true, Relaxed);
            reader.join().expect("reader")
        });
        assert!(seen > 0);
    }

    #[test]
    fn a_bucket_that_stays_taken_reads_as_unknown_and_learns_nothing() {
        let (bucket, epochs) = (Bucket::default(), Epochs::default());
        assert_eq!(bucket.learn(1, epochs.holder(7), &epochs), Learned::Inserted);
        let version = bucket.lock().expect("free");
        assert_eq!(bucket.read(1), None);
        assert_eq!(bucket.learn(2, epochs.holder(7), &epochs), Learned::Skipped);
        bucket.version.store(version + 2, Release);
        assert!(bucket.read(1).is_some());
        assert_eq!(bucket.read(2), None);
    }

    #[test]
    fn the_ninth_holder_makes_a_crowd_unless_one_of_the_eight_is_gone() {
        let (bucket, epochs) = (Bucket::default(), Epochs::default());
        for slot in 0..8 {
            bucket.learn(1, epochs.holder(slot), &epochs);
        }
        epochs.advance(3);
        bucket.learn(1, epochs.holder(8), &epochs);
        assert!(matches!(bucket.read(1), Some(Held::Few(words)) if words[3] == epochs.holder(8).0));
        bucket.learn(1, epochs.holder(9), &epochs);
        let Some(Held::Crowd(words)) = bucket.read(1) else { panic!("{:?}", bucket.read(1)) };
        for slot in 0..20 {
            let holds = slot < 10 && slot != 3;
            assert_eq!(crowd_has(&words, epochs.holder(slot).crowd_bit()), holds, "slot {slot}");
        }
    }
}
