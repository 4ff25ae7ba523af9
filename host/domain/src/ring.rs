//! The session ring: which endpoints own a session, so that a conversation stays where its cache is.
//!
//! Identical to Python's `uhashring.HashRing()` as the production stack's router uses it, so that sessions keep their
//! engine when that router is replaced: 160 points a node, each the MD5 of `"{url}-{0..159}"` as a 128-bit big-endian
//! number; a session belongs to the first point strictly greater than the MD5 of its id, wrapping to the smallest.
//! MD5 is a wire format here, not a safeguard.

use std::iter::successors;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use md5::{Digest, Md5};

/// Points of one node on the ring: `uhashring`'s default for weight 1 (4 × 40 in the ketama scheme).
pub const POINTS_PER_NODE: u32 = 160;

/// Owners that [`Ring::owners`] names at most: the first choice and two to move on to (the bound in `routing.wit`).
pub const OWNERS_MAX: usize = 3;

/// A session's owners, nearest first: distinct indices into the list the ring was built from, at most [`OWNERS_MAX`].
///
/// Reads as a slice; empty only on an empty ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    indices: [u32; OWNERS_MAX],
    len: u8,
}

impl Deref for Owners {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.indices[..usize::from(self.len)]
    }
}

/// A consistent-hash ring over the URLs of one pool. 20 bytes a point, so 3.2 KB a node.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Ascending. `nodes[i]` owns `points[i]`; two lists, as a pair of both would be padded to 32 bytes.
    points: Box<[u128]>,
    nodes: Box<[u32]>,
    len: u32,
}

impl Ring {
    /// Builds the ring; a node's index is its place in `urls`. About 0.3 ms for 10 nodes, 2 ms for 64, 0.2 s for 4,096
    /// (160 MD5 each, measured on one busy core).
    pub fn build(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut ring: Vec<(u128, u32)> = Vec::new();
        let mut len = 0;
        for url in urls {
            let stem = Md5::new().chain_update(url.as_ref()).chain_update("-");
            for replica in 0..POINTS_PER_NODE {
                ring.push((with_decimal(stem.clone(), replica), len));
            }
            len += 1;
        }
        ring.sort_unstable();
        let (points, nodes): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
        Self { points: points.into(), nodes: nodes.into(), len }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The owners of a session. An empty id is a session like any other; whoever has a number hashes its decimal text.
    ///
    /// One MD5 and one binary search, no allocation. The second owner is the one that takes over when the first leaves.
    pub fn owners(&self, session: &[u8]) -> Owners {
        let key = u128::from_be_bytes(Md5::digest(session).into());
        // `bisect_right`: the first point strictly greater.
        let start = self.points.partition_point(|point| *point <= key);
        let mut owners = Owners::default();
        for node in self.nodes[start..].iter().chain(&self.nodes[..start]) {
            if !owners.contains(node) {
                owners.indices[usize::from(owners.len)] = *node;
                owners.len += 1;
                if usize::from(owners.len) == OWNERS_MAX.min(self.len()) {
                    break;
                }
            }
        }
        owners
    }
}

/// Finishes `digest` with the decimal text of `number`, as a 128-bit big-endian number.
fn with_decimal(digest: Md5, number: u32) -> u128 {
    let mut text = [0; 10];
    let mut start = text.len();
    for rest in successors(Some(number), |rest| (*rest >= 10).then_some(rest / 10)) {
        start -= 1;
        // A digit fits a byte.
        text[start] = b'0' + (rest % 10) as u8;
    }
    u128::from_be_bytes(digest.chain_update(&text[start..]).finalize().into())
}

/// A ring that is built when the first session asks.
///
/// Lowering may hold thousands of pools, of which few see sessions: building all rings would cost more than all the rest
/// of lowering (1.6 million MD5 for 10,000 endpoints). Pools of the same URLs share one, over generations too.
///
/// The first session pays for the building ([`Ring::build`] says how much), and who asks meanwhile waits for it. A
/// publisher pays ahead, on its own thread, with [`LazyRing::get`]: where the ring of the pool before was built, or the
/// pool is large.
#[derive(Debug, Default)]
pub struct LazyRing {
    urls: Vec<Arc<str>>,
    ring: OnceLock<Ring>,
}

impl LazyRing {
    /// A ring over `urls`, not built yet; a node's index is its place there.
    pub fn new(urls: Vec<Arc<str>>) -> Self {
        Self { urls, ring: OnceLock::new() }
    }

