//! `wicketgate crds`.

use std::process::ExitCode;

use anyhow::Context;

use crate::args::CrdsArgs;
use crate::say;

/// Prints every custom resource definition, or writes one file each.
pub(crate) fn print(args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    for (name, yaml) in manifest::crd::crds() {
        match &args.out {
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                let path = directory.join(&name);
                std::fs::write(&path, yaml).with_context(|| path.display().to_string())?;
            }
            None => say(format_args!("---\n{}", yaml.trim_end())),
        }
    }
    Ok(ExitCode::SUCCESS)
}
