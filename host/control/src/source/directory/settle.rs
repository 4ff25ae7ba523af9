//! When a burst of changes in a directory has settled: a function of values, without clock or IO.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::watch::Heard;

/// Quiet time that ends a burst. Long enough for an editor's rename-and-write, short beside the 100 ms that an edit may
/// take to reach the workers.
pub const QUIET: Duration = Duration::from_millis(8);
/// A burst that does not end is looked at after this long.
pub const BURST_MAX: Duration = Duration::from_millis(40);
/// A file that somebody keeps open for writing holds the other files of its burst back for this long: what is edited
/// together comes into force together.
pub const TOGETHER_MAX: Duration = Duration::from_secs(1);
/// A file that somebody keeps open for writing, or writes over and over, stays at its last good state for this long and
/// is then read as it is. Longer than commands take between the truncation of their output and its last byte; short
/// enough that a file which some program never closes is still followed.
pub const HELD_MAX: Duration = Duration::from_secs(10);
/// A change that is younger than this and was not announced may be half of one whose events are still on their way: they
/// pass through the kernel's queue and a thread, which a busy machine runs late.
pub const FRESH: Duration = Duration::from_millis(250);
/// Files held open at a time that are told apart; with more, nobody waits for any.
const HELD_FILES_MAX: usize = 1_024;
/// Announced paths of one burst that are told apart; further ones count as not announced.
const ANNOUNCED_MAX: usize = 4_096;

/// The burst that is under way.
#[derive(Debug, Default)]
pub(super) struct Settle {
    /// First and last news of the burst.
    span: Option<(Instant, Instant)>,
    /// Manifests that are being written, and since when.
    held: BTreeMap<PathBuf, Instant>,
    /// What has changed completely, and when that was heard.
    announced: BTreeMap<PathBuf, Instant>,
    /// When something that is no manifest changed last: it may be a link that others lead through.
    swapped: Option<Instant>,
    /// When to look even if nothing is heard.
    again: Option<Instant>,
}

/// What is known about changes when a look begins.
#[derive(Debug)]
pub(super) struct Briefing {
    now: Instant,
    /// The same moment as files have it.
    wall: SystemTime,
    held: BTreeSet<PathBuf>,
    announced: BTreeMap<PathBuf, Instant>,
    swapped: Option<Instant>,
}

impl Settle {
    /// Takes one piece of news. `is_manifest` tells which files are worth waiting for.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant, is_manifest: impl Fn(&Path) -> bool) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        match heard {
            Heard::Writing(path) if is_manifest(&path) && self.held.len() < HELD_FILES_MAX => {
                self.held.entry(path).or_insert(now);
            }
            Heard::Changed(path) => {
                self.held.remove(&path);
                if !is_manifest(&path) {
                    self.swapped = Some(now);
                }
                if self.announced.len() < ANNOUNCED_MAX {
                    self.announced.insert(path, now);
                }
            }
            Heard::Writing(_) | Heard::Anything => {}
        }
    }

    /// News were lost, so files that seem to be held may be complete.
    pub(super) fn lost(&mut self) {
        self.held.clear();
    }

    /// When to look; `None` while nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        let Some((first, last)) = self.span else { return self.again };
        let settled = (last + QUIET).min(first + BURST_MAX);
        let together = self.held.values().max().map_or(settled, |since| *since + TOGETHER_MAX);
        Some(settled.max(together).min(first + TOGETHER_MAX))
    }

    /// The directory is looked at `now`, which is `wall` as files have it: the burst is over.
    pub(super) fn begin(&mut self, now: Instant, wall: SystemTime) -> Briefing {
        self.held.retain(|_, since| now.duration_since(*since) < HELD_MAX);
        let before = std::mem::take(self);
        self.held = before.held;
        let held = self.held.keys().cloned().collect();
        Briefing { now, wall, held, announced: before.announced, swapped: before.swapped }
    }

    /// The look left out what may not be complete: look again soon, whatever is heard.
    pub(super) fn again(&mut self, now: Instant) {
        self.again = Some(now + FRESH);
    }
}

impl Briefing {
    /// Whether somebody is writing the file.
    pub(super) fn is_held(&self, path: &Path) -> bool {
        self.held.contains(path)
    }

    /// Whether a file that has been left out since then has waited long enough.
    pub(super) fn is_overdue(&self, since: Instant) -> bool {
        self.now.saturating_duration_since(since) >= HELD_MAX
    }

    /// Whether a content that was `modified` then may be half of a change: a young one that nobody announced since.
    /// `is_linked`: the path leads through a link, so that its own events are not all there are.
    pub(super) fn is_unfinished(
        &self,
        path: &Path,
        modified: SystemTime,
        is_linked: impl Fn() -> bool,
    ) -> bool {
        let age = match self.wall.duration_since(modified) {
            Ok(age) => age,
            // Written since the look began, unless the file has its time from another clock.
            Err(ahead) if ahead.duration() < HELD_MAX => return true,
            Err(_) => return false,
        };
        let covers = |heard: &Instant| self.now.saturating_duration_since(*heard) <= age;
        let is_announced = |path: &Path| self.announced.get(path).is_some_and(covers);
        // Of a directory that was put in place as a whole nothing but its own name is heard.
        let is_known = is_announced(path) || path.parent().is_some_and(is_announced);
        age < FRESH && !is_known && !(self.swapped.as_ref().is_some_and(covers) && is_linked())
    }

