//! When a burst of changes in a directory has settled: a function of values, without clock or IO.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::watch::Heard;

/// Quiet time that ends a burst. Long enough for an editor's rename-and-write, short beside the 100 ms that an edit may
/// take to reach the workers.
pub const QUIET: Duration = Duration::from_millis(8);
/// A burst that does not end is looked at after this long.
pub const BURST_MAX: Duration = Duration::from_millis(40);
/// A file that somebody keeps open for writing holds its burst back for this long.
pub const HELD_MAX: Duration = Duration::from_secs(1);
/// Files held open at a time that are told apart; with more, nobody waits for any.
const HELD_FILES_MAX: usize = 1_024;

/// The burst that is under way.
#[derive(Debug, Default)]
pub(super) struct Settle {
    /// First and last news of the burst.
    span: Option<(Instant, Instant)>,
    /// Manifests that are being written.
    held: BTreeSet<PathBuf>,
}

impl Settle {
    /// Takes one piece of news. `is_manifest` tells which files are worth waiting for.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant, is_manifest: impl Fn(&Path) -> bool) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        match heard {
            Heard::Writing(path) if is_manifest(&path) && self.held.len() < HELD_FILES_MAX => {
                self.held.insert(path);
            }
            Heard::Changed(path) => {
                self.held.remove(&path);
            }
            Heard::Writing(_) | Heard::Anything => {}
        }
    }

    /// When to look; `None` while nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.span?;
        if self.held.is_empty() {
            Some((last + QUIET).min(first + BURST_MAX))
        } else {
            Some(first + HELD_MAX)
        }
    }

    /// The directory has been looked at.
    pub(super) fn done(&mut self) {
        self.span = None;
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_settles_after_a_quiet_moment_and_is_not_put_off_for_ever() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        assert_eq!(settle.due(), None);
        settle.hear(Heard::Anything, t0, |_| true);
        assert_eq!(settle.due(), Some(t0 + QUIET));
        settle.hear(Heard::Anything, t0 + ms(6), |_| true);
        assert_eq!(settle.due(), Some(t0 + ms(6) + QUIET));
        settle.hear(Heard::Anything, t0 + ms(39), |_| true);
        assert_eq!(settle.due(), Some(t0 + BURST_MAX));
        settle.done();
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_half_written_manifest_is_waited_for_but_not_for_ever() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.hear(Heard::Writing("a.yaml".into()), t0, |_| true);
        assert_eq!(settle.due(), Some(t0 + HELD_MAX));
        settle.hear(Heard::Changed("b.yaml".into()), t0 + ms(1), |_| true);
        assert_eq!(settle.due(), Some(t0 + HELD_MAX), "another file does not end it");
        settle.hear(Heard::Changed("a.yaml".into()), t0 + ms(2), |_| true);
        assert_eq!(settle.due(), Some(t0 + ms(2) + QUIET));
    }

    #[test]
    fn an_editor_that_keeps_its_own_file_open_holds_nothing_back() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.hear(Heard::Writing(".a.yaml.swp".into()), t0, |path| {
            path.extension().is_some_and(|e| e == "yaml")
        });
        assert_eq!(settle.due(), Some(t0 + QUIET));
    }
}
