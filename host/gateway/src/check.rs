//! `wicketgate check DIR`: what is wrong with a directory of manifests, without serving it.

use std::process::ExitCode;
use std::time::Duration;

use domain::finding::Finding;
use policy::{Library, Options};
use serde_json::json;

use crate::args::{CheckArgs, Format};
use crate::{pages, say, wire};

/// A policy that takes longer to compile than this is reported as not ready.
const POLICIES_WAIT_MAX: Duration = Duration::from_secs(60);

/// Prints the findings; exit code 1 if something would not be in force.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.directory.is_dir(), "{} is no directory", args.directory.display());
    let options = Options { instances: 16, directory: args.policy_dir.clone(), ..Options::default() };
    let library = Library::new(options)?;
    let checked = control::check(&args.directory, wire::index(), &library, POLICIES_WAIT_MAX);
    match args.format {
        Format::Text => say(format_args!("{}", checked.to_string().trim_end())),
        Format::Json => {
            let findings: Vec<_> =
                checked.findings.iter().map(|finding: &Finding| pages::finding(finding)).collect();
            say(format_args!(
                "{}",
                json!({
                    "findings": findings,
                    "gateways": checked.gateways,
                    "routes": checked.routes,
                    "endpoints": checked.endpoints,
                })
            ));
        }
    }
    Ok(if checked.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
