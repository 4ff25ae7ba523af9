//! Hears from the kernel that something in a few directories may have changed.
//!
//! Hearing is an optimisation and never trusted alone: network file systems tell nothing, mounts and renames lose
//! watches, the kernel's queue overflows. Whoever listens also looks by himself once a [`POLL_INTERVAL`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How often everything is looked at, whether or not the kernel said something.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A file whose times are younger than this when it is read may change again without its times showing it.
const RACY: Duration = Duration::from_secs(1);

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Somebody is writing this file and has not closed it.
    Writing(PathBuf),
    /// Something about this path has changed and is complete.
    Changed(PathBuf),
    /// Something may have changed anywhere.
    Anything,
}

/// Everything about a file that changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A set of watched directories.
pub(crate) struct DirectoryWatch {
    /// `None`: this system refuses; polling has to do.
    watcher: Option<RecommendedWatcher>,
    /// Watched directories and what they were when the watch was set: a replaced directory is watched anew.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl fmt::Debug for DirectoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryWatch").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Print {
    /// The print of a file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Length of the file, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file may change once more without its print showing it.
    pub(crate) fn is_racy(&self, now: SystemTime) -> bool {
        let Ok(seconds) = u64::try_from(self.changed.0) else { return false };
        let changed =
            SystemTime::UNIX_EPOCH + Duration::new(seconds, self.changed.1.clamp(0, 999_999_999) as u32);
        // A time in the future is as doubtful as a young one.
        now.duration_since(changed).map_or(true, |age| age < RACY)
    }
}

impl DirectoryWatch {
    /// Calls `hear` for everything that happens in the directories given to [`Self::watch`] from then on.
    pub(crate) fn new(hear: impl Fn(Heard) + Send + 'static) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) => translate(event, &hear),
            Err(_) => hear(Heard::Anything),
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "no file notifications, polling only")).ok();
        Self { watcher, watched: BTreeMap::new() }
    }

    /// Watches exactly these directories (not what is below them). One that cannot be watched is tried again next time.
    /// True: a directory is watched that was not before.
    pub(crate) fn watch<'a>(&mut self, directories: impl IntoIterator<Item = &'a Path>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut any_new = false;
        let mut before = std::mem::take(&mut self.watched);
        for directory in directories {
            let Ok(metadata) = std::fs::metadata(directory) else { continue };
            let identity = (metadata.dev(), metadata.ino());
            let known = before.remove(directory);
            if known != Some(identity) {
                if known.is_some() {
                    // The old watch hangs on a directory that is gone; that it cannot be removed is no surprise.
                    let _ = watcher.unwatch(directory);
                }
                if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                    tracing::debug!(directory = %directory.display(), %error, "cannot watch, polling");
                    continue;
                }
                any_new = true;
            }
            self.watched.insert(directory.to_owned(), identity);
        }
        for gone in before.into_keys() {
            let _ = watcher.unwatch(&gone);
        }
        any_new
    }
}

/// Reading a file is no news, or our own reading would wake us.
fn translate(event: notify::Event, hear: &impl Fn(Heard)) {
    if event.need_rescan() || event.paths.is_empty() {
        return hear(Heard::Anything);
    }
    for path in event.paths {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => hear(Heard::Changed(path)),
            EventKind::Access(_) => {}
            EventKind::Modify(notify::event::ModifyKind::Data(_)) => hear(Heard::Writing(path)),
            _ => hear(Heard::Changed(path)),
        }
    }
}
