//! Where components come from: the binary itself, files, bytes from configuration, and registries.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::image::{Image, PullSecret};
use domain::policy::{Digest, EntrySpec, PolicySource, PrepareFailure};
use sha2::{Digest as _, Sha256};

use crate::bounds::{self, COMPONENT_BYTES_MAX};
use crate::builtin;
use crate::fetch::Order;
use crate::inspect::{check_beginning, refuse};
use crate::library::compile::Origin;

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

/// What is known of a component's whereabouts.
pub(crate) enum Whereabouts {
    /// Its digest; and its bytes, where they had to be read to know it.
    Here(Digest, Option<Bytes>),
    /// On its way from a registry. It has to be ordered first if there is an order.
    Ordered(Option<Order>),
}

/// What makes two artifacts one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Artifact {
    image: Image,
    pull_secret: Option<PullSecret>,
    sha256: Option<Arc<str>>,
}

/// What came of an order.
pub(crate) type Delivery = Result<(Digest, Arc<[u8]>), PrepareFailure>;

/// An artifact that was ordered.
struct Fetched {
    /// Number of the order.
    id: u64,
    /// What came of it so far; `None`: nothing yet.
    result: Option<Delivery>,
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
    artifacts: HashMap<Artifact, Fetched>,
    orders: u64,
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

    /// Digest of the component as it is now.
    pub(crate) fn look(&mut self, spec: &EntrySpec) -> Result<Whereabouts, PrepareFailure> {
        let (digest, bytes) = match &spec.source {
            PolicySource::Builtin(name) => {
                let (name, bytes) = embedded(name.as_str())?;
                let digest = *self.embedded.entry(name).or_insert_with(|| digest(bytes));
                (digest, Some(Bytes::Embedded(bytes)))
            }
            PolicySource::Bytes { bytes, .. } => {
                check_size(bytes.len() as u64)?;
                check_beginning(bytes)?;
                let known = self.shared.entry(bytes.as_ptr() as usize);
                let (_, digest) = known.or_insert_with(|| (Arc::clone(bytes), digest(bytes)));
                (*digest, Some(Bytes::Shared(Arc::clone(bytes))))
            }
            PolicySource::File(path) => self.file(path)?,
            PolicySource::Oci { .. } => return self.artifact(spec),
        };
        Ok(Whereabouts::Here(digest, bytes))
    }

    /// What came of an order. Whether that is news to anybody.
    pub(crate) fn deliver(&mut self, id: u64, result: Result<(Digest, Arc<[u8]>), PrepareFailure>) -> bool {
        let Some(fetched) = self.artifacts.values_mut().find(|fetched| fetched.id == id) else {
            return false;
        };
        let failure = |result: &Option<Delivery>| match result {
            Some(Err(failure)) => Some(failure.clone()),
            _ => None,
        };
        let before = failure(&fetched.result);
        fetched.result = Some(result);
        before.is_none() || before != failure(&fetched.result)
    }

    /// Whether an order is still waited for.
    pub(crate) fn is_wanted(&self, id: u64) -> bool {
        self.artifacts.values().any(|fetched| fetched.id == id)
    }

    /// Digest of the component when it was last looked at.
    pub(crate) fn last_digest(&self, spec: &EntrySpec) -> Option<Digest> {
        match &spec.source {
            PolicySource::Builtin(name) => self.embedded.get(name.as_str()).copied(),
            PolicySource::Bytes { bytes, .. } => {
                self.shared.get(&(bytes.as_ptr() as usize)).map(|(_, digest)| *digest)
            }
            PolicySource::File(path) => self.files.get(path).map(|file| file.digest),
            PolicySource::Oci { .. } => match &self.artifacts.get(&Artifact::of(spec)?)?.result {
                Some(Ok((digest, _))) => Some(*digest),
                _ => None,
            },
        }
    }

