//! `wicketgate policy check|run|list`: what a policy's author needs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use domain::policy::{Choice, Digest, PrepareFailure};
use policy::{Answered, Check, Decided, Library, Options, Scenario};

use crate::args::PolicyCommand;
use crate::say;

/// Largest scenario, bytes.
const SCENARIO_BYTES_MAX: u64 = 64 << 20;

/// Runs one of them.
pub(crate) fn run(command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::List => {
            for name in policy::builtin_names() {
                say(format_args!("{name}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Check { file, config } => check(file, config),
        PolicyCommand::Run { file, scenario } => decide(file, scenario),
    }
}

/// A library for one policy.
fn library() -> anyhow::Result<Library> {
    Ok(Library::new(Options { instances: 8, ..Options::default() })?)
}

fn check(file: &Path, config: &str) -> anyhow::Result<ExitCode> {
    let component = policy::open(&known(file)).map_err(|failure| refused(&failure))?;
    let check = policy::check(&library()?, &component, config);
    say(format_args!("{}", report(&check).trim_end()));
    Ok(if check.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn decide(file: &Path, scenario: &Path) -> anyhow::Result<ExitCode> {
    let component = policy::open(&known(file)).map_err(|failure| refused(&failure))?;
    // It may be a pipe.
    let text = std::fs::File::open(scenario).and_then(|file| files::rest(&file, SCENARIO_BYTES_MAX));
    let text = text.with_context(|| scenario.display().to_string())?;
    let scenario = Scenario::parse(&text).with_context(|| scenario.display().to_string())?;
    let decided = policy::run(&library()?, &component, &scenario)?;
    say(format_args!("{}", decision(&decided).trim_end()));
    Ok(if decided.answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file as it is, or the name of a built-in policy in its own spelling: where there is no such file, `PrefixHash` is
/// `prefix-hash`.
fn known(file: &Path) -> PathBuf {
    match file.to_str() {
        Some(name) if !file.exists() && !name.contains(['/', '.']) => manifest::policy_name(name).into(),
        _ => file.to_owned(),
    }
}

fn refused(failure: &PrepareFailure) -> anyhow::Error {
    let PrepareFailure { message, remedy, .. } = failure;
    if remedy.is_empty() { anyhow::anyhow!("{message}") } else { anyhow::anyhow!("{message} ({remedy})") }
}

/// What `check` prints: what it is, what it wants, and whether it would serve.
fn report(check: &Check) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<12} {value}");
    };
    let digest: Digest = check.digest;
    line("component", &format!("{} bytes, sha256 {digest}", check.bytes));
    if let Some(inspection) = &check.inspection {
        line("contract", &inspection.interface_version);
        line("imports", &joined(inspection.imports.iter().map(String::as_str)));
    }
    if let Some(description) = &check.description {
        line("policy", &format!("{} {}", description.name, description.version));
        line("summary", &description.summary);
        line("signals", &joined(description.signals.iter().map(|signal| signal.name())));
        line("headers", &joined(description.headers.iter().map(|header| header.as_str())));
        let wants = [
            (description.wants_owners, "session owners"),
            (description.wants_prefix_hashes, "prefix hashes"),
            (description.needs_session, "only requests with a session"),
        ];
        line("wants", &joined(wants.into_iter().filter(|(does, _)| *does).map(|(_, what)| what)));
        line("config", &compact(&description.config_schema));
    }
    if let Some(probed) = &check.probed {
        line("pure", &format!("yes: {} and {}", probed.answers[0], probed.answers[1]));
        line("fuel", &format!("{} and {} units", probed.fuel[0], probed.fuel[1]));
    }
    match &check.failure {
        None => line("verdict", "would serve"),
        Some(failure) => {
            let at = failure.config_path.as_ref().map_or_else(String::new, |path| format!(" at {path:?}"));
            line("verdict", &format!("refused: {}{at}: {}", failure.reason, failure.message));
            if !failure.remedy.is_empty() {
                line("remedy", &failure.remedy);
            }
        }
    }
    text
}

/// What `run` prints: what the policy saw, what it said, and what that leads to.
fn decision(decided: &Decided) -> String {
    let mut text = format!("policy   {}\n", decided.policy);
    if let Some(PrepareFailure { reason, message, .. }) = &decided.refused {
        let _ = writeln!(text, "refused  no gateway would load it as it is: {reason}: {message}");
    }
    for (signal, values) in &decided.columns {
        let _ = writeln!(text, "saw      {:<16} {}", signal.name(), numbers(values));
    }
    for line in &decided.log {
        let _ = writeln!(text, "log      {:?} {}", line.level, line.message);
    }
    let endpoint = |index: u32| match decided.endpoints.get(index as usize) {
        Some(url) => format!("{index} ({url})"),
        None => index.to_string(),
    };
    let order = |list: &[u32]| list.iter().map(|index| endpoint(*index)).collect::<Vec<_>>().join(", then ");
    let answer = match &decided.answer {
        Err((fault, why)) => format!("fault: {}: {why}", fault.label()),
        Ok(Answered::Chose(Choice::Endpoint(index), _)) => format!("endpoint {}", endpoint(*index)),
        Ok(Answered::Chose(Choice::Ordered(list), _)) => format!("in this order: {}", order(list)),
        Ok(Answered::Chose(choice, _)) => format!("{choice:?}"),
        Ok(Answered::Scored { scores, order: best, .. }) => {
            format!("scores {}; alone it would lead to {}", numbers(scores), order(best))
        }
        Ok(Answered::Refused(refusal)) => format!("refuses with {}: {}", refusal.status, refusal.reason),
        Ok(Answered::Abstained) => "abstains".to_owned(),
        Ok(Answered::NoSession) => "is not asked: it needs a session and there is none".to_owned(),
    };
    let _ = writeln!(text, "answer   {answer}");
    if let Ok(Answered::Chose(_, headers) | Answered::Scored { headers, .. }) = &decided.answer {
        for (name, value) in headers {
            let _ = writeln!(text, "header   {name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let _ = writeln!(text, "fuel     {} of {}", decided.fuel, decided.fuel_limit);
    let _ = writeln!(text, "took     {:?}", decided.duration);
    text
}

fn numbers(values: &[f32]) -> String {
    values.iter().map(f32::to_string).collect::<Vec<_>>().join(" ")
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let text = words.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".to_owned() } else { text }
}

/// JSON on one line; what is no JSON, as it is.
fn compact(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .map_or_else(|_| json.to_owned(), |value| value.to_string())
}
