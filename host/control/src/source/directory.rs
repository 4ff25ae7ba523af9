//! A directory of the manifests that Kubernetes would hold, as a source of changes.
//!
//! [`Directory`] looks and compares; [`watch`] says when to look. What cannot be read or decoded keeps its last good
//! state: a file that is gone takes its objects along, a file that is broken, empty or being written does not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use domain::finding::{Finding, Origin, Severity};
use manifest::{Change, Object, ObjectKey, decode};

use super::Burst;

mod files;
mod settle;
pub(crate) mod watch;

pub use files::{FILE_BYTES_MAX, FILES_MAX};
pub use settle::{BURST_MAX, FRESH, HELD_MAX, QUIET, TOGETHER_MAX};

use files::{Listing, Reading, Seen, Unread};
use settle::Briefing;

/// Reason of the finding for a directory without any manifest.
const NO_MANIFESTS: &str = "NoManifests";
/// Name of this source in bursts.
pub const SOURCE: &str = "directory";

/// A directory and what it held when it was last looked at.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// The root and the directories below it that are looked into.
    directories: Vec<PathBuf>,
    files: BTreeMap<Arc<str>, Known>,
    /// Objects as the index knows them.
    told: BTreeMap<ObjectKey, Arc<Object>>,
    /// Findings as the index knows them; `None` before the first burst.
    findings: Option<Vec<Finding>>,
}

/// Manifests that are looked at once.
#[derive(Clone, Debug)]
pub enum Manifests {
    /// A file, or a directory as it would be served from.
    Path(PathBuf),
    /// A text, such as standard input, and what findings call it.
    Text(Arc<str>, Vec<u8>),
}

/// Reads all of these once, as one source. Findings call each file by the path that leads to it from the working directory.
pub fn read_once(all: &[Manifests]) -> Burst {
    let mut directory = Directory::new("");
    let mut findings = Vec::new();
    for manifests in all {
        match manifests {
            Manifests::Text(name, bytes) => {
                let mut known = Known::default();
                known.decode(name, bytes);
                directory.files.insert(Arc::clone(name), known);
            }
            Manifests::Path(path) if path.is_dir() => directory.read_directory_once(path, &mut findings),
            Manifests::Path(path) => directory.read_file_once(path, path.display().to_string().into()),
        }
    }
    directory.burst(findings)
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    /// The content that was decoded last, well or badly.
    seen: Option<Seen>,
    /// Its objects; of a broken or emptied file the last good ones.
    objects: Vec<Arc<Object>>,
    /// It held objects and now holds no document at all.
    is_emptied: bool,
    /// What is wrong in the content.
    findings: Vec<Finding>,
    /// Why it cannot be read now.
    unreadable: Option<Finding>,
    /// Since when it is left out because it may not be complete.
    left_since: Option<Instant>,
}

