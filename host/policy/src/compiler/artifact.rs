//! The file in memory that carries compiled code from the compiling process to the gateway.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest as _, Sha256};

/// Length of the key that makes a digest ours.
pub(super) const KEY_BYTES: usize = 32;
/// Read at a time, bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// A new key, from the system's generator.
pub(super) fn key() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

/// SHA-256 over key and code, lower-case hex.
pub(super) fn digest(key: &[u8; KEY_BYTES], code: &[u8]) -> String {
    hex(Sha256::new_with_prefix(key).chain_update(code).finalize().as_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that has no name and is not written yet.
pub(super) struct Artifact(File);

/// Code that is known to be what the compiling process wrote, in a file that nothing can change any more.
pub(super) struct Sealed(File);

impl Artifact {
    /// An empty one.
    pub(super) fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        Ok(Self(File::from(rustix::fs::memfd_create("compiled-policy", flags)?)))
    }

    /// The end that the process writes to.
    pub(super) fn writer(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// Ends all writing, and compares what is there with the digest that the process gave.
    pub(super) fn seal(
        mut self,
        key: &[u8; KEY_BYTES],
        expected: &str,
        bytes_max: u64,
    ) -> Result<Sealed, String> {
        let failed = |error: io::Error| format!("its result cannot be read: {error}");
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.0, seals).map_err(|error| failed(error.into()))?;
        if self.0.metadata().map_err(failed)?.len() > bytes_max {
            return Err("its result is too large".to_owned());
        }
        self.0.rewind().map_err(failed)?;
        let mut hasher = Sha256::new_with_prefix(key);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = self.0.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            hasher.update(&chunk[..read]);
        }
        if hex(hasher.finalize().as_slice()) == expected {
            Ok(Sealed(self.0))
        } else {
            Err("its result is not what it said it wrote".to_owned())
        }
    }
}

impl Sealed {
    /// A path that leads to it, for as long as it lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn written(code: &[u8]) -> Artifact {
        let artifact = Artifact::create().unwrap();
        File::from(artifact.writer().unwrap()).write_all(code).unwrap();
        artifact
    }

    /// C1: only what the process vouched for is loaded, and nothing changes it afterwards.
    #[test]
    fn code_is_taken_only_as_it_was_written_and_cannot_be_written_again() {
        let key = key().unwrap();
        let good = digest(&key, b"code");
        let artifact = written(b"code");
        let mut late = File::from(artifact.writer().unwrap());
        let sealed = artifact.seal(&key, &good, 4).map_err(|why| panic!("{why}")).unwrap();
        assert!(late.write_all(b"more").is_err());
        assert_eq!(std::fs::read(sealed.path()).unwrap(), b"code");
        assert!(written(b"c0de").seal(&key, &good, 4).is_err(), "other code");
        assert!(written(b"code").seal(&super::key().unwrap(), &good, 4).is_err(), "another process's key");
        assert!(written(b"code").seal(&key, &good, 3).is_err(), "too long");
    }
}
