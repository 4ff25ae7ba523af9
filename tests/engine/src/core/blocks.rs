//! The KV cache as blocks: who holds which, which hold a known prefix, and which is evicted next.
//!
//! A block nobody holds stays findable by its hash until its room is needed; the least recently released one goes first.

use std::collections::HashMap;

/// The chained hash of a prompt up to and including one block: equal hashes mean equal prefixes.
pub type BlockHash = u64;

/// An index into the pool; meaningful only to the pool that gave it.
pub(super) type BlockId = u32;

const NONE: BlockId = BlockId::MAX;

/// A fixed number of KV blocks, some held, some remembered, the rest free.
#[derive(Debug)]
pub(super) struct BlockPool {
    capacity: u32,
    slots: Vec<Slot>,
    free: Vec<BlockId>,
    by_hash: HashMap<BlockHash, BlockId>,
    /// Least recently released remembered block; `NONE` when there is none.
    oldest: BlockId,
    newest: BlockId,
    idle: u32,
}

#[derive(Debug, Clone)]
struct Slot {
    hash: Option<BlockHash>,
    users: u32,
    older: BlockId,
    newer: BlockId,
}

impl BlockPool {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            slots: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::new(),
            oldest: NONE,
            newest: NONE,
            idle: 0,
        }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Blocks that some sequence holds.
    pub(super) fn held(&self) -> u32 {
        self.slots.len() as u32 - self.free.len() as u32 - self.idle
    }

    /// Blocks that can be handed out now, by evicting if need be.
    pub(super) fn available(&self) -> u32 {
        self.capacity - self.held()
    }

    /// How many leading blocks of `prefix` are in the cache. Changes nothing.
    pub(super) fn peek(&self, prefix: &[BlockHash]) -> u32 {
        prefix.iter().take_while(|hash| self.by_hash.contains_key(hash)).count() as u32
    }

    /// Of the first `hits` blocks of `prefix`, how many nobody holds: taking them lowers what is available.
    pub(super) fn idle_among(&self, prefix: &[BlockHash], hits: u32) -> u32 {
        let idle = |hash: &&BlockHash| self.slots[self.by_hash[*hash] as usize].users == 0;
        prefix[..hits as usize].iter().filter(idle).count() as u32
    }

    /// Takes the cached block of `hash`, which must be in the cache.
    pub(super) fn take_cached(&mut self, hash: BlockHash) -> BlockId {
        let id = self.by_hash[&hash];
        if self.slots[id as usize].users == 0 {
            self.unlink(id);
        }
        self.slots[id as usize].users += 1;
        id
    }

    /// Takes an empty block, evicting the least recently used remembered one if need be; `None` when all are held.
    pub(super) fn take_empty(&mut self) -> Option<BlockId> {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize].users = 1;
            return Some(id);
        }
        if (self.slots.len() as u32) < self.capacity {
            self.slots.push(Slot { hash: None, users: 1, older: NONE, newer: NONE });
            return Some(self.slots.len() as u32 - 1);
        }
        let id = self.oldest;
        if id == NONE {
            return None;
        }
        self.unlink(id);
        if let Some(hash) = self.slots[id as usize].hash.take() {
            self.by_hash.remove(&hash);
        }
        self.slots[id as usize].users = 1;
        Some(id)
    }

    /// Makes the held block `id` findable as `hash`. Returns the block to hold from now on: another one when a
    /// second sequence computed the same prefix meanwhile, in which case `id` is free again.
    pub(super) fn remember(&mut self, id: BlockId, hash: BlockHash) -> BlockId {
        match self.by_hash.get(&hash) {
            Some(&known) if known == id => id,
            Some(_) => {
                let known = self.take_cached(hash);
                self.release(id);
                known
            }
            None => {
                self.by_hash.insert(hash, id);
                self.slots[id as usize].hash = Some(hash);
                id
            }
        }
    }

    /// Gives one hold on `id` back.
    pub(super) fn release(&mut self, id: BlockId) {
        let slot = &mut self.slots[id as usize];
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        if slot.hash.is_none() {
            self.free.push(id);
            return;
        }
        slot.older = self.newest;
        slot.newer = NONE;
        match self.newest {
            NONE => self.oldest = id,
            newest => self.slots[newest as usize].newer = id,
        }
        self.newest = id;
        self.idle += 1;
    }

    /// Forgets every block nobody holds, and the hashes of those that are held.
    pub(super) fn forget_all(&mut self) {
        while self.oldest != NONE {
            let id = self.oldest;
            self.unlink(id);
            self.free.push(id);
        }
        self.by_hash.clear();
        for slot in &mut self.slots {
            slot.hash = None;
        }
    }

    fn unlink(&mut self, id: BlockId) {
        let Slot { older, newer, .. } = self.slots[id as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        self.idle -= 1;
    }
}
