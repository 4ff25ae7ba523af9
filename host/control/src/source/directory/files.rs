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

/// Most things that are said not to be read.
const UNREAD_MAX: usize = 32;
/// Most directories two levels down that are looked into, only to see whether they hold manifests.
const PEEKS_MAX: usize = 64;
/// Endings that programs and people give to files that are not meant: copies, and files that are still being written.
const NOT_MEANT: [&str; 12] =
    ["bak", "disabled", "example", "off", "old", "orig", "part", "rej", "sample", "swp", "tmp", "tpl"];

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
    /// What looks like manifests and is not read, by name; at most [`UNREAD_MAX`].
    pub(super) unread: Vec<(Arc<str>, Unread)>,
}

/// Why something is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// A file whose name ends in something else.
    Name,
    /// A directory below one that is looked into, with manifests in it.
    Depth,
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
    let mut peeks = PEEKS_MAX;
    for (name, path) in entries(root)? {
        if is_directory(&path) {
            match entries(&path) {
                Ok(below) => {
                    for (file, path) in below {
                        listing.take(format!("{name}/{file}"), path, &mut peeks);
                    }
                    listing.directories.push(path);
                }
                Err(error) => listing.unlisted.push((name.into(), error)),
            }
        } else {
            listing.take(name, path, &mut peeks);
        }
    }
    listing.unread.sort_by(|a, b| a.0.cmp(&b.0));
    listing.unread.truncate(UNREAD_MAX);
    listing.files.sort();
    listing.surplus = listing.files.len().saturating_sub(FILES_MAX);
    listing.files.truncate(FILES_MAX);
    Ok(listing)
}

impl Listing {
    /// Takes an entry that is not a directory of the first level. `peeks`: directories that may still be looked into.
    fn take(&mut self, name: String, path: PathBuf, peeks: &mut usize) {
        let file = name.rsplit('/').next().unwrap_or_default();
        if is_directory(&path) {
            if *peeks > 0 {
                *peeks -= 1;
                let below = entries(&path).unwrap_or_default();
                if below.iter().any(|(file, path)| is_manifest(file) && !is_directory(path)) {
                    self.unread.push((name.into(), Unread::Depth));
                }
            }
        } else if is_manifest(file) {
            self.files.push((name.into(), path));
        } else if looks_like_manifest(file) {
            self.unread.push((name.into(), Unread::Name));
        }
    }
}

/// Whether a file that is not one of a manifest by its name was probably meant as one, such as `a.yml.txt` and `A.YAML`.
fn looks_like_manifest(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    let ending = lower.rsplit('.').next().unwrap_or_default();
    let is_named = [".yaml", ".yml"].iter().any(|part| lower.contains(part)) || lower.ends_with(".json");
    is_named && !lower.ends_with('~') && !NOT_MEANT.contains(&ending)
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
