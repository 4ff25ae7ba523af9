//! Files that are named by configuration, read so that none of them can hold a thread or fill memory.
//!
//! A name may lead anywhere: to a FIFO that no process writes, to a device without an end, to a file that grows while it is
//! read. So only regular files are opened, without waiting, and at most a named number of bytes is read of each. Symbolic
//! links are followed: mounted volumes of Kubernetes are made of them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file for reading, and says what it is at that moment. Never waits: a FIFO is refused before it is opened,
/// and where another file takes its place in between, opening it does not wait either.
///
/// # Errors
/// Of the system; [`io::ErrorKind::InvalidInput`] for anything but a regular file.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Opening a device may do something, so it is not even tried.
    regular(&std::fs::metadata(path)?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata))
}

/// Reads a regular file whole.
///
/// # Errors
/// Those of [`open`]; [`io::ErrorKind::FileTooLarge`] if it has more than `bytes_max` bytes, of which no more are read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    rest(&open(path)?.0, bytes_max)
}

/// Reads what is left of an open file.
///
/// # Errors
/// Of the system; [`io::ErrorKind::FileTooLarge`] if there are more than `bytes_max` bytes.
pub fn rest(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a directory" } else { "a device, socket or FIFO" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// C11: no FIFO and no device is opened or waited for, by whatever link it is reached.
    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        mkfifoat(CWD, path("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        for (link, target) in
            [("to-file", "file"), ("to-fifo", "fifo"), ("endless", "/dev/zero"), ("random", "/dev/urandom")]
        {
            symlink(target, path(link)).unwrap();
        }
        for name in ["file", "to-file"] {
            assert_eq!(read(&path(name), 4).unwrap(), b"text", "{name}");
        }
        for name in ["fifo", "to-fifo", "endless", "random", "."] {
            assert_eq!(read(&path(name), 4).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(read(&path("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// C11: a file is read up to its bound, however large it is or becomes.
    #[test]
    fn a_file_beyond_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path, 1 << 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
