//! Where log lines go: standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::Format;

/// Installs the subscriber. Called once, before anything logs. `request_log` lets the one-line-per-request target through.
pub(crate) fn install(level: &str, format: Format, request_log: bool) -> anyhow::Result<()> {
    let filter = filter(level, request_log).map_err(|why| anyhow::anyhow!("--log-level {level:?}: {why}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A word alone that is no level would be taken for the name of a part, and everything else be silent.
fn filter(level: &str, request_log: bool) -> Result<EnvFilter, String> {
    let level = level.split(',').map(in_our_words).collect::<Vec<_>>().join(",");
    let words = level.split(',').filter(|word| !word.contains(['=', '[']));
    for word in words {
        if word.parse::<LevelFilter>().is_err() {
            return Err(format!("{word:?} is no level; there are off, error, warn, info, debug and trace"));
        }
    }
    let requests = if request_log { "request=info" } else { "request=off" };
    EnvFilter::try_new(format!("{level},{requests}")).map_err(|error| error.to_string())
}

/// Levels as the production stack's router spells them.
fn in_our_words(word: &str) -> &str {
    match word.to_ascii_lowercase().as_str() {
        "warning" => "warn",
        "critical" => "error",
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_log_level_is_refused_instead_of_silencing_everything() {
        for level in
            ["info", "off", "WARN", "info,policy=debug", "error,control=trace", "warning", "Critical"]
        {
            assert!(filter(level, false).is_ok(), "{level}");
        }
        for level in ["warnings", "inof", "info,verbose", "info,policy=debgu"] {
            assert!(filter(level, true).is_err(), "{level}");
        }
    }
}
