//! The one log line of a request, target `request`, level debug: names and numbers, never contents.

use domain::outcome::Ending;

use super::End;

/// Writes the line, if anybody listens. Absent facts are absent fields.
pub(super) fn write(end: &End<'_>, status: u16, error: Option<&'static str>) {
    if !tracing::enabled!(target: "request", tracing::Level::DEBUG) {
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
    tracing::debug!(
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
