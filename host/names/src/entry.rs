//! What is known of one name. Pure: times are arguments.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shortest time that an answer counts as fresh, whatever its time to live says.
const FRESH_MIN: Duration = Duration::from_secs(1);
/// Longest time that an answer counts as fresh: bounds how late the new addresses of a name are seen.
pub const FRESH_MAX: Duration = Duration::from_secs(5);
/// How long the last good answer is used while the name servers do not answer.
pub const STALE_MAX: Duration = Duration::from_secs(3_600);
/// An answer that was fresh so recently is used while the next one is fetched; for an older one a caller waits a moment.
const STALE_AT_ONCE: Duration = Duration::from_secs(10);
/// Pause after a look-up that failed; doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Bound of the doubling.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long an address that did not connect is tried after the others of its name.
pub const SLOW_FOR: Duration = Duration::from_secs(30);
/// Most addresses of one name that are used.
pub const ADDRESSES_MAX: usize = 256;

/// What name servers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Not empty.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) time_to_live: Duration,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Name servers say that the name does not exist, or has no address.
    Gone,
    /// Name servers are silent or fail: the last good answer stays in use.
    Unanswered,
}

/// What a caller can do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Use these.
    Now(Arc<[IpAddr]>),
    /// Use these, unless an answer comes within a moment.
    Soon(Arc<[IpAddr]>),
    /// Wait for the answer.
    Unknown,
    /// There is none, and asking again is not due.
    Failed,
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    good: Option<Good>,
    /// Addresses of the answer before the last one.
    before: Arc<[IpAddr]>,
    trouble: Option<Trouble>,
    /// Addresses that did not connect, and until when they count as slow.
    slow: Vec<(IpAddr, Instant)>,
    /// Moves on with each connection, so that all addresses get some.
    turn: usize,
    /// Moves on whenever an address may have left.
    version: u64,
}

#[derive(Debug)]
struct Good {
    addresses: Arc<[IpAddr]>,
    at: Instant,
    fresh_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// Look-ups that failed, in a row.
    failures: u32,
    next: Instant,
}

