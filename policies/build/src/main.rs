//! Builds routing policies into WebAssembly components.
//!
//! Without arguments: every policy that `policies/Cargo.toml` lists, into `target/policies` of the repository (those below
//! `testing/` into `target/policies/testing`). A file whose content would not change is left alone, so that what embeds it is not
//! rebuilt. Sets itself up: see [`toolchain`].

mod crates;
mod output;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::crates::Guest;
use crate::toolchain::Toolchain;

const USAGE: &str = "\
Usage: build-policies [--out DIR]                 every policy of this workspace (default: target/policies)
       build-policies --policy DIR --out FILE     one policy crate of your own";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let (mut out, mut policy) = (None, None);
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--out" => &mut out,
            "--policy" => &mut policy,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("unknown argument `{other}`\n{USAGE}"),
        };
        *slot = Some(PathBuf::from(args.next().with_context(|| format!("`{arg}` needs a value\n{USAGE}"))?));
    }
    match (policy, out) {
        (None, out) => build_workspace(out),
        (Some(policy), Some(out)) => build_one(&policy, &out),
        (Some(_), None) => bail!("`--policy` needs `--out FILE`\n{USAGE}"),
    }
}

/// The repository's `policies` folder, where this tool's own sources are.
fn workspace() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

fn build_workspace(out: Option<PathBuf>) -> Result<()> {
    let root = workspace();
    let target = root.join("target");
    let default = root.with_file_name("target").join("policies");
    let tidy = out.is_none();
    let out = out.unwrap_or(default);
    let toolchain = Toolchain::find()?;
    let guests = crates::listed(&root.join("Cargo.toml"))?;
    let mut files = Vec::new();
    for guest in &guests {
        let folder = if guest.hostile { out.join("testing") } else { out.clone() };
        let file = folder.join(format!("{}.wasm", guest.name));
        build(&toolchain, guest, &target, &file)?;
        files.push(file);
    }
    if tidy {
        output::remove_others(&out, &files)?;
    }
    Ok(())
}

fn build_one(policy: &Path, out: &Path) -> Result<()> {
    let guest = crates::single(&policy.join("Cargo.toml"))?;
    // Shares the workspace's target directory: the SDK and its dependencies are compiled once.
    build(&Toolchain::find()?, &guest, &workspace().join("target"), out)
}

fn build(toolchain: &Toolchain, guest: &Guest, target: &Path, file: &Path) -> Result<()> {
    let core = crates::compile(toolchain, guest, target)
        .with_context(|| format!("building policy `{}`", guest.name))?;
    let component =
        output::encode(&core).with_context(|| format!("making a component of `{}`", guest.name))?;
    let written = output::write_if_changed(file, &component)?;
    let note = if written { "" } else { " (unchanged)" };
    println!("{:>7} bytes  {}{note}", component.len(), file.display());
    Ok(())
}
