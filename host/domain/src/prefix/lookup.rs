//! One lookup: which endpoint holds how much of a prompt.

use super::bucket::{HOLDERS_MAX, Held, crowd_has};
use super::epoch::Holder;
use super::{PrefixIndex, PromptHashes, SlotMap, key};

/// What one lookup needs at hand.
pub(super) struct Walk<'a> {
    pub(super) index: &'a PrefixIndex,
    pub(super) pool_key: u64,
    pub(super) prompt: &'a PromptHashes,
    pub(super) slots: &'a SlotMap,
    /// Tokens by endpoint index.
    pub(super) out: &'a mut [f32],
    /// Largest number of `out`.
    pub(super) longest: f32,
}

/// Who of the pool holds a block.
#[derive(Clone, Copy)]
enum Holders {
    /// Endpoint indices; the first `len` count.
    Few { indices: [u32; HOLDERS_MAX], len: usize },
    /// As written down: too many to be worth taking apart before it is known that it matters.
    Crowd([u32; HOLDERS_MAX]),
}

impl Walk<'_> {
    /// Fills `out`, which is all zero, and returns its largest number. `longest` must be zero.
    pub(super) fn run(mut self) -> f32 {
        let first = self.probe(0);
        if first.is_nobody() {
            return 0.0;
        }
        let last_depth = self.prompt.len() - 1;
        if last_depth == 0 {
            self.credit(&first, 0);
        } else {
            let last = self.probe(last_depth);
            self.credit(&last, last_depth);
            self.between(0, &first, last_depth, &last);
        }
        self.longest
    }

    /// Credits everybody whose deepest block is `low` or lies between `low` and `high`; who holds `high` has been.
    ///
    /// Whoever holds `high` holds all between. So if nobody holds `low` but they, there is nothing to find between.
    fn between(&mut self, low: usize, at_low: &Holders, high: usize, at_high: &Holders) {
        if at_low.are_among(at_high) {
            return;
        }
        if high - low == 1 {
            self.credit(at_low, low);
            return;
        }
        let middle = low.midpoint(high);
        let at_middle = self.probe(middle);
        self.between(middle, &at_middle, high, at_high);
        self.between(low, at_low, middle, &at_middle);
    }

    /// Who holds the block at `depth`.
    fn probe(&self, depth: usize) -> Holders {
        let mut few = Holders::Few { indices: [0; HOLDERS_MAX], len: 0 };
        let key = key(self.pool_key, self.prompt.as_slice()[depth]);
        match self.index.bucket(key).and_then(|bucket| bucket.read(key)) {
            Some(Held::Crowd(words)) => return Holders::Crowd(words),
            Some(Held::Few(words)) => {
                for holder in
                    words.into_iter().map(Holder).filter(|holder| self.index.epochs.is_live(*holder))
                {
                    if let (Some(found), Holders::Few { indices, len }) =
                        (self.slots.get(holder.slot()), &mut few)
                    {
                        indices[*len] = found;
                        *len += 1;
                    }
                }
            }
            None => {}
        }
        few
    }

    /// Notes that `holders` hold at least the prefix that ends with block `depth`.
    fn credit(&mut self, holders: &Holders, depth: usize) {
        let tokens = self.prompt.tokens_through(depth);
        match holders {
            Holders::Few { indices, len } => {
                for index in &indices[..*len] {
                    if let Some(believed) = self.out.get_mut(*index as usize) {
                        *believed = believed.max(tokens);
                        self.longest = self.longest.max(tokens);
                    }
                }
            }
            Holders::Crowd(words) => {
                let (mut epochs, mut found) = (self.index.epochs.reader(), false);
                for (slot, believed) in self.slots.as_slice().iter().zip(self.out.iter_mut()) {
                    if crowd_has(words, epochs.crowd_bit(*slot)) {
                        *believed = believed.max(tokens);
                        found = true;
                    }
                }
                if found {
                    self.longest = self.longest.max(tokens);
                }
            }
        }
    }
}

impl Holders {
    fn is_nobody(&self) -> bool {
        matches!(self, Self::Few { len: 0, .. })
    }

    /// Whether all of these are among `others`. May say no where it is so, which costs a probe.
    fn are_among(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::Few { indices, len }, Self::Few { indices: theirs, len: their_len }) => {
                indices[..*len].iter().all(|index| theirs[..*their_len].contains(index))
            }
            (Self::Few { len, .. }, Self::Crowd(_)) => *len == 0,
            (Self::Crowd(_), Self::Few { .. }) => false,
            (Self::Crowd(words), Self::Crowd(theirs)) => {
                words.iter().zip(theirs).all(|(word, their)| word & !their == 0)
            }
        }
    }
}
