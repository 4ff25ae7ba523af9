//! The bound on request bodies that are held in memory at one time, over all gateways and workers of the process.
//!
//! What counts is what has arrived, not what was claimed. Bodies on their way from one client together have a share of the
//! bound: many bodies that never end, of one client, leave room for those of the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bodies on their way from one client may hold one part in so many of the bound together. One body alone may be larger.
pub const CLIENT_SHARES: u64 = 4;

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
    /// Bytes of bodies on their way, by client: as many entries as clients with such a body.
    arriving: Mutex<HashMap<IpAddr, u64>>,
}

/// Some of the bytes, held for one body. Dropping it gives them back.
#[derive(Debug)]
pub struct BodyHold {
    bytes: BodyBytes,
    held: u64,
    /// Whose share it counts in while it is on its way.
    client: Option<IpAddr>,
}

impl BodyBytes {
    /// At most `bytes_max` at one time; 0, the default, is no limit.
    pub fn new(bytes_max: u64) -> Self {
        Self { shared: Arc::new(Held { max: bytes_max, ..Held::default() }) }
    }

    /// Holds `bytes`, if so many are free. A body of unknown length begins with 0 and grows.
    pub fn try_hold(&self, bytes: u64) -> Option<BodyHold> {
        let mut hold = BodyHold { bytes: self.clone(), held: 0, client: None };
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

impl Held {
    fn arriving(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self, bytes: u64) -> bool {
        let max = if self.max == 0 { u64::MAX } else { self.max };
        let grown = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= max);
        // Relaxed: the count stands for itself; no other memory is published by it.
        bytes == 0 || self.held.fetch_update(Relaxed, Relaxed, grown).is_ok()
    }
}

impl BodyHold {
    /// Counts this body in the share of `client` until [`Self::arrived`]. False, and nothing changes, if the share is used up.
    ///
    /// Takes a lock: for bodies that did not come in one piece.
    pub fn try_arrive_from(&mut self, client: IpAddr) -> bool {
        let client = network(client);
        if self.client.is_some() || self.bytes.shared.max == 0 {
            return true;
        }
        let mut arriving = self.bytes.shared.arriving();
        let others = arriving.get(&client).copied().unwrap_or(0);
        if others > 0 && others.saturating_add(self.held) > self.bytes.shared.max / CLIENT_SHARES {
            return false;
        }
        *arriving.entry(client).or_default() += self.held;
        self.client = Some(client);
        true
    }

    /// The body is here, whole: it counts in no share any more.
    pub fn arrived(&mut self) {
        let Some(client) = self.client.take() else { return };
        let mut arriving = self.bytes.shared.arriving();
        if let Some(sum) = arriving.get_mut(&client) {
            *sum = sum.saturating_sub(self.held);
            if *sum == 0 {
                arriving.remove(&client);
            }
        }
    }

    /// Holds `bytes` more, if so many are free, and left in its client's share while it is on its way; else nothing changes.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let shared = &self.bytes.shared;
        let Some(client) = self.client else {
            let is_taken = shared.try_take(bytes);
            self.held += if is_taken { bytes } else { 0 };
            return is_taken;
        };
        let mut arriving = shared.arriving();
        let sum = arriving.entry(client).or_default();
        let is_alone = *sum == self.held;
        let fits = is_alone || sum.saturating_add(bytes) <= shared.max / CLIENT_SHARES;
        if !fits || !shared.try_take(bytes) {
            return false;
        }
        *sum += bytes;
        self.held += bytes;
        true
    }

    /// Gives back what is beyond `bytes`: the body turned out shorter, or was sent.
    pub fn shrink_to(&mut self, bytes: u64) {
        let beyond = self.held.saturating_sub(bytes);
        if beyond == 0 {
            return;
        }
        if let Some(client) = self.client
            && let Some(sum) = self.bytes.shared.arriving().get_mut(&client)
        {
            *sum = sum.saturating_sub(beyond);
        }
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
        self.arrived();
        self.shrink_to(0);
    }
}

/// What counts as one client: an IPv4 address, or the /64 network of an IPv6 one, whose addresses one host can take at will.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
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

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// C3: bodies on their way from one client leave room for other clients; those that are here count in no share.
    #[test]
    fn bodies_on_their_way_have_a_share_for_each_client() {
        let bytes = BodyBytes::new(100);
        let mut first = bytes.try_hold(10).expect("free");
        assert!(first.try_arrive_from(client(1)));
        let mut second = bytes.try_hold(5).expect("free");
        assert!(second.try_arrive_from(client(1)));
        assert!(!second.try_grow(11), "26 of a share of 25");
        assert!(second.try_grow(10));
        let mut third = bytes.try_hold(1).expect("free");
        assert!(!third.try_arrive_from(client(1)), "the share is used up");
        assert!(third.try_arrive_from(client(2)) && third.try_grow(20), "another client's is not");
        first.arrived();
        assert!(first.try_grow(20), "it is on its way no more");
        assert!(second.try_grow(10), "alone now: one body may be larger than the share");
        drop((first, second, third));
        assert_eq!(bytes.held(), 0);
        assert!(bytes.shared.arriving().is_empty(), "no entry is left");
    }

    #[test]
    fn the_addresses_of_one_network_are_one_client() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