    /// Where the component's bytes will be when it is compiled.
    pub(crate) fn origin(&self, spec: &EntrySpec, bytes: Option<Bytes>) -> Result<Origin, PrepareFailure> {
        match (&spec.source, bytes) {
            (PolicySource::File(path), _) => Ok(Origin::File(resolve(&self.root, path)?)),
            (_, Some(bytes)) => Ok(Origin::Held(bytes)),
            (_, None) => Err(refuse("FetchFailed", format!("the component of {} is gone", spec.name), "")),
        }
    }

    /// Forgets what none of `live` names.
    pub(crate) fn retain(&mut self, live: &[Arc<EntrySpec>]) {
        let is_live = |wanted: &dyn Fn(&PolicySource) -> bool| live.iter().any(|spec| wanted(&spec.source));
        self.files.retain(|path, _| is_live(&|source| matches!(source, PolicySource::File(p) if p == path)));
        self.shared.retain(|_, (held, _)| {
            is_live(&|source| matches!(source, PolicySource::Bytes { bytes, .. } if Arc::ptr_eq(bytes, held)))
        });
        let wanted: HashSet<Artifact> = live.iter().filter_map(|spec| Artifact::of(spec)).collect();
        self.artifacts.retain(|artifact, _| wanted.contains(artifact));
    }

    fn artifact(&mut self, spec: &EntrySpec) -> Result<Whereabouts, PrepareFailure> {
        let Some(artifact) = Artifact::of(spec) else { return Ok(Whereabouts::Ordered(None)) };
        if let Some(known) = self.artifacts.get(&artifact) {
            return match &known.result {
                None => Ok(Whereabouts::Ordered(None)),
                Some(Ok((digest, bytes))) => {
                    Ok(Whereabouts::Here(*digest, Some(Bytes::Shared(Arc::clone(bytes)))))
                }
                Some(Err(failure)) => Err(failure.clone()),
            };
        }
        self.orders += 1;
        let Artifact { image, pull_secret, sha256 } = artifact.clone();
        let order = Order { id: self.orders, image, pull_secret, sha256 };
        self.artifacts.insert(artifact, Fetched { id: self.orders, result: None });
        Ok(Whereabouts::Ordered(Some(order)))
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
        check_beginning(&bytes)?;
        let digest = digest(&bytes);
        let settled =
            stamp.modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > SETTLED);
        self.files.insert(path.to_owned(), File { stamp, settled, digest });
        Ok((digest, Some(Bytes::Shared(bytes))))
    }
}

impl Artifact {
    fn of(spec: &EntrySpec) -> Option<Self> {
        let PolicySource::Oci { image, pull_secret } = &spec.source else { return None };
        let sha256 = spec.sha256.clone();
        Some(Self { image: image.clone(), pull_secret: pull_secret.clone(), sha256 })
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
    let (file, metadata) = files::open(path).map_err(|error| fetch_failed(path, &error))?;
    check_size(metadata.len())?;
    whole(path, &file)
}

/// The same for what stands on a command line, which may also be a pipe.
///
/// # Errors
/// `FetchFailed` or `TooLarge`.
pub(crate) fn read_argument(path: &Path) -> Result<Vec<u8>, PrepareFailure> {
    let file = fs::File::open(path).map_err(|error| fetch_failed(path, &error))?;
    whole(path, &file)
}

fn whole(path: &Path, file: &fs::File) -> Result<Vec<u8>, PrepareFailure> {
    files::rest(file, COMPONENT_BYTES_MAX as u64).map_err(|error| match error.kind() {
        // It is not read on to count it.
        io::ErrorKind::FileTooLarge => bounds::COMPONENT_BYTES.exceeded(COMPONENT_BYTES_MAX as u64 + 1),
        _ => fetch_failed(path, &error),
    })
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
        "put the component there; a gateway looks again when the file changes",
    )
}

fn check_size(bytes: u64) -> Result<(), PrepareFailure> {
    bounds::COMPONENT_BYTES.check(bytes)
}
