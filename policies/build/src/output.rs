//! From a core module to a component in its place.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wit_component::ComponentEncoder;

/// Wraps a core module that carries its world, and validates the result.
pub(crate) fn encode(core: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(core)?.encode()
}

/// Writes the file unless it holds these bytes already; says whether it wrote.
///
/// The bytes appear under the final name at once: a gateway may watch this very file.
pub(crate) fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(file).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let describe = || format!("writing {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(describe)?;
    }
    let draft = file.with_extension(format!("{}.draft", std::process::id()));
    fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, file)).with_context(describe)?;
    Ok(true)
}

/// Removes the components of policies that are no longer listed.
pub(crate) fn remove_others(folder: &Path, keep: &[PathBuf]) -> Result<()> {
    let keep: HashSet<_> = keep.iter().map(PathBuf::as_path).collect();
    for folder in [folder.to_path_buf(), folder.join("testing")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for file in entries.flatten().map(|entry| entry.path()) {
            let component = file.extension().is_some_and(|extension| extension == "wasm");
            if component && !keep.contains(file.as_path()) {
                fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_files_keep_their_time_and_unlisted_ones_go() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (file, old) = (folder.path().join("testing/a.wasm"), folder.path().join("old.wasm"));
        assert!(write_if_changed(&file, b"one")?);
        assert!(write_if_changed(&old, b"old")?);
        let time = fs::metadata(&file)?.modified()?;
        assert!(!write_if_changed(&file, b"one")?);
        assert_eq!(fs::metadata(&file)?.modified()?, time);
        assert!(write_if_changed(&file, b"two")?);

        remove_others(folder.path(), std::slice::from_ref(&file))?;
        assert!(file.exists() && !old.exists());
        Ok(())
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(encode(b"no module").is_err());
    }
}
