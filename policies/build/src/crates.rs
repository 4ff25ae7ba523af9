//! Which crates are policies, and compiling one to a core WebAssembly module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::toolchain::{TARGET, Toolchain};

/// What makes a crate a policy: it depends on this one.
const SDK: &str = "wicketgate-sdk";

/// A stack that suits the deepest settings JSON may nest; less memory for each of thousands of instances.
const STACK_BYTES: usize = 128 * 1024;

/// A crate that becomes a component.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// Lies below `testing/`: made to misbehave, never shipped.
    pub(crate) hostile: bool,
    /// A crate outside this workspace, whose own release profile may be anything.
    foreign: bool,
}

/// The policies among the members of a workspace, sorted by name.
pub(crate) fn listed(manifest: &Path) -> Result<Vec<Guest>> {
    let root = manifest.parent().unwrap_or(Path::new("."));
    let mut guests = guests_of(&metadata(manifest)?, root);
    guests.sort_by(|one, other| one.name.cmp(&other.name));
    if guests.is_empty() {
        bail!("{} lists no policy", manifest.display());
    }
    Ok(guests)
}

/// The one policy whose manifest this is.
pub(crate) fn single(manifest: &Path) -> Result<Guest> {
    let manifest = fs::canonicalize(manifest)
        .with_context(|| format!("no crate here: {} is missing", manifest.display()))?;
    let metadata = metadata(&manifest)?;
    let package = packages(&metadata)
        .find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    let Some(package) = package else { bail!("{} describes no package", manifest.display()) };
    if !uses_sdk(package) {
        bail!("{} does not depend on `{SDK}`, so it is no policy", manifest.display());
    }
    let name = package["name"].as_str().unwrap_or_default().to_owned();
    Ok(Guest { name, manifest, hostile: false, foreign: true })
}

/// Compiles the crate and returns its core module.
pub(crate) fn compile(toolchain: &Toolchain, guest: &Guest, target: &Path) -> Result<Vec<u8>> {
    let mut cargo = toolchain.cargo();
    // A plain library in its manifest, so that tests and other crates can use it; a loadable module only here.
    cargo.args(["rustc", "--release", "--lib", "--crate-type", "cdylib", "--target", TARGET]);
    cargo.args(["--message-format", "json-render-diagnostics", "--package", &guest.name]);
    cargo
        .args(toolchain.arguments())
        .arg("--manifest-path")
        .arg(&guest.manifest)
        .arg("--target-dir")
        .arg(target);
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags(*toolchain, guest).join("\x1f"));
    if guest.foreign {
        let profile = [
            ("OPT_LEVEL", "3"),
            ("LTO", "fat"),
            ("CODEGEN_UNITS", "1"),
            ("PANIC", "abort"),
            ("STRIP", "true"),
        ];
        cargo.envs(profile.map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value)));
    }
    let out = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
    if !out.status.success() {
        bail!("cargo failed");
    }
    let file = module(&out.stdout, &guest.manifest).context("cargo made no module")?;
    fs::read(&file).with_context(|| format!("reading {}", file.display()))
}

/// The flags every policy is compiled with. They live here and in no `.cargo/config.toml`, where they would reach other builds.
fn flags(toolchain: Toolchain, guest: &Guest) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    // Debian's linker is called by itself; rustc's own is, too, but under the name of its flavour.
    flags.push(format!("-Clink-arg=-zstack-size={STACK_BYTES}"));
    flags.extend(toolchain.flags().iter().map(|&flag| flag.to_owned()));
    // The same component on every machine: a panic message names the file, not where the checkout is.
    let folder = guest.manifest.parent().and_then(Path::parent).map(Path::to_path_buf);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let remap = |path: PathBuf, to: &str| format!("--remap-path-prefix={}={to}", path.display());
    flags.extend(folder.map(|path| remap(path, ".")));
    flags.extend(home.map(|path| remap(path, "cargo")));
    flags
}

fn metadata(manifest: &Path) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let out = command.stderr(Stdio::inherit()).output().context("starting cargo")?;
    if !out.status.success() {
        bail!("`cargo metadata` failed for {}", manifest.display());
    }
    serde_json::from_slice(&out.stdout).context("reading what `cargo metadata` says")
}

fn guests_of(metadata: &Value, root: &Path) -> Vec<Guest> {
    let guest = |package: &Value| {
        let name = package["name"].as_str()?.to_owned();
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        let hostile = manifest.starts_with(root.join("testing"));
        (hostile || uses_sdk(package)).then_some(Guest { name, manifest, hostile, foreign: false })
    };
    packages(metadata).filter_map(guest).collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn uses_sdk(package: &Value) -> bool {
    package["dependencies"].as_array().into_iter().flatten().any(|dependency| dependency["name"] == SDK)
}

/// The module among the artifacts that cargo reports.
fn module(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let messages =
        messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let ours = |message: &Value| message["manifest_path"].as_str().map(Path::new) == Some(manifest);
    let files = messages.filter(ours).flat_map(|mut message| match message["filenames"].take() {
        Value::Array(files) => files,
        _ => Vec::new(),
    });
    let mut modules = files.filter_map(|file| file.as_str().map(PathBuf::from));
    modules.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_what_uses_the_sdk_and_what_lies_below_testing() {
        let package = |name: &str, folder: &str, dependency: &str| {
            let manifest = format!("/r/policies/{folder}/Cargo.toml");
            serde_json::json!({"name": name, "manifest_path": manifest, "dependencies": [{"name": dependency}]})
        };
        let metadata = serde_json::json!({"packages": [
            package("wicketgate-sdk", "sdk", "wit-bindgen"),
            package("round-robin", "round-robin", SDK),
            package("wrong-world", "testing/wrong-world", "wit-bindgen"),
            package("build", "build", "anyhow"),
        ]});
        let guests = guests_of(&metadata, Path::new("/r/policies"));
        let found: Vec<_> = guests.iter().map(|guest| (guest.name.as_str(), guest.hostile)).collect();
        assert_eq!(found, [("round-robin", false), ("wrong-world", true)]);
    }

    #[test]
    fn the_module_is_found_among_other_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/sdk/Cargo.toml","filenames":["/t/sdk.wasm"]}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/mine/Cargo.toml","filenames":["/t/mine.d","/t/mine.wasm"]}"#,
        );
        let found = module(messages.as_bytes(), Path::new("/mine/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from("/t/mine.wasm")));
    }
}