    /// The ring, built now if it was not.
    pub fn get(&self) -> &Ring {
        self.ring.get_or_init(|| Ring::build(&self.urls))
    }

    /// Whether it was built already.
    pub fn is_built(&self) -> bool {
        self.ring.get().is_some()
    }

    /// The owners of a session; see [`Ring::owners`].
    pub fn owners(&self, session: &[u8]) -> Owners {
        self.get().owners(session)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn url(octet: u32) -> String {
        format!("http://10.0.0.{octet}:8000")
    }

    fn owner(nodes: &[u32], session: &str) -> u32 {
        nodes[Ring::build(nodes.iter().copied().map(url)).owners(session.as_bytes())[0] as usize]
    }

    #[test]
    fn sessions_live_where_uhashring_puts_them() {
        // session, owner among nodes 1–3, owner among nodes 1–2: made with uhashring 2.3 and 2.5.
        let vectors = [
            ("abc123", 3, 1),
            ("session1", 2, 2),
            ("session2", 3, 1),
            ("session3", 3, 2),
            ("session4", 3, 1),
            ("session5", 3, 2),
            ("user-42", 3, 1),
            ("", 1, 1),
            ("42", 1, 1),
        ];
        for (session, of_three, of_two) in vectors {
            assert_eq!(owner(&[1, 2, 3], session), of_three, "{session:?} of three");
            assert_eq!(owner(&[1, 2], session), of_two, "{session:?} of two");
            assert_eq!(
                owner(&[3, 1, 2], session),
                of_three,
                "{session:?}: order of the list does not matter"
            );
        }
    }

    #[test]
    fn a_session_on_a_point_belongs_to_the_next_one() {
        // Ids that are the very text of a point of node 1; made with `bisect_right` of Python.
        let ring = Ring::build((1..=3).map(url));
        for (replica, octet) in [(0, 1), (1, 2), (3, 3), (4, 2)] {
            let session = format!("{}-{replica}", url(1));
            assert_eq!(ring.owners(session.as_bytes())[0] + 1, octet, "{session}");
        }
    }

    #[test]
    fn a_node_that_leaves_hands_its_sessions_to_their_second_owner_and_moves_no_other() {
        let all = Ring::build((1..=5).map(url));
        let fewer = Ring::build((1..=4).map(url));
        for session in 0..500 {
            let session = format!("session-{session}");
            let before = all.owners(session.as_bytes());
            let after = fewer.owners(session.as_bytes());
            assert_eq!(after[0], if before[0] == 4 { before[1] } else { before[0] }, "{session}");
        }
    }

    #[test]
    fn owners_are_distinct_and_as_many_as_there_are_nodes_up_to_three() {
        for nodes in 0..6 {
            let ring = Ring::build((0..nodes).map(url));
            for session in 0..100_u32 {
                let owners = ring.owners(&session.to_be_bytes());
                let distinct: HashSet<u32> = owners.iter().copied().collect();
                assert_eq!(owners.len(), (nodes as usize).min(OWNERS_MAX));
                assert_eq!(distinct.len(), owners.len());
                assert!(owners.iter().all(|owner| *owner < nodes));
            }
        }
    }

    #[test]
    fn equal_urls_share_their_points_and_both_are_named() {
        let ring = Ring::build([url(1), url(1)]);
        assert_eq!(&*ring.owners(b"abc123"), [0, 1]);
    }

    #[test]
    fn a_lazy_ring_is_built_by_its_first_session_only() {
        let lazy = LazyRing::new((1..=3).map(|octet| url(octet).into()).collect());
        assert!(!lazy.is_built());
        assert_eq!(lazy.owners(b"session1")[0], 1);
        assert!(lazy.is_built());
    }
}
