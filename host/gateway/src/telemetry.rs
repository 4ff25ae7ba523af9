//! Where log lines go: standard error, as text or JSON.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Installs the subscriber. Called once, before anything logs. `request_log` lets the one-line-per-request target through.
pub(crate) fn install(level: &str, format: LogFormat, request_log: bool) -> anyhow::Result<()> {
    let requests = if request_log { "request=info" } else { "request=off" };
    let filter = EnvFilter::try_new(format!("{level},{requests}"))
        .map_err(|error| anyhow::anyhow!("--log-level {level:?}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
