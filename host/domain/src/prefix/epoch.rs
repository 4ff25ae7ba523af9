//! How an endpoint is written into the index, and how it is forgotten in constant time.
//!
//! A holder is written down together with its endpoint's epoch; forgetting an endpoint advances the epoch, and what was
//! written before no longer counts. Epochs are kept in a table of fixed size by the low bits of the slot number: numbers
//! are never used again, so two live endpoints share a cell only if 65,536 others came between them; then one is
//! forgotten with the other, which costs a few guesses.

use std::mem::size_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Bits of a slot number that are written down: 4 million endpoints of one process before two look the same.
pub(super) const SLOT_MASK: u32 = (1 << 22) - 1;

const EPOCH_BITS: u32 = 10;
const EPOCH_MASK: u32 = (1 << EPOCH_BITS) - 1;
const CELLS: usize = 1 << 16;
const CHUNK_CELLS: usize = 1 << 10;
const CHUNKS: usize = CELLS / CHUNK_CELLS;

/// An endpoint of a certain epoch: slot + 1 in the high 22 bits, epoch in the low 10. 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder(pub(super) u32);

impl Holder {
    fn new(slot: u32, epoch: u32) -> Self {
        Self((slot.wrapping_add(1) & SLOT_MASK) << EPOCH_BITS | epoch)
    }

    /// Low bits of the slot number.
    pub(super) fn slot(self) -> u32 {
        (self.0 >> EPOCH_BITS).wrapping_sub(1) & SLOT_MASK
    }

    /// Its bit among the 256 of a crowd.
    pub(super) fn crowd_bit(self) -> u8 {
        crowd_bit(self.slot(), self.0)
    }
}

/// The current epoch of every endpoint; 0 until it is first forgotten. Memory comes with the first forgetting.
///
/// Relaxed: a reader that sees an old epoch believes for a moment longer what was true a moment ago.
#[derive(Debug)]
pub(super) struct Epochs {
    chunks: [OnceLock<Box<[AtomicU16]>>; CHUNKS],
}

impl Default for Epochs {
    fn default() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }
}

impl Epochs {
    /// What the chunks come to at most; the struct itself is not counted.
    pub(super) const BYTES_MAX: usize = CELLS * size_of::<AtomicU16>();

    /// The endpoint of `slot` as it is to be written down now.
    pub(super) fn holder(&self, slot: u32) -> Holder {
        Holder::new(slot, self.epoch(slot))
    }

    /// For asking about many endpoints of one pool, whose numbers are near each other.
    pub(super) fn reader(&self) -> EpochReader<'_> {
        EpochReader { epochs: self, chunk: CHUNKS, cells: None }
    }

    /// Whether a holder counts still.
    pub(super) fn is_live(&self, holder: Holder) -> bool {
        holder.0 != 0 && holder.0 & EPOCH_MASK == self.epoch(holder.slot())
    }

    /// Begins the next epoch of the endpoint of `slot`.
    pub(super) fn advance(&self, slot: u32) {
        let make = || (0..CHUNK_CELLS).map(|_| AtomicU16::new(0)).collect();
        let cell = slot as usize % CELLS;
        self.chunks[cell / CHUNK_CELLS].get_or_init(make)[cell % CHUNK_CELLS].fetch_add(1, Relaxed);
    }

    /// Bytes of chunks allocated.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        chunks * CHUNK_CELLS * size_of::<AtomicU16>()
    }

    fn epoch(&self, slot: u32) -> u32 {
        let cell = slot as usize % CELLS;
        let chunk = self.chunks[cell / CHUNK_CELLS].get();
        chunk.map_or(0, |chunk| u32::from(chunk[cell % CHUNK_CELLS].load(Relaxed)) & EPOCH_MASK)
    }
}

/// Reads epochs and remembers the chunk of the last one.
pub(super) struct EpochReader<'a> {
    epochs: &'a Epochs,
    /// [`CHUNKS`] before the first.
    chunk: usize,
    cells: Option<&'a [AtomicU16]>,
}

impl EpochReader<'_> {
    /// [`Holder::crowd_bit`] of the endpoint of `slot` now.
    pub(super) fn crowd_bit(&mut self, slot: u32) -> u8 {
        let cell = slot as usize % CELLS;
        if cell / CHUNK_CELLS != self.chunk {
            self.chunk = cell / CHUNK_CELLS;
            self.cells = self.epochs.chunks[self.chunk].get().map(|cells| &**cells);
        }
        crowd_bit(slot, self.cells.map_or(0, |cells| cells[cell % CHUNK_CELLS].load(Relaxed).into()))
    }
}

/// The bit of an endpoint among the 256 of a crowd. Endpoints whose numbers follow each other get different ones (a
/// pool's do, as they are numbered together); another epoch is another bit.
fn crowd_bit(slot: u32, epoch: u32) -> u8 {
    // Low bits are meant. 97 is odd, so the first 256 epochs of an endpoint are all different.
    (slot as u8).wrapping_add((epoch as u8).wrapping_mul(97))
}