impl Directory {
    /// The directory at `root`, not looked at yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root: PathBuf = root.into();
        let directories = vec![root.clone()];
        Self { root, directories, files: BTreeMap::new(), told: BTreeMap::new(), findings: None }
    }

    /// The directories whose entries matter.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(PathBuf::as_path)
    }

    /// Looks, and returns what has changed since it looked last. `None`: nothing; the first look always returns a burst.
    ///
    /// Reads every file that may have changed, at most [`FILES_MAX`] of [`FILE_BYTES_MAX`], as it is now; blocks on the
    /// file system.
    pub fn look(&mut self) -> Option<Burst> {
        self.look_with(None)
    }

    /// As [`Self::look`], but leaves out what is being written as far as `briefing` tells, for at most [`HELD_MAX`].
    fn look_with(&mut self, briefing: Option<&Briefing>) -> Option<Burst> {
        let mut findings = Vec::new();
        match files::list(&self.root) {
            Ok(listing) => self.take_over(listing, briefing, &mut findings),
            Err(error) => findings.push(unreadable("", "the directory", &error)),
        }
        let before = self.findings.take();
        let burst = self.burst(findings);
        self.findings = Some(burst.findings.clone());
        (!burst.changes.is_empty() || before.as_ref() != Some(&burst.findings)).then_some(burst)
    }

    /// What is different now, with these findings and those about the files.
    fn burst(&mut self, mut findings: Vec<Finding>) -> Burst {
        for known in self.files.values() {
            findings.extend(known.findings.iter().chain(&known.unreadable).cloned());
        }
        let changes = self.compare(&mut findings);
        Burst { source: SOURCE, changes, findings }
    }

    fn read_directory_once(&mut self, root: &Path, findings: &mut Vec<Finding>) {
        let shown = |name: &str| -> Arc<str> { root.join(name).display().to_string().into() };
        let mut listing = match files::list(root) {
            Ok(listing) => listing,
            Err(error) => return findings.push(unreadable(&shown(""), "the directory", &error)),
        };
        for (name, _) in &mut listing.unlisted {
            *name = shown(name);
        }
        for (name, _) in &mut listing.unread {
            *name = shown(name);
        }
        let from = findings.len();
        listing_findings(&listing, findings);
        for finding in &mut findings[from..] {
            if finding.reason == NO_MANIFESTS {
                finding.severity = Severity::Error;
                finding.origin.file = root.display().to_string().into();
            }
        }
        for (name, path) in listing.files {
            self.read_file_once(&path, shown(&name));
        }
    }

    fn read_file_once(&mut self, path: &Path, shown: Arc<str>) {
        let mut known = Known::default();
        if !known.read(Path::new(""), &shown, path, None) {
            let error = io::Error::from(io::ErrorKind::NotFound);
            known.unreadable = Some(unreadable(&shown, "the file", &error));
        }
        self.files.insert(shown, known);
    }

    /// Whether the last look left a file out that may not be complete.
    fn has_unfinished(&self) -> bool {
        self.files.values().any(|known| known.left_since.is_some())
    }

    fn take_over(&mut self, listing: Listing, briefing: Option<&Briefing>, findings: &mut Vec<Finding>) {
        listing_findings(&listing, findings);
        self.directories = listing.directories;
        let mut before = std::mem::take(&mut self.files);
        for (name, path) in listing.files {
            let mut known = before.remove(&name).unwrap_or_default();
            if known.read(&self.root, &name, &path, briefing) {
                self.files.insert(name, known);
            }
        }
        for (name, known) in before {
            let directory = name.split_once('/').map_or("", |(directory, _)| directory);
            if listing.unlisted.iter().any(|(unlisted, _)| &**unlisted == directory) {
                self.files.insert(name, known);
            }
        }
    }

    /// What the index has to be told. Of two files with the same object the first by name counts; what a file held before
    /// it was emptied counts where no other file has it.
    fn compare(&mut self, findings: &mut Vec<Finding>) -> Vec<Change> {
        let mut now: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let (emptied, others): (Vec<&Known>, Vec<&Known>) =
            self.files.values().partition(|known| known.is_emptied);
        for object in others.into_iter().flat_map(|known| &known.objects) {
            let key = object.key();
            if let Some(first) = now.get(&key) {
                findings.push(duplicate(&key, object.origin(), first.origin()));
            } else {
                now.insert(key, Arc::clone(object));
            }
        }
        for object in emptied.into_iter().flat_map(|known| &known.objects) {
            now.entry(object.key()).or_insert_with(|| Arc::clone(object));
        }
        let gone = self.told.keys().filter(|key| !now.contains_key(*key));
        let mut changes: Vec<Change> = gone.map(|key| Change::Removed(key.clone())).collect();
        for (key, object) in &now {
            if self.told.get(key) != Some(object) {
                changes.push(Change::Applied(Arc::clone(object)));
            }
        }
        self.told = now;
        changes
    }
}

