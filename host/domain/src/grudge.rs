//! Which endpoints failed which prompts and sessions of late: those go elsewhere for a while.
//!
//! A breaker forgets an endpoint's failure as soon as it answers another request. A session's owner, or the holder of a
//! prompt, would then get the very request back that it failed. So its failures are remembered by what was asked.
//!
//! Costs one load per request while nothing has failed for [`GRUDGE_MS`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How long an endpoint does not get what it failed, milliseconds. With the longest backoff, less than the 15 s within which
/// an engine is back after its recovery.
pub const GRUDGE_MS: u64 = 8_000;
/// Failures that a pool remembers; beyond, the oldest are forgotten. 24 bytes each.
pub const GRUDGES_MAX: usize = 256;
/// Bytes of a prompt that tell it from others, beside its length.
const PROMPT_BYTES_MAX: usize = 64 << 10;

/// What a failure is remembered by: up to two keys, of the session and of the prompt.
pub type GrudgeKeys = SmallVec<[u64; 2]>;

/// The keys of a request with this session and raw prompt; none where it has neither.
pub fn keys(session: Option<&[u8]>, prompt: &[u8]) -> GrudgeKeys {
    let session = session.map(|session| xxh3_64_with_seed(session, 1));
    let head = &prompt[..prompt.len().min(PROMPT_BYTES_MAX)];
    let prompt = (!prompt.is_empty()).then(|| xxh3_64_with_seed(head, prompt.len() as u64 + 2));
    session.into_iter().chain(prompt).collect()
}

/// Failures of one pool, shared by all workers.
#[derive(Debug, Default)]
pub struct Grudges {
    /// When the last of them is forgotten; 0 if there never was one.
    until_ms: AtomicU64,
    list: Mutex<Vec<Grudge>>,
}

#[derive(Clone, Copy, Debug)]
struct Grudge {
    key: u64,
    slot: u32,
    until_ms: u64,
}

impl Grudges {
    /// Whether anything is remembered.
    pub fn is_active(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Relaxed)
    }

    /// Remembers that the endpoint of `slot` failed a request with these keys.
    pub fn note(&self, keys: &[u64], slot: u32, now_ms: u64) {
        let until_ms = now_ms + GRUDGE_MS;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|grudge| {
            grudge.until_ms > now_ms && !(grudge.slot == slot && keys.contains(&grudge.key))
        });
        // Oldest first, as each lasts equally long.
        let surplus = (list.len() + keys.len()).saturating_sub(GRUDGES_MAX).min(list.len());
        list.drain(..surplus);
        list.extend(keys.iter().map(|key| Grudge { key: *key, slot, until_ms }));
        self.until_ms.fetch_max(until_ms, Relaxed);
    }

    /// Slots of the endpoints that failed a request with one of these keys.
    pub fn of(&self, keys: &[u64], now_ms: u64) -> SmallVec<[u32; 4]> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let held = list.iter().filter(|grudge| grudge.until_ms > now_ms && keys.contains(&grudge.key));
        held.map(|grudge| grudge.slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A1: a holder or owner that failed a prompt or session loses it for a while.
    #[test]
    fn what_an_endpoint_failed_is_remembered_for_a_while_by_session_and_by_prompt() {
        let grudges = Grudges::default();
        assert!(!grudges.is_active(0));
        let failed = keys(Some(b"session"), b"[\"a long prompt\"]");
        grudges.note(&failed, 7, 1_000);
        grudges.note(&failed, 7, 1_000);
        let last_ms = 1_000 + GRUDGE_MS - 1;
        assert!(grudges.is_active(last_ms) && !grudges.is_active(last_ms + 1));
        let of = |keys: GrudgeKeys, now_ms| grudges.of(&keys, now_ms).into_vec();
        assert_eq!(of(keys(Some(b"session"), b"\"the next turn\""), last_ms), [7], "the session, once");
        assert_eq!(of(keys(None, b"[\"a long prompt\"]"), last_ms), [7], "the prompt");
        assert_eq!(of(keys(Some(b"other"), b"\"another\""), last_ms), []);
        assert_eq!(of(failed, last_ms + 1), []);
        assert!(keys(None, b"").is_empty());
    }

    #[test]
    fn the_oldest_failures_are_forgotten_at_the_bound() {
        let grudges = Grudges::default();
        for number in 0..GRUDGES_MAX as u64 + 10 {
            grudges.note(&[number], 1, 0);
        }
        assert!(grudges.of(&[9], 0).is_empty());
        assert_eq!(grudges.of(&[10], 0).len(), 1);
        assert_eq!(grudges.list.lock().unwrap().len(), GRUDGES_MAX);
    }
}
