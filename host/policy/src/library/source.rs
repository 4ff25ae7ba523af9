//! Where components come from: the binary itself, files, and bytes from configuration.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::policy::{Digest, EntrySpec, PolicySource, PrepareFailure};
use sha2::{Digest as _, Sha256};

use crate::builtin;
use crate::inspect::{COMPONENT_BYTES_MAX, refuse};

/// A file this young when it was read may be written again without its times changing: it is read again next time.
const SETTLED: Duration = Duration::from_secs(2);

/// The bytes of a component.
#[derive(Clone)]
pub(crate) enum Bytes {
    Embedded(&'static [u8]),
    Shared(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Embedded(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// SHA-256 of a component.
pub fn digest(component: &[u8]) -> Digest {
    Digest(Sha256::digest(component).into())
}

/// What is known of the sources that live specs name. Reading is bounded by the size of a component; nothing is read that
/// did not change.
#[derive(Default)]
pub(crate) struct Sources {
    root: PathBuf,
    embedded: HashMap<&'static str, Digest>,
    files: HashMap<PathBuf, File>,
    /// By address; the bytes are held, so that the address stays theirs.
    shared: HashMap<usize, (Arc<[u8]>, Digest)>,
}

struct File {
    stamp: Stamp,
    /// Whether the stamp can be relied upon to change when the file does.
    settled: bool,
    digest: Digest,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Sources {
    /// Relative paths count from `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        // Without a working directory, relative paths stay as they are.
        Self { root: std::path::absolute(&root).unwrap_or(root), ..Self::default() }
    }

    /// Digest of the component as it is now; and its bytes, where they had to be read to know it.
    pub(crate) fn digest(&mut self, spec: &EntrySpec) -> Result<(Digest, Option<Bytes>), PrepareFailure> {
        match &spec.source {
            PolicySource::Builtin(name) => {
                let (name, bytes) = embedded(name.as_str())?;
                let digest = *self.embedded.entry(name).or_insert_with(|| digest(bytes));
                Ok((digest, Some(Bytes::Embedded(bytes))))
            }
            PolicySource::Bytes { bytes, .. } => {
                check_size(bytes.len() as u64)?;
                let known = self.shared.entry(bytes.as_ptr() as usize);
                let (_, digest) = known.or_insert_with(|| (Arc::clone(bytes), digest(bytes)));
                Ok((*digest, Some(Bytes::Shared(Arc::clone(bytes)))))
            }
            PolicySource::File(path) => self.file(path),
        }
    }

    /// Digest of the component when it was last looked at.
    pub(crate) fn last_digest(&self, spec: &EntrySpec) -> Option<Digest> {
        match &spec.source {
            PolicySource::Builtin(name) => self.embedded.get(name.as_str()).copied(),
            PolicySource::Bytes { bytes, .. } => {
                self.shared.get(&(bytes.as_ptr() as usize)).map(|(_, digest)| *digest)
            }
            PolicySource::File(path) => self.files.get(path).map(|file| file.digest),
        }
    }

    /// The component's bytes, read again where they are not held.
    pub(crate) fn read(&mut self, spec: &EntrySpec) -> Result<(Digest, Bytes), PrepareFailure> {
        if let PolicySource::File(path) = &spec.source {
            self.files.remove(path);
        }
        match self.digest(spec)? {
            (digest, Some(bytes)) => Ok((digest, bytes)),
            (digest, None) => Err(refuse("FetchFailed", format!("component {digest:.12} is gone"), "")),
        }
    }

    /// Forgets what none of `live` names.
    pub(crate) fn retain(&mut self, live: &[Arc<EntrySpec>]) {
        let is_live = |wanted: &dyn Fn(&PolicySource) -> bool| live.iter().any(|spec| wanted(&spec.source));
        self.files.retain(|path, _| is_live(&|source| matches!(source, PolicySource::File(p) if p == path)));
        self.shared.retain(|_, (held, _)| {
            is_live(&|source| matches!(source, PolicySource::Bytes { bytes, .. } if Arc::ptr_eq(bytes, held)))
        });
    }

    fn file(&mut self, path: &Path) -> Result<(Digest, Option<Bytes>), PrepareFailure> {
        let full = resolve(&self.root, path)?;
        let metadata = fs::metadata(&full).map_err(|error| fetch_failed(&full, &error))?;
        let stamp = Stamp::of(&metadata);
        if let Some(known) = self.files.get(path)
            && known.settled
            && known.stamp == stamp
        {
            return Ok((known.digest, None));
        }
        let bytes: Arc<[u8]> = read_file(&full)?.into();
        let digest = digest(&bytes);
        let settled =
            stamp.modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > SETTLED);
        self.files.insert(path.to_owned(), File { stamp, settled, digest });
        Ok((digest, Some(Bytes::Shared(bytes))))
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { modified: metadata.modified().ok(), len: metadata.len(), inode }
    }
}

/// A file's bytes, if it is no larger than a component may be.
///
/// # Errors
/// `FetchFailed` or `TooLarge`.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, PrepareFailure> {
    let unreadable = |error: io::Error| fetch_failed(path, &error);
    check_size(fs::metadata(path).map_err(unreadable)?.len())?;
    let bytes = fs::read(path).map_err(unreadable)?;
    check_size(bytes.len() as u64)?;
    Ok(bytes)
}

/// Name and bytes of a built-in policy.
///
/// # Errors
/// `FetchFailed`, which names those there are.
pub(crate) fn embedded(name: &str) -> Result<(&'static str, &'static [u8]), PrepareFailure> {
    if let (Some(bytes), Some(name)) =
        (builtin::component(name), builtin::names().find(|known| *known == name))
    {
        return Ok((name, bytes));
    }
    let known: Vec<&str> = builtin::names().collect();
    let remedy = if known.is_empty() {
        "this gateway was built without policies: run `cargo run --manifest-path policies/Cargo.toml -p build` and \
         build it again"
            .to_owned()
    } else {
        format!("the built-in policies are: {}", known.join(", "))
    };
    Err(refuse("FetchFailed", format!("there is no built-in policy `{name}`"), remedy))
}

/// Where a path leads from `root`, which it must not leave. Symbolic links may: mounted volumes are made of them.
fn resolve(root: &Path, path: &Path) -> Result<PathBuf, PrepareFailure> {
    let full = root.join(path);
    if path.components().any(|part| part == Component::ParentDir) || !full.starts_with(root) {
        return Err(refuse(
            "FetchFailed",
            format!("`{}` leaves the policy directory", path.display()),
            "name a file below the policy directory",
        ));
    }
    Ok(full)
}

fn fetch_failed(path: &Path, error: &io::Error) -> PrepareFailure {
    refuse(
        "FetchFailed",
        format!("`{}` cannot be read: {error}", path.display()),
        "put the component there; it is looked for again when the file changes",
    )
}

fn check_size(bytes: u64) -> Result<(), PrepareFailure> {
    if bytes <= COMPONENT_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(refuse(
        "TooLarge",
        format!("the component has {bytes} bytes; at most {COMPONENT_BYTES_MAX} are loaded"),
        "strip debug information, or write the policy in a language with a smaller runtime",
    ))
}
