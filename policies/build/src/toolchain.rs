//! Finding a compiler for `wasm32-unknown-unknown`, and getting one where there is none.
//!
//! Usually the pinned toolchain has the target or `rustup` fetches it within seconds. Where there is no rustup or it cannot reach
//! its server, Debian's `rustc-web` compiles the standard library along with the policies.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The target of every policy: a component made from it imports nothing but what the policy itself uses.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// A way to compile for [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The `cargo` that runs this tool, with the target's standard library installed.
    Installed,
    /// Debian's compiler; the standard library is built from its source package.
    Debian,
}

impl Toolchain {
    /// The first that works, installing what is missing.
    pub(crate) fn find() -> Result<Self> {
        if has_target() {
            return Ok(Self::Installed);
        }
        eprintln!("the target {TARGET} is not installed: adding it");
        if succeeds(Command::new("rustup").args(["target", "add", TARGET])) && has_target() {
            return Ok(Self::Installed);
        }
        eprintln!("rustup could not add it: trying Debian's {}", DEBIAN_PACKAGES[0]);
        if has_debian() || (install_debian() && has_debian()) {
            return Ok(Self::Debian);
        }
        bail!(
            "no compiler for {TARGET}. Either `rustup target add {TARGET}` must work, or on Debian `apt-get install {}`",
            DEBIAN_PACKAGES.join(" ")
        )
    }

    /// A `cargo` command whose compiler can build for [`TARGET`].
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::Installed => {
                Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
            }
            Self::Debian => {
                let mut cargo = Command::new("/usr/bin/cargo");
                // Without the variables of the toolchain that runs this tool; `build-std` is an unstable flag.
                cargo
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
                cargo
            }
        }
    }

    /// Further arguments for `cargo rustc`.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Debian => &["-Z", "build-std=std,panic_abort"],
        }
    }

    /// Further compiler flags.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Debian => &["-Clinker-flavor=wasm-ld"],
        }
    }
}

fn has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let printed = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    printed.is_ok_and(|out| {
        out.status.success() && Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir()
    })
}

fn has_debian() -> bool {
    let knows = |package: &str| {
        succeeds(Command::new("dpkg").args(["-s", package]).stdout(Stdio::null()).stderr(Stdio::null()))
    };
    DEBIAN_PACKAGES.iter().all(|package| knows(package))
}

fn install_debian() -> bool {
    // Outside root this needs a sudo that does not ask.
    let apt = |args: &[&str]| {
        succeeds(Command::new("apt-get").args(args))
            || succeeds(Command::new("sudo").args(["-n", "apt-get"]).args(args))
    };
    let install: Vec<_> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(DEBIAN_PACKAGES).collect();
    apt(&["update"]) && apt(&install)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}