impl Entry {
    /// Whether name servers should be asked now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_stale = self.good.as_ref().is_none_or(|good| now >= good.fresh_until);
        is_stale && self.trouble.is_none_or(|trouble| now >= trouble.next)
    }

    pub(crate) fn known(&self, now: Instant) -> Known {
        match &self.good {
            Some(good) if now < good.fresh_until + STALE_AT_ONCE => Known::Now(Arc::clone(&good.addresses)),
            Some(good) if now < good.at + STALE_MAX => match self.trouble {
                // They do not answer: waiting for them again would delay every connection.
                Some(_) => Known::Now(Arc::clone(&good.addresses)),
                None => Known::Soon(Arc::clone(&good.addresses)),
            },
            _ if self.trouble.is_some_and(|trouble| now < trouble.next) => Known::Failed,
            _ => Known::Unknown,
        }
    }

    /// Whether there is an answer to fall back on.
    pub(crate) fn has_answer(&self) -> bool {
        self.good.is_some()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes what a look-up found.
    pub(crate) fn settle(&mut self, found: Result<Answer, NoAnswer>, now: Instant) {
        match found {
            Ok(answer) => self.learn(answer, now),
            Err(why) => {
                if why == NoAnswer::Gone {
                    self.good = None;
                }
                let failures = self.trouble.map_or(0, |trouble| trouble.failures);
                let pause = PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
                self.trouble = Some(Trouble { failures: failures.saturating_add(1), next: now + pause });
            }
        }
    }

    fn learn(&mut self, answer: Answer, now: Instant) {
        let Answer { mut addresses, time_to_live } = answer;
        // Name servers rotate their answers; a change of the order is none.
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let last = self.good.take().map_or_else(Arc::default, |good| good.addresses);
        if *last != *addresses || last != self.before {
            self.version += 1;
        }
        self.before = last;
        let fresh_until = now + time_to_live.clamp(FRESH_MIN, FRESH_MAX);
        self.good = Some(Good { addresses: addresses.into(), at: now, fresh_until });
        self.trouble = None;
    }

    /// Whether an address is in neither of the last two answers. Some name servers give a part of many addresses each time:
    /// one answer without it does not mean that it has left.
    pub(crate) fn has_left(&self, address: IpAddr) -> bool {
        let good = self.good.as_ref();
        good.is_some_and(|good| !good.addresses.contains(&address)) && !self.before.contains(&address)
    }

    /// An address did not connect, or not in time.
    pub(crate) fn set_slow(&mut self, address: IpAddr, now: Instant) {
        self.slow.retain(|(slow, until)| *slow != address && now < *until);
        if self.slow.len() < ADDRESSES_MAX {
            self.slow.push((address, now + SLOW_FOR));
        }
    }

    /// An address connected.
    pub(crate) fn set_well(&mut self, address: IpAddr) {
        self.slow.retain(|(slow, _)| *slow != address);
    }

    /// The order in which to try addresses: families in turn (RFC 8305, section 4), each beginning with another address
    /// every time, and those that did not connect lately at the end.
    pub(crate) fn order(&mut self, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        self.turn = self.turn.wrapping_add(1);
        let family = |wants_v6: bool| {
            let mut all: Vec<IpAddr> =
                addresses.iter().copied().filter(|address| address.is_ipv6() == wants_v6).collect();
            let first = self.turn % all.len().max(1);
            all.rotate_left(first);
            all.into_iter()
        };
        let (mut sixes, mut fours) = (family(true), family(false));
        let mut order = Vec::with_capacity(addresses.len());
        while order.len() < addresses.len() {
            order.extend(sixes.next());
            order.extend(fours.next());
        }
        let is_slow =
            |address: &IpAddr| self.slow.iter().any(|(slow, until)| slow == address && now < *until);
        // Stable: the order among each half stays.
        order.sort_by_key(is_slow);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().expect("an address")).collect()
    }

    fn answer(text: &str, seconds: u64) -> Result<Answer, NoAnswer> {
        Ok(Answer { addresses: ips(text), time_to_live: Duration::from_secs(seconds) })
    }

    /// A4: fresh, then used while the next answer is fetched, then kept while there is none, for a bounded time.
    #[test]
    fn the_last_good_answer_is_kept_for_a_bounded_time_while_the_name_is_unanswerable() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut entry = Entry::default();
        assert!(entry.is_due(at(0)) && entry.known(at(0)) == Known::Unknown);
        entry.settle(answer("10.0.0.1", 300), at(0));
        let addresses: Arc<[IpAddr]> = ips("10.0.0.1").into();
        assert!(!entry.is_due(at(4)), "fresh");
        assert!(entry.is_due(at(5)), "however long it says it lives");
        assert_eq!(entry.known(at(14)), Known::Now(Arc::clone(&addresses)));
        assert_eq!(entry.known(at(15)), Known::Soon(Arc::clone(&addresses)));
        entry.settle(Err(NoAnswer::Unanswered), at(15));
        assert_eq!(entry.known(at(16)), Known::Now(Arc::clone(&addresses)), "nothing waits for silence");
        assert!(!entry.is_due(at(15)) && entry.is_due(at(16)));
        for second in 16..3_600 {
            if entry.is_due(at(second)) {
                entry.settle(Err(NoAnswer::Unanswered), at(second));
            }
        }
        assert_eq!(entry.known(at(3_599)), Known::Now(addresses));
        assert_ne!(entry.known(at(3_600)), entry.known(at(3_599)), "bounded");
    }

    #[test]
    fn a_name_that_is_gone_is_gone_at_once_and_asked_again_after_a_pause() {
        let now = Instant::now();
        let mut entry = Entry::default();
        entry.settle(answer("10.0.0.1", 5), now);
        entry.settle(Err(NoAnswer::Gone), now);
        assert_eq!(entry.known(now), Known::Failed);
        assert!(!entry.is_due(now));
        assert_eq!(entry.known(now + PAUSE_MIN), Known::Unknown);
    }

    /// A6: an address has left once two answers in a row are without it.
    #[test]
    fn an_address_that_is_in_neither_of_two_answers_has_left() {
        let now = Instant::now();
        let [old, new] = ips("10.0.0.1 10.0.0.2")[..] else { panic!("two") };
        let mut entry = Entry::default();
        entry.settle(answer("10.0.0.1", 5), now);
        entry.settle(answer("10.0.0.1", 5), now);
        let version = entry.version();
        entry.settle(answer("10.0.0.1", 5), now);
        assert_eq!(entry.version(), version, "nothing has changed");
        entry.settle(answer("10.0.0.2", 5), now);
        assert!(!entry.has_left(old) && !entry.has_left(new));
        let version = entry.version();
        entry.settle(answer("10.0.0.2", 5), now);
        assert!(entry.has_left(old) && !entry.has_left(new));
        assert!(entry.version() > version, "connections look again");
    }

    /// A5: families alternate, all addresses get their turn, and what did not connect comes last.
    #[test]
    fn addresses_are_tried_in_turns_and_slow_ones_last() {
        let now = Instant::now();
        let all = ips("fd00::1 10.0.0.1 10.0.0.2 10.0.0.3");
        let mut entry = Entry::default();
        let first: Vec<_> = (0..3).map(|_| entry.order(&all, now)[1]).collect();
        assert!(
            first.iter().all(IpAddr::is_ipv4) && first[0] != first[1] && first[1] != first[2],
            "{first:?}"
        );
        assert!(entry.order(&all, now)[0].is_ipv6());
        entry.set_slow(all[0], now);
        assert_eq!(entry.order(&all, now).last(), Some(&all[0]));
        assert_eq!(entry.order(&all, now + SLOW_FOR)[0], all[0], "for a while");
        entry.set_well(all[0]);
        assert_eq!(entry.order(&all, now)[0], all[0], "or until it connects");
    }
}
