//! The one log line of a request, target `request`, level info: names and numbers, never contents. `--request-log` lets
//! it through, whatever `--log-level` says of the rest.

use domain::outcome::Ending;

use super::End;

/// Writes the line, if the log takes it. Absent facts are absent fields; a status of 0 is of a client that left.
pub(super) fn write(end: &End<'_>, status: u16, error: Option<&'static str>) {
    if !tracing::enabled!(target: "request", tracing::Level::INFO) {
        return;
    }
    let outcome = end.outcome;
    let ending = match outcome.ending {
        Ending::Answered { .. } => "answered",
        Ending::Local { .. } => "local",
        Ending::Failed { .. } => "failed",
        Ending::ClientGone => "client_gone",
    };
    let usage = outcome.usage;
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    tracing::info!(
        target: "request",
        request_id = end.request_id,
        operation = end.operation,
        gateway = end.gateway.map(tracing::field::display),
        model = end.model.map(|model| model.as_str()),
        endpoint = end.attempt.map(|attempt| &*attempt.pair.url),
        ending,
        status,
        error,
        attempts = outcome.attempts,
        request_bytes = outcome.request_bytes,
        response_bytes = outcome.response_bytes,
        chunks = outcome.chunks,
        duration_ms = millis(outcome.duration),
        first_byte_ms = outcome.first_byte.map(millis),
        decision_us = outcome.decision.as_secs_f64() * 1e6,
        prompt_tokens = usage.map(|usage| usage.prompt_tokens),
        cached_tokens = usage.and_then(|usage| usage.cached_tokens),
        completion_tokens = usage.map(|usage| usage.completion_tokens),
    );
}
