//! What can be said of a component without compiling it: its size, the version it was built for, what it imports.
//!
//! Everything that would make compiling dangerous or pointless is refused here, with what to do about it.

use std::fmt;

use domain::policy::PrepareFailure;
use wasmparser::{Encoding, Parser, Payload};

/// Largest component, bytes.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;
/// Largest body of one function, bytes. Straight-line code is not interrupted by fuel and compiles slowly.
pub const FUNCTION_BYTES_MAX: usize = 256 << 10;
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
/// `TooLarge`, `InvalidComponent`, `WrongWorld` or `ImportNotGranted`.
pub fn inspect(component: &[u8]) -> Result<Inspection, PrepareFailure> {
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(refuse(
            "TooLarge",
            format!("the component has {} bytes; at most {COMPONENT_BYTES_MAX} are loaded", component.len()),
            "strip debug information, or write the policy in a language with a smaller runtime",
        ));
    }
    let inspection = scan(component)?;
    if inspection.function_bytes_max > FUNCTION_BYTES_MAX {
        return Err(refuse(
            "TooLarge",
            format!(
                "a function has a body of {} bytes; at most {FUNCTION_BYTES_MAX} are compiled",
                inspection.function_bytes_max
            ),
            "split the function, or turn large tables in code into data",
        ));
    }
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

/// Reads the outside of a component, without judging it.
///
/// # Errors
/// `InvalidComponent`, when it is none.
pub(crate) fn scan(component: &[u8]) -> Result<Inspection, PrepareFailure> {
    check_beginning(component)?;
    let mut inspection = Inspection::default();
    // How many modules and components we are inside of; the outermost component is 1.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && encoding == Encoding::Module {
                    return Err(refuse(
                        "InvalidComponent",
                        "this is a core module, not a component",
                        "wrap it with `wasm-tools component new`, or build it with the policy build step",
                    ));
                }
            }
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    inspection.imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    inspection.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::CodeSectionEntry(body) => {
                inspection.functions += 1;
                inspection.function_bytes_max = inspection.function_bytes_max.max(body.range().len());
            }
            _ => {}
        }
    }
    let policy = inspection.exports.iter().find_map(|export| export.strip_prefix(POLICY));
    inspection.interface_version = policy.unwrap_or_default().to_owned();
    Ok(inspection)
}

fn check_version(inspection: &Inspection) -> Result<(), PrepareFailure> {
    let version = &inspection.interface_version;
    if is_served(version) {
        return Ok(());
    }
    if !version.is_empty() {
        return Err(wrong_version(version));
    }
    let exports = inspection.exports.join(", ");
    Err(refuse(
        "WrongWorld",
        format!(
            "it does not export `{PACKAGE}policy@{INTERFACE_VERSION}`; it exports: {}",
            or_nothing(&exports)
        ),
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
        "rebuild without WASI: Rust for the target wasm32-unknown-unknown, TinyGo with -target=wasm-unknown, \
         JavaScript with `componentize-js --disable all`"
    } else {
        "remove the import: a policy gets everything it needs as arguments"
    };
    Err(refuse(
        "ImportNotGranted",
        format!("it imports `{import}`; a policy may import `{PACKAGE}host` and nothing else"),
        remedy,
    ))
}

fn wrong_version(version: &str) -> PrepareFailure {
    refuse(
        "WrongWorld",
        format!(
            "it was built for version {version} of the routing contract; this gateway serves {INTERFACE_VERSION}"
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

fn or_nothing(list: &str) -> &str {
    if list.is_empty() { "nothing" } else { list }
}

/// What the parser or the compiler says of bytes that are no valid component.
pub(crate) fn invalid(error: impl fmt::Display) -> PrepareFailure {
    refuse(
        "InvalidComponent",
        format!("it is not a valid component: {error:#}"),
        "check the file with `wasm-tools validate`, and build it again",
    )
}
