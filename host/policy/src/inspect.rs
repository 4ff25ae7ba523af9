//! What can be said of a component without compiling it: its size, the version it was built for, what it imports.
//!
//! Everything that would make compiling dangerous or pointless is refused here, with what to do about it.

mod census;

use std::fmt;

use domain::policy::PrepareFailure;
use wasmparser::{Encoding, Parser, Payload};

use crate::bounds;
use census::Census;

pub use crate::bounds::{COMPONENT_BYTES_MAX, FUNCTION_BYTES_MAX};

/// A name out of a component is cut at this many bytes where it is shown.
const SHOWN_NAME_BYTES_MAX: usize = 120;
/// Names out of a component that are shown in one message.
const SHOWN_NAMES_MAX: usize = 12;
/// What the parser or the compiler says is cut at this many bytes.
const SHOWN_ERROR_BYTES_MAX: usize = 600;

/// Version of the contract that this gateway serves; any patch of this minor version.
pub const INTERFACE_VERSION: &str = "0.1.0";

const PACKAGE: &str = "wicketgate:routing/";
const POLICY: &str = "wicketgate:routing/policy@";

/// What a component shows from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Names of its imports.
    pub imports: Vec<String>,
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Version of the contract it was built for, such as `0.1.0`; empty if it is not built for any.
    pub interface_version: String,
    /// Functions in all its modules.
    pub functions: u32,
    /// Body of the largest function, bytes.
    pub function_bytes_max: usize,
}

/// Looks a component over.
///
/// # Errors
/// The reason of a [`crate::bounds::Bound`], `InvalidComponent`, `WrongWorld` or `ImportNotGranted`.
pub fn inspect(component: &[u8]) -> Result<Inspection, PrepareFailure> {
    let (inspection, found) = survey(component);
    found?;
    check_version(&inspection)?;
    for import in &inspection.imports {
        check_import(import)?;
    }
    Ok(inspection)
}

/// A failure whose configuration is not at fault.
pub(crate) fn refuse(
    reason: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> PrepareFailure {
    PrepareFailure { reason, message: message.into(), config_path: None, remedy: remedy.into() }
}

/// Whether bytes begin as WebAssembly does. Comes before their digest is compared and before anything else looks at them: they
/// may be a secret that was named by mistake or on purpose, and nothing of it is to be shown, its digest included.
///
/// # Errors
/// `InvalidComponent`.
pub(crate) fn check_beginning(component: &[u8]) -> Result<(), PrepareFailure> {
    if component.starts_with(b"\0asm") {
        return Ok(());
    }
    Err(refuse(
        "InvalidComponent",
        "it is not a valid component: it does not begin as WebAssembly does",
        "name a file or key that holds a component, and check it with `wasm-tools validate`",
    ))
}

/// Reads the outside of a component and counts what it is made of. What was read before the failure is there all the same.
pub(crate) fn survey(component: &[u8]) -> (Inspection, Result<(), PrepareFailure>) {
    let mut inspection = Inspection::default();
    let mut census = Census::default();
    let found = bounds::COMPONENT_BYTES
        .check(component.len() as u64)
        .and_then(|()| check_beginning(component))
        .and_then(|()| read(component, &mut inspection, &mut census));
    inspection.functions = u32::try_from(census.functions).unwrap_or(u32::MAX);
    inspection.function_bytes_max = census.function_bytes_max;
    let policy = inspection.exports.iter().find_map(|export| export.strip_prefix(POLICY));
    inspection.interface_version = policy.unwrap_or_default().to_owned();
    (inspection, found)
}

fn read(component: &[u8], inspection: &mut Inspection, census: &mut Census) -> Result<(), PrepareFailure> {
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(invalid)?;
        if let Payload::Version { encoding: Encoding::Module, .. } = payload
            && census.depth() == 0
        {
            return Err(refuse(
                "InvalidComponent",
                "this is a core module, not a component",
                "wrap it with `wasm-tools component new`, or build it with the policy build step",
            ));
        }
        census.count(&payload)?;
        match payload {
            Payload::ComponentImportSection(section) if census.depth() == 1 => {
                for import in section {
                    inspection.imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if census.depth() == 1 => {
                for export in section {
                    inspection.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_version(inspection: &Inspection) -> Result<(), PrepareFailure> {
    let version = &inspection.interface_version;
    if is_served(version) {
        return Ok(());
    }
    if !version.is_empty() {
        return Err(wrong_version(version));
    }
    let exports = names(&inspection.exports);
    Err(refuse(
        "WrongWorld",
        format!("it does not export `{PACKAGE}policy@{INTERFACE_VERSION}`; it exports: {exports}"),
        "build it for the world `routing-policy` of wit/routing.wit",
    ))
}

fn check_import(import: &str) -> Result<(), PrepareFailure> {
    if let Some((interface, version)) = import.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@')) {
        if !is_served(version) {
            return Err(wrong_version(version));
        }
        if matches!(interface, "types" | "host") {
            return Ok(());
        }
    }
    let remedy = if import.starts_with("wasi:") {
        "rebuild without WASI: Rust for the target wasm32-unknown-unknown; JavaScript with `componentize-js --disable \
         stdio random clocks http fetch-event`; Python with `componentize-py componentize --stub-wasi`"
    } else {
        "remove the import: a policy gets everything it needs as arguments"
    };
    Err(refuse(
        "ImportNotGranted",
        format!(
            "it imports `{}`; a policy may import `{PACKAGE}host` and nothing else",
            cut(import, SHOWN_NAME_BYTES_MAX)
        ),
        remedy,
    ))
}

fn wrong_version(version: &str) -> PrepareFailure {
    refuse(
        "WrongWorld",
        format!(
            "it was built for version {} of the routing contract; this gateway serves {INTERFACE_VERSION}",
            cut(version, SHOWN_NAME_BYTES_MAX)
        ),
        format!("rebuild it with the SDK and wit/routing.wit of version {INTERFACE_VERSION}"),
    )
}

/// Same major and minor: in 0.x a minor may break, a patch may only add.
fn is_served(version: &str) -> bool {
    let minor = |version: &str| {
        let mut parts = version.splitn(3, '.').map(str::to_owned);
        (parts.next(), parts.next())
    };
    minor(version) == minor(INTERFACE_VERSION)
}

/// The first of some names, each cut.
fn names(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<&str> =
        names.iter().take(SHOWN_NAMES_MAX).map(|name| cut(name, SHOWN_NAME_BYTES_MAX)).collect();
    let more = names.len() - shown.len();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// What the parser or the compiler says of bytes that are no valid component.
pub(crate) fn invalid(error: impl fmt::Display) -> PrepareFailure {
    let error = format!("{error:#}");
    refuse(
        "InvalidComponent",
        format!("it is not a valid component: {}", cut(&error, SHOWN_ERROR_BYTES_MAX)),
        "check the file with `wasm-tools validate`, and build it again",
    )
}

#[cfg(test)]
mod tests;