    /// When the look began.
    pub(super) fn now(&self) -> Instant {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn is_yaml(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "yaml")
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
        settle.begin(t0 + ms(40), SystemTime::now());
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_half_written_manifest_is_waited_for_but_not_for_ever() {
        let (t0, wall) = (Instant::now(), SystemTime::now());
        let a = Path::new("a.yaml");
        let mut settle = Settle::default();
        settle.hear(Heard::Writing(a.into()), t0, is_yaml);
        assert_eq!(settle.due(), Some(t0 + TOGETHER_MAX));
        settle.hear(Heard::Changed("b.yaml".into()), t0 + ms(1), is_yaml);
        assert_eq!(settle.due(), Some(t0 + TOGETHER_MAX), "another file does not end it");
        assert!(settle.begin(t0 + TOGETHER_MAX, wall).is_held(a), "the others are looked at without it");
        assert_eq!(settle.due(), None);
        let t5 = t0 + ms(5_000);
        settle.hear(Heard::Writing(a.into()), t5, is_yaml);
        assert_eq!(settle.due(), Some(t5 + QUIET), "it holds up the others only once");
        assert!(settle.begin(t5 + QUIET, wall).is_held(a));
        assert!(settle.begin(t0 + HELD_MAX - ms(1), wall).is_held(a));
        assert!(!settle.begin(t0 + HELD_MAX, wall).is_held(a), "it is read as it is");
    }

    #[test]
    fn a_manifest_that_is_closed_is_looked_at_at_once() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.hear(Heard::Writing("a.yaml".into()), t0, is_yaml);
        settle.hear(Heard::Changed("a.yaml".into()), t0 + ms(2), is_yaml);
        assert_eq!(settle.due(), Some(t0 + ms(2) + QUIET));
        assert!(!settle.begin(t0 + ms(10), SystemTime::now()).is_held(Path::new("a.yaml")));
    }

    #[test]
    fn an_editor_that_keeps_its_own_file_open_holds_nothing_back() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.hear(Heard::Writing(".a.yaml.swp".into()), t0, is_yaml);
        assert_eq!(settle.due(), Some(t0 + QUIET));
    }

    #[test]
    fn lost_news_hold_nothing_back() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.hear(Heard::Writing("a.yaml".into()), t0, is_yaml);
        settle.lost();
        assert_eq!(settle.due(), Some(t0 + QUIET));
        assert!(!settle.begin(t0 + QUIET, SystemTime::now()).is_held(Path::new("a.yaml")));
    }

    #[test]
    fn what_was_left_out_is_looked_at_again_soon_even_if_nothing_is_heard() {
        let t0 = Instant::now();
        let mut settle = Settle::default();
        settle.again(t0);
        assert_eq!(settle.due(), Some(t0 + FRESH));
        settle.hear(Heard::Changed("a.yaml".into()), t0 + ms(1), is_yaml);
        assert_eq!(settle.due(), Some(t0 + ms(1) + QUIET), "news are not put off for it");
        settle.begin(t0 + ms(9), SystemTime::now());
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn only_a_young_change_that_nobody_announced_since_is_unfinished() {
        let (now, wall) = (Instant::now() + ms(10_000), SystemTime::now());
        // What was heard, and how long ago, ms; age of the content, ms; through a link; unfinished.
        for (heard, before, age, is_linked, expected) in [
            (None, 0, 0, false, true),
            (None, 0, 249, false, true),
            (None, 0, 250, false, false),
            (Some("m/a.yaml"), 8, 9, false, false),
            (Some("m/a.yaml"), 8, 8, false, false),
            (Some("m/a.yaml"), 8, 7, false, true),
            (Some("m/b.yaml"), 8, 9, false, true),
            (Some("m/b.yaml"), 8, 9, true, true),
            (Some("m"), 8, 9, false, false),
            (Some("m/..data"), 8, 9, true, false),
            (Some("m/..data"), 8, 7, true, true),
            (Some("m/..data"), 8, 9, false, true),
        ] {
            let mut settle = Settle::default();
            if let Some(path) = heard {
                settle.hear(Heard::Changed(path.into()), now - ms(before), is_yaml);
            }
            let briefing = settle.begin(now, wall);
            let found = briefing.is_unfinished(Path::new("m/a.yaml"), wall - ms(age), || is_linked);
            assert_eq!(found, expected, "{heard:?} {before} ms ago, content of {age} ms, link {is_linked}");
        }
        let briefing = Settle::default().begin(now, wall);
        let ahead = |time: Duration| briefing.is_unfinished(Path::new("a.yaml"), wall + time, || false);
        assert!(ahead(ms(1)), "written since the look began");
        assert!(!ahead(HELD_MAX), "a clock that is not ours tells nothing");
    }
}
