//! Notices that the file behind a policy has changed.
//!
//! Reading and compiling it is the library's work; here it is only found out that asking again is worth it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use domain::policy::{EntrySpec, PolicySource};
use tokio::sync::Notify;

use crate::watch::{DirectoryWatch, Heard, Print};

/// The files that the chains in force, and those asked for, name.
#[derive(Debug)]
pub(super) struct PolicyFiles {
    /// Relative paths start here.
    directory: PathBuf,
    /// Print of each file when it was looked at last; `None` where there is none.
    prints: BTreeMap<PathBuf, Option<Print>>,
    watch: DirectoryWatch,
}

impl PolicyFiles {
    /// No files yet. `heard` is notified when it is worth looking.
    pub(super) fn new(directory: PathBuf, heard: Arc<Notify>) -> Self {
        // A file that is being written is not worth reading yet; when it is closed we hear of it again.
        let watch = DirectoryWatch::new(move |news| {
            if !matches!(news, Heard::Writing(_)) {
                heard.notify_one();
            }
        });
        Self { directory, prints: BTreeMap::new(), watch }
    }

    /// Watches the files of these specs, and no others. Comes before they are prepared: what changes after that is seen.
    pub(super) fn follow<'a>(&mut self, specs: impl Iterator<Item = &'a Arc<EntrySpec>>) {
        let files: BTreeSet<PathBuf> = specs
            .filter_map(|spec| match &spec.source {
                PolicySource::File(path) => Some(self.directory.join(path)),
                PolicySource::Builtin(_) | PolicySource::Bytes { .. } | PolicySource::Oci { .. } => None,
            })
            .collect();
        self.prints.retain(|file, _| files.contains(file));
        let parents: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        self.watch.watch(parents);
        for file in files {
            self.prints.entry(file).or_insert_with_key(|file| print(file));
        }
    }

    /// Whether a file may have changed, now that something was heard: one so young that its times prove nothing counts.
    pub(super) fn may_have_changed(&mut self) -> bool {
        let changed = self.have_changed();
        let now = SystemTime::now();
        changed || self.prints.values().flatten().any(|print| print.is_racy(now))
    }

    /// Whether a file has changed since the last look.
    pub(super) fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, before) in &mut self.prints {
            let now = print(file);
            changed |= now != *before;
            *before = now;
        }
        changed
    }
}

fn print(file: &Path) -> Option<Print> {
    std::fs::metadata(file).ok().map(|metadata| Print::of(&metadata))
}
