//! `wicketgate check PATH...`: what is wrong with manifests, without serving them.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use control::Manifests;
use domain::finding::{Finding, Severity};
use policy::{Library, Options};
use serde_json::json;

use crate::args::{CheckArgs, Color, Format};
use crate::{pages, say, wire};

mod show;

/// A policy that takes longer to compile than this is reported as not ready.
const POLICIES_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most bytes of standard input that are read.
const STDIN_BYTES_MAX: u64 = 16 << 20;
/// What findings call standard input.
const STDIN: &str = "<stdin>";

/// Prints the findings; exit code 1 if something would not be in force, and with `--strict` if anything is to be warned of.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let manifests = manifests(args)?;
    let options = Options { instances: 16, directory: args.policy_dir.clone(), ..Options::default() };
    let library = Library::new(options)?;
    let checked = control::check(&manifests, wire::index(), &library, POLICIES_WAIT_MAX);
    match args.format {
        Format::Text => {
            let style = style(args.color);
            say(format_args!("{}", show::text(&checked, &manifests, style).trim_end()));
        }
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
    let is_bad = checked.has_errors() || (args.strict && checked.count(Severity::Warning) > 0);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn manifests(args: &CheckArgs) -> anyhow::Result<Vec<Manifests>> {
    let mut all = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        if path.as_os_str() == "-" {
            let mut text = Vec::new();
            std::io::stdin()
                .take(STDIN_BYTES_MAX + 1)
                .read_to_end(&mut text)
                .context("reading standard input")?;
            all.push(Manifests::Text(STDIN.into(), text));
        } else {
            anyhow::ensure!(path.exists(), "{} is neither a file nor a directory", path.display());
            all.push(Manifests::Path(path.clone()));
        }
    }
    Ok(all)
}

/// How to print: on a terminal with the line that a finding is about.
fn style(color: Color) -> show::Style {
    let is_terminal = std::io::stdout().is_terminal();
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let in_color = match color {
        Color::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
        Color::Always => true,
        Color::Never => false,
    };
    show::Style { in_color, with_lines: is_terminal || color == Color::Always }
}
