//! Components whose compilation ended without a verdict on them: they are tried again, later and later.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use domain::policy::{Digest, PrepareFailure};

/// After the first failure a component is tried again so much later; twice as late each time.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(60);
/// And at least so often.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Components of which this is known; of more, the one that is due first is forgotten.
const SETBACKS_MAX: usize = 256;

/// What is known of one of them.
#[derive(Clone, Debug)]
struct Setback {
    failures: u32,
    failure: PrepareFailure,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not before then.
    Until(Instant),
    /// May be tried.
    Due,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Setbacks(HashMap<Digest, Setback>);

impl Setbacks {
    /// Counts a failure.
    pub(crate) fn add(&mut self, digest: Digest, failure: PrepareFailure, now: Instant) {
        let failures = self.0.get(&digest).map_or(0, |known| known.failures).saturating_add(1);
        let state = State::Until(now + wait(failures));
        self.0.insert(digest, Setback { failures, failure, state });
        if self.0.len() > SETBACKS_MAX
            && let Some((first, _)) = self
                .0
                .iter()
                .filter_map(|(digest, known)| Some((*digest, known.until()?)))
                .min_by_key(|(_, until)| *until)
        {
            self.0.remove(&first);
        }
    }

    /// What is said of the component until it is tried again; `None` where nothing is known against trying it.
    pub(crate) fn failure(&self, digest: &Digest) -> Option<&PrepareFailure> {
        self.0.get(digest).filter(|known| known.state != State::Due).map(|known| &known.failure)
    }

    /// Whether the component may be tried again now; if so, not again before its wait is over once more.
    pub(crate) fn take_due(&mut self, digest: &Digest, now: Instant) -> bool {
        let Some(known) = self.0.get_mut(digest).filter(|known| known.state == State::Due) else {
            return false;
        };
        known.state = State::Until(now + wait(known.failures));
        true
    }

    /// Forgets a component that was compiled, or judged.
    pub(crate) fn clear(&mut self, digest: &Digest) {
        self.0.remove(digest);
    }

    /// Lets those be tried whose time has come. Whether there are any among the `live`.
    pub(crate) fn ripen(&mut self, now: Instant, live: impl Fn(&Digest) -> bool) -> bool {
        let mut news = false;
        for (digest, known) in &mut self.0 {
            if known.until().is_some_and(|until| until <= now) {
                known.state = State::Due;
                news |= live(digest);
            }
        }
        news
    }

    /// When the next one's time comes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(Setback::until).min()
    }
}

impl Setback {
    fn until(&self) -> Option<Instant> {
        match self.state {
            State::Until(until) => Some(until),
            State::Due => None,
        }
    }
}

/// How long a component is left alone after so many failures.
fn wait(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::refuse;

    /// C1: what a compiler died of is not compiled again at once, whatever objects come and go.
    #[test]
    fn a_component_that_failed_is_left_alone_twice_as_long_each_time() {
        let (digest, mut now) = (Digest([7; 32]), Instant::now());
        let mut setbacks = Setbacks::default();
        let mut wait = RETRY_MIN;
        for _ in 0..9 {
            setbacks.add(digest, refuse("CompileMemory", "too much", ""), now);
            assert_eq!(setbacks.failure(&digest).unwrap().reason, "CompileMemory");
            assert!(!setbacks.ripen(now + wait - Duration::from_millis(1), |_| true));
            assert!(!setbacks.take_due(&digest, now), "not yet");
            now += wait;
            assert_eq!(setbacks.next(), Some(now));
            assert!(setbacks.ripen(now, |_| true));
            assert!(setbacks.take_due(&digest, now) && !setbacks.take_due(&digest, now), "once");
            assert!(setbacks.failure(&digest).is_some(), "still failed while it is tried again");
            wait = (wait * 2).min(RETRY_MAX);
        }
        setbacks.clear(&digest);
        assert!(setbacks.failure(&digest).is_none());
    }

    #[test]
    fn what_is_known_of_failures_is_bounded() {
        let mut setbacks = Setbacks::default();
        for at in 0..2 * SETBACKS_MAX {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&at.to_le_bytes());
            setbacks.add(Digest(digest), refuse("CompileTime", "too long", ""), Instant::now());
        }
        assert_eq!(setbacks.0.len(), SETBACKS_MAX);
    }
}
