//! The files of a manifest directory: which there are, and what has changed in them.

use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::watch::Print;

/// Largest manifest file, bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most manifest files in a directory; of more, the last by name are not read.
pub const FILES_MAX: usize = 10_000;

/// What a directory holds now.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Manifest files by name relative to the directory, sorted.
    pub(super) files: Vec<(Arc<str>, PathBuf)>,
    /// The directory and those below it that are looked into.
    pub(super) directories: Vec<PathBuf>,
    /// Directories below that could not be listed: their files may still be there.
    pub(super) unlisted: Vec<(Arc<str>, io::Error)>,
    /// Files beyond [`FILES_MAX`].
    pub(super) surplus: usize,
}

/// What reading a file again brought.
#[derive(Debug)]
pub(super) enum Reading {
    /// Nothing can have changed.
    Same,
    /// The content, as it is now.
    Content {
        /// The bytes.
        bytes: Vec<u8>,
        /// How to recognise it.
        seen: Seen,
    },
    /// Something else than before, but perhaps half of it.
    Unfinished,
}

/// How to recognise a content that was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    print: Print,
    digest: u64,
    /// Its times cannot prove that it has not changed since.
    racy: bool,
}

/// Whether a name is one of a manifest: `.yaml`, `.yml` or `.json`, not hidden.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Lists the manifest files of `root` and of the directories directly below it. Hidden names are skipped: in a mounted
/// `ConfigMap` they hold the same files again.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing { directories: vec![root.to_owned()], ..Listing::default() };
    for (name, path) in entries(root)? {
        if is_directory(&path) {
            match entries(&path) {
                Ok(below) => {
                    let manifests =
                        below.into_iter().filter(|(file, path)| is_manifest(file) && !is_directory(path));
                    listing
                        .files
                        .extend(manifests.map(|(file, path)| (format!("{name}/{file}").into(), path)));
                    listing.directories.push(path);
                }
                Err(error) => listing.unlisted.push((name.into(), error)),
            }
        } else if is_manifest(&name) {
            listing.files.push((name.into(), path));
        }
    }
    listing.files.sort();
    listing.surplus = listing.files.len().saturating_sub(FILES_MAX);
    listing.files.truncate(FILES_MAX);
    Ok(listing)
}

/// Reads a file unless what was `seen` proves that it is the same. A content read again and found equal is [`Reading::Same`].
/// `is_unfinished` says whether a new content that was modified at a time is to be taken yet.
pub(super) fn read(
    path: &Path,
    seen: &mut Option<Seen>,
    is_unfinished: impl FnOnce(SystemTime) -> bool,
) -> io::Result<Reading> {
    let metadata = std::fs::metadata(path)?;
    if let Some(seen) = seen
        && !seen.racy
        && Print::of(&metadata) == seen.print
    {
        return Ok(Reading::Same);
    }
    // What it is before reading: a change in between shows next time.
    let (file, metadata) = files::open(path)?;
    let print = Print::of(&metadata);
    let now = SystemTime::now();
    let bytes = files::rest(&file, FILE_BYTES_MAX)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    let current = Seen { print, digest: hasher.finish(), racy: print.is_racy(now) };
    if let Some(before) = seen
        && before.digest == current.digest
        && before.print.bytes() == current.print.bytes()
    {
        *before = current;
        return Ok(Reading::Same);
    }
    // After reading: what was written meanwhile makes it younger.
    if is_unfinished(file.metadata()?.modified()?) {
        return Ok(Reading::Unfinished);
    }
    Ok(Reading::Content { bytes, seen: current })
}

/// Whether `path`, a file of `root` or of a directory below, leads through a link below `root`.
pub(super) fn is_linked(root: &Path, path: &Path) -> bool {
    path.ancestors().take_while(|part| *part != root).any(Path::is_symlink)
}

fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A name that is no text cannot be told to anybody; our manifests have better ones.
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn is_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
