//! The bound on request bodies that are held in memory at one time, over all gateways and workers of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Body bytes in memory, and how many there may be. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct BodyBytes {
    shared: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    held: AtomicU64,
    /// 0: no limit.
    max: u64,
}

/// Some of the bytes, held for one body. Dropping it gives them back.
#[derive(Debug)]
pub struct BodyHold {
    bytes: BodyBytes,
    held: u64,
}

impl BodyBytes {
    /// At most `bytes_max` at one time; 0, the default, is no limit.
    pub fn new(bytes_max: u64) -> Self {
        Self { shared: Arc::new(Held { held: AtomicU64::new(0), max: bytes_max }) }
    }

    /// Holds `bytes`, if so many are free. A body of unknown length begins with 0 and grows.
    pub fn try_hold(&self, bytes: u64) -> Option<BodyHold> {
        let mut hold = BodyHold { bytes: self.clone(), held: 0 };
        hold.try_grow(bytes).then_some(hold)
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Relaxed)
    }

    /// The limit; 0 is none.
    pub fn bytes_max(&self) -> u64 {
        self.shared.max
    }
}

impl BodyHold {
    /// Holds `bytes` more, if so many are free; else nothing changes.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let shared = &self.bytes.shared;
        let max = if shared.max == 0 { u64::MAX } else { shared.max };
        let grown = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= max);
        // Relaxed: the count stands for itself; no other memory is published by it.
        if bytes > 0 && shared.held.fetch_update(Relaxed, Relaxed, grown).is_err() {
            return false;
        }
        self.held += bytes;
        true
    }

    /// Gives back what is beyond `bytes`: the body turned out shorter, or was sent.
    pub fn shrink_to(&mut self, bytes: u64) {
        let beyond = self.held.saturating_sub(bytes);
        self.bytes.shared.held.fetch_sub(beyond, Relaxed);
        self.held -= beyond;
    }

    /// Bytes held by this one.
    pub fn held(&self) -> u64 {
        self.held
    }
}

impl Drop for BodyHold {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_held_up_to_the_bound_and_given_back() {
        let bytes = BodyBytes::new(100);
        let mut first = bytes.try_hold(60).expect("free");
        assert!(bytes.try_hold(41).is_none());
        let second = bytes.try_hold(40).expect("exactly the bound");
        assert!(!first.try_grow(1));
        assert_eq!((first.held(), bytes.held()), (60, 100));
        first.shrink_to(10);
        assert_eq!(bytes.held(), 50);
        first.shrink_to(99);
        assert_eq!(first.held(), 10, "shrinking never grows");
        drop(first);
        drop(second);
        assert_eq!(bytes.held(), 0);
    }

    #[test]
    fn without_a_bound_bytes_are_still_counted() {
        let bytes = BodyBytes::default();
        let mut hold = bytes.try_hold(u64::MAX - 1).expect("no bound");
        assert!(!hold.try_grow(2), "but never wraps");
        assert_eq!(bytes.held(), u64::MAX - 1);
    }

    #[test]
    fn threads_together_never_hold_more_than_the_bound() {
        let bytes = BodyBytes::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let hold = bytes.try_hold(400);
                        assert!(bytes.held() <= 1_000);
                        drop(hold);
                    }
                });
            }
        });
        assert_eq!(bytes.held(), 0);
    }
}