impl Known {
    /// Reads the file if it may have changed. False: it is not there any more.
    fn read(&mut self, root: &Path, name: &Arc<str>, path: &Path, briefing: Option<&Briefing>) -> bool {
        let left_since = self.left_since.take();
        let briefing = briefing.filter(|it| !left_since.is_some_and(|since| it.is_overdue(since)));
        let since = || left_since.or(briefing.map(Briefing::now));
        if briefing.is_some_and(|briefing| briefing.is_held(path)) {
            self.left_since = since();
            return true;
        }
        // A file without objects has nothing to lose by an early look.
        let careful = briefing.filter(|_| !self.objects.is_empty());
        let is_unfinished = |modified| {
            let is_linked = || files::is_linked(root, path);
            careful.is_some_and(|briefing| briefing.is_unfinished(path, modified, is_linked))
        };
        match files::read(path, &mut self.seen, is_unfinished) {
            Ok(Reading::Same) => self.unreadable = None,
            Ok(Reading::Content { bytes, seen }) => {
                self.seen = Some(seen);
                self.unreadable = None;
                self.decode(name, &bytes);
            }
            Ok(Reading::Unfinished) => self.left_since = since(),
            // A link that leads nowhere is broken; a file that went between listing and reading is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                return false;
            }
            Err(error) => self.unreadable = Some(unreadable(name, "the file", &error)),
        }
        true
    }

    fn decode(&mut self, name: &Arc<str>, bytes: &[u8]) {
        let decoded = decode(name, bytes);
        // Hardly anybody means to remove objects like this; a truncation that was not followed by a write looks the same.
        self.is_emptied = decoded.documents == 0 && !self.objects.is_empty();
        if self.is_emptied {
            self.findings = vec![emptied(name)];
            return;
        }
        let mut objects: Vec<Arc<Object>> = decoded.objects.into_iter().map(Arc::new).collect();
        // A broken part may hold anything that the file held before and does not show now; a refused object is named.
        let before = std::mem::take(&mut self.objects).into_iter();
        let stays = |before: &Arc<Object>| {
            let key = before.key();
            (decoded.broken || decoded.refused.contains(&key)) && !objects.iter().any(|now| now.key() == key)
        };
        let kept: Vec<Arc<Object>> = before.filter(stays).collect();
        objects.extend(kept);
        self.objects = objects;
        self.findings = decoded.findings;
    }
}

/// What a listing leaves out.
fn listing_findings(listing: &Listing, findings: &mut Vec<Finding>) {
    for (name, error) in &listing.unlisted {
        findings.push(unreadable(name, "the directory", error));
    }
    if listing.surplus > 0 {
        let message = format!("{} files beyond the first {FILES_MAX} are not read", listing.surplus);
        let remedy = "put several objects into one file".to_owned();
        findings.push(finding(Severity::Error, "", "TooManyFiles", message, remedy));
    }
    for (name, why) in &listing.unread {
        let (message, remedy) = match why {
            Unread::Name => (
                "the file is not read: its name does not end in .yaml, .yml or .json",
                "rename it, or move it elsewhere",
            ),
            Unread::Depth => (
                "the manifests in this directory are not read: directories are looked into one level down only",
                "move them up, or elsewhere",
            ),
        };
        findings.push(finding(Severity::Warning, name, "NotRead", message.to_owned(), remedy.to_owned()));
    }
    if listing.files.is_empty() && listing.unlisted.is_empty() {
        let message =
            "the directory holds no manifest: no file in it ends in .yaml, .yml or .json".to_owned();
        let remedy = "put manifests there, or name another directory".to_owned();
        findings.push(finding(Severity::Warning, "", NO_MANIFESTS, message, remedy));
    }
}

fn unreadable(file: &str, what: &str, error: &io::Error) -> Finding {
    let message = format!("{what} cannot be read: {error}; what it held before stays in force");
    let remedy = "make it readable for the gateway, or remove it".to_owned();
    finding(Severity::Error, file, "Unreadable", message, remedy)
}

fn emptied(file: &str) -> Finding {
    let message = "the file holds nothing any more; what it held before stays in force".to_owned();
    let remedy = "delete the file to remove its objects, or write them again".to_owned();
    finding(Severity::Warning, file, "EmptyFile", message, remedy)
}

fn duplicate(key: &ObjectKey, second: &Origin, first: &Origin) -> Finding {
    let object = key.to_string().into();
    let message = format!("the same object stands in {}:{}, which counts", first.file, first.line);
    let remedy = "remove one of the two".to_owned();
    let base = finding(Severity::Error, "", "DuplicateObject", message, remedy);
    Finding { object, origin: second.clone(), ..base }
}

fn finding(severity: Severity, file: &str, reason: &'static str, message: String, remedy: String) -> Finding {
    let origin = Origin { file: file.into(), line: 0, column: 0 };
    Finding { severity, object: "".into(), origin, field: String::new(), reason, message, remedy }
}

#[cfg(test)]
mod tests;
