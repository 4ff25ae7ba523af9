//! Where log lines go: standard error, as text or JSON.

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::Format;

mod levels;
mod lines;
mod source;

use levels::Levels;
use lines::Lines;

/// Installs the subscriber. Called once, before anything logs. `request_log` lets the line of each request through, at
/// every `level`; without it those lines are left out at every `level`.
pub(crate) fn install(level: &str, format: Format, request_log: bool) -> anyhow::Result<()> {
    let levels =
        Levels::read(level, request_log).map_err(|why| anyhow::anyhow!("--log-level {level:?}: {why}"))?;
    let most = levels.most();
    let filter = FilterFn::new(move |event| levels.lets_through(event)).with_max_level_hint(most);
    let lines = Lines { format, is_coloured: is_coloured() };
    let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(layer.and_then(filter)).try_init()?;
    Ok(())
}

/// Colours are for terminals, and not where `NO_COLOR` is set (no-color.org).
fn is_coloured() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && std::io::IsTerminal::is_terminal(&std::io::stderr())
}
