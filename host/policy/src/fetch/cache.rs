//! What was fetched, in a directory, by its SHA-256. Nothing in it is believed without being hashed again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::library::digest;

/// Most bytes kept; the oldest files go first.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// The directory. Whatever fails there is as if it held nothing: the registry is asked instead.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, bytes_max: CACHE_BYTES_MAX }
    }

    /// What has this SHA-256, if it is there and no larger than `bytes_max`.
    pub(super) fn get(&self, sha256: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let path = self.path(sha256);
        let bytes = files::read(&path, bytes_max).ok()?;
        if digest(&bytes).to_string() != sha256 {
            tracing::warn!(file = %path.display(), "a cached component is damaged, and fetched again");
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(bytes)
    }

    /// Keeps what has this SHA-256, and makes room for it.
    pub(super) fn put(&self, sha256: &str, bytes: &[u8]) {
        let kept = self.write(sha256, bytes).and_then(|()| self.evict());
        if let Err(error) = kept {
            tracing::warn!(directory = %self.directory.display(), %error, "a fetched component cannot be kept");
        }
    }

    fn write(&self, sha256: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        // Renamed when whole: another process may read at the same time.
        let scratch = self.directory.join(format!("new-{}-{sha256}", std::process::id()));
        fs::write(&scratch, bytes)?;
        fs::rename(&scratch, self.path(sha256))
    }

    fn evict(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && is_ours(&entry.path()) {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= len;
        }
        Ok(())
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.directory.join(format!("sha256-{sha256}"))
    }
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("sha256-") || name.starts_with("new-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(bytes: &[u8]) -> String {
        digest(bytes).to_string()
    }

    #[test]
    fn what_was_kept_is_found_unless_it_is_damaged_or_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("below"));
        let hex = sha256(b"component");
        assert_eq!(cache.get(&hex, 100), None);
        cache.put(&hex, b"component");
        assert_eq!(cache.get(&hex, 100).as_deref(), Some(&b"component"[..]));
        assert_eq!(cache.get(&hex, 3), None);
        fs::write(cache.path(&hex), b"something").unwrap();
        assert_eq!(cache.get(&hex, 100), None);
        assert!(!cache.path(&hex).exists(), "it is not looked at again");
    }

    #[test]
    fn the_oldest_make_room_and_foreign_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { directory: folder.path().to_owned(), bytes_max: 25 };
        fs::write(folder.path().join("theirs"), [0; 1_000]).unwrap();
        let at = |age: u64| SystemTime::now() - std::time::Duration::from_secs(age);
        for (index, age) in [(0_u8, 30), (1, 20)] {
            let bytes = [index; 10];
            cache.put(&sha256(&bytes), &bytes);
            fs::File::options()
                .write(true)
                .open(cache.path(&sha256(&bytes)))
                .unwrap()
                .set_modified(at(age))
                .unwrap();
        }
        cache.put(&sha256(&[2; 10]), &[2; 10]);
        let kept = [0_u8, 1, 2].map(|index| cache.get(&sha256(&[index; 10]), 100).is_some());
        assert_eq!(kept, [false, true, true]);
        assert!(folder.path().join("theirs").exists());
    }
}
