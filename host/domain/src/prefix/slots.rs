//! From the number of an endpoint in the process to its index in one pool.

use super::epoch::SLOT_MASK;

/// Endpoint index by slot number, for one pool. Built with the pool, immutable. At most 20 bytes an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMap {
    /// Slot by index.
    slots: Box<[u32]>,
    /// Open addressing: slot and index; a power of two, at most half full.
    table: Box<[(u32, u32)]>,
}

/// Index of a free place in the table.
const FREE: u32 = u32::MAX;

impl SlotMap {
    /// The map of a pool; an endpoint's index is its place in `slots`.
    pub fn new(slots: impl IntoIterator<Item = u32>) -> Self {
        let slots: Box<[u32]> = slots.into_iter().collect();
        let mut map = Self { table: vec![(0, FREE); (2 * slots.len()).next_power_of_two()].into(), slots };
        for (index, slot) in (0..).zip(&map.slots) {
            let slot = slot & SLOT_MASK;
            let mut place = home(slot, map.table.len());
            while map.table[place].1 != FREE {
                place = (place + 1) % map.table.len();
            }
            map.table[place] = (slot, index);
        }
        map
    }

    /// The index of the endpoint of `slot`; `None` if the pool has it not.
    pub fn get(&self, slot: u32) -> Option<u32> {
        let slot = slot & SLOT_MASK;
        let mut place = home(slot, self.table.len());
        loop {
            let (held, index) = *self.table.get(place)?;
            if index == FREE {
                return None;
            }
            if held == slot {
                return Some(index);
            }
            place = (place + 1) & (self.table.len() - 1);
        }
    }

    /// Slots by index.
    pub fn as_slice(&self) -> &[u32] {
        &self.slots
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Where a slot belongs in a table of `len`, a power of two (Fibonacci hashing).
fn home(slot: u32, len: usize) -> usize {
    let spread = u64::from(slot.wrapping_mul(0x9e37_79b9));
    ((spread * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_of_the_pool_is_found_and_no_other() {
        for len in [0, 1, 2, 3, 10, 64, 4_096_u32] {
            let slots: Vec<u32> = (0..len).map(|index| 5 + index * 3).collect();
            let map = SlotMap::new(slots.iter().copied());
            for (index, slot) in (0..).zip(&slots) {
                assert_eq!(map.get(*slot), Some(index));
                assert_eq!(map.get(*slot + 1), None);
            }
            assert_eq!(map.get(0), None);
            assert_eq!(map.as_slice(), slots);
        }
        assert_eq!(SlotMap::default().get(1), None);
    }
}
