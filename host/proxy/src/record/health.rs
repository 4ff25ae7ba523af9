//! One line for each endpoint that stops or starts getting requests, with the reason.

use std::time::Duration;

use domain::breaker::{Cause, Change, Failed};
use domain::endpoint::Endpoint;

/// Logs a change, if there was one: a warning when the endpoint is avoided from now on, at level info when it is back. An
/// overloaded engine is avoided for less than a second as a rule, and is well: that is level info too.
pub(crate) fn changed(endpoint: &Endpoint, change: Option<Change>) {
    if let Some(change) = change {
        log(&endpoint.spec.id.url, change);
    }
}

#[cold]
fn log(endpoint: &str, change: Change) {
    match change {
        Change::Out(Failed { cause: Cause::Overloaded, status, .. }) => {
            tracing::info!(
                endpoint,
                cause = Cause::Overloaded.label(),
                status,
                "engine is overloaded: avoided for a moment"
            );
        }
        Change::Out(Failed { cause, status, .. }) => {
            let status = (status > 0).then_some(status);
            let why = cause.sentence();
            tracing::warn!(
                endpoint,
                cause = cause.label(),
                status,
                "engine {why}: requests avoid it until a probe succeeds"
            );
        }
        Change::Back { after_ms } => {
            let after_s = Duration::from_millis(after_ms).as_secs_f64();
            tracing::info!(endpoint, after_s, "engine answers again: it gets requests");
        }
    }
}
