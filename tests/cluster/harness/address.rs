//! Addresses for pods: each is given out once in the life of the suite.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// First and last host of each network that `inside.sh` made local; the lowest are the control planes' own.
const LOCAL: [([u8; 3], u8, u8); 2] = [([192, 0, 2], 16, 254), ([198, 51, 100], 2, 254)];
/// The same of the bridge for pods that are processes.
const BRIDGE: [([u8; 3], u8, u8); 1] = [([203, 0, 113], 2, 254)];

/// The next free address that engines of this process can listen on.
///
/// # Panics
/// After some 490 of them.
pub fn next() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    nth(NEXT.fetch_add(1, Ordering::Relaxed), &LOCAL)
}

/// The next free address of a pod that is a process.
///
/// # Panics
/// After some 250 of them.
pub fn next_of_bridge() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    nth(NEXT.fetch_add(1, Ordering::Relaxed), &BRIDGE)
}

fn nth(mut index: u32, networks: &[([u8; 3], u8, u8)]) -> Ipv4Addr {
    for ([a, b, c], first, last) in networks {
        let size = u32::from(last - first) + 1;
        if index < size {
            let host = first + u8::try_from(index).expect("below the size");
            return Ipv4Addr::new(*a, *b, *c, host);
        }
        index -= size;
    }
    panic!("no address is left: give the suite another network in inside.sh")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_address_is_given_out_twice() {
        let given: Vec<_> = (0..400).map(|_| super::next()).collect();
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    }
}
