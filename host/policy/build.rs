//! Embeds the built-in policies: every component that the build step of `policies/` left in `target/policies`.
//!
//! Works with none, so that `cargo check` needs no components; a gateway built that way knows no built-in policy and says so.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Overrides the directory of the components.
const DIRECTORY_VARIABLE: &str = "WICKETGATE_POLICIES";

fn main() {
    println!("cargo:rerun-if-env-changed={DIRECTORY_VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let directory = directory();
    let components = components(&directory);
    watch(&directory, &components);
    if components.is_empty() {
        println!(
            "cargo:warning=no policy components in {}: this build has no built-in policies; build them with \
             `cargo run --manifest-path policies/Cargo.toml -p build`",
            directory.display()
        );
    }
    let mut table = String::from("&[\n");
    for (name, path) in &components {
        writeln!(table, "    ({name:?}, include_bytes!({:?}) as &[u8]),", path.display().to_string())
            .expect("writing to a string succeeds");
    }
    table.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("builtin.rs");
    fs::write(out, table).expect("the build directory can be written");
}

fn directory() -> PathBuf {
    match env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) => PathBuf::from(directory),
        None => {
            // Read when this runs: cargo keeps the compiled script when a checkout moves together with its `target`.
            let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
            Path::new(&manifest).join("../../target/policies")
        }
    }
}

/// Name and absolute path of each `*.wasm`, sorted by name.
fn components(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut components: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "wasm"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .collect();
    components.sort();
    components
}

/// Asks cargo to come back when a component changes, or when one appears.
fn watch(directory: &Path, components: &[(String, PathBuf)]) {
    for (_, path) in components {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    // Cargo looks at every file below a folder, so this covers components that appear later. A missing path would make
    // it run this, and compile the crate, every time: so the folder is made.
    if fs::create_dir_all(directory).is_ok() {
        println!("cargo:rerun-if-changed={}", directory.display());
    }
}
