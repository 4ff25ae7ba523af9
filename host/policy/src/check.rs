//! What `wicketgate policy check FILE` finds out about a component.

use std::path::Path;

use domain::name::PolicyName;
use domain::policy::{
    Description, Digest, EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource, PrepareFailure,
};

use crate::inspect::{self, Inspection};
use crate::library::{Library, digest, embedded, read_argument};
use crate::probe::Probed;

/// What a component is, as far as it could be found out, and whether the gateway would load it.
#[derive(Clone, Debug)]
pub struct Check {
    /// Size in bytes.
    pub bytes: usize,
    /// SHA-256.
    pub digest: Digest,
    /// Its outside: interface version, imports, exports, functions. `None`: it is no component.
    pub inspection: Option<Inspection>,
    /// What it says of itself, its configuration schema among it. `None`: it did not come to that.
    pub description: Option<Description>,
    /// What the purity probe saw. `None`: it did not come to that.
    pub probed: Option<Probed>,
    /// Why the gateway would not load it; `None`: it would.
    pub failure: Option<PrepareFailure>,
}

/// The component that a command line names: a file, or a built-in policy where there is no such file.
///
/// # Errors
/// `FetchFailed` or `TooLarge`.
pub fn open(file_or_builtin: &Path) -> Result<Vec<u8>, PrepareFailure> {
    match file_or_builtin.to_str() {
        Some(name) if !file_or_builtin.exists() && !name.contains(['/', '.']) => {
            embedded(name).map(|(_, bytes)| bytes.to_vec())
        }
        _ => read_argument(file_or_builtin),
    }
}

/// Goes as far with a component as a gateway would: inspects, compiles, describes, configures with `config` (JSON), probes.
pub fn check(library: &Library, component: &[u8], config: &str) -> Check {
    let digest = digest(component);
    let spec = spec(component, config);
    let prepared = library.ready_now(&spec);
    let description = match &prepared {
        Ok(ready) => Some((*ready.description).clone()),
        // It may get as far as describing itself.
        Err(_) => library.compiled(digest).and_then(|compiled| library.describe(&compiled, &spec)),
    };
    let (inspection, surveyed) = inspect::survey(component);
    let is_component = !matches!(&surveyed, Err(failure) if failure.reason == "InvalidComponent");
    Check {
        bytes: component.len(),
        digest,
        inspection: is_component.then_some(inspection),
        description,
        probed: prepared.as_ref().ok().map(|ready| ready.probed.clone()),
        failure: prepared.err().map(at_the_command_line),
    }
}

/// The failure with a remedy for a user who is checking already.
fn at_the_command_line(failure: PrepareFailure) -> PrepareFailure {
    let remedy = match failure.reason {
        "ConfigRejected" => "compare the settings with the schema above; `--config JSON` tries others",
        _ => return failure,
    };
    PrepareFailure { remedy: remedy.to_owned(), ..failure }
}

/// A spec for a component that is tried on its own.
pub(crate) fn spec(component: &[u8], config: &str) -> EntrySpec {
    EntrySpec {
        name: PolicyName::from("tried"),
        source: PolicySource::Bytes { origin: "command line".into(), bytes: component.into() },
        sha256: None,
        config: config.into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: "".into(),
    }
}

#[cfg(test)]
mod tests;
