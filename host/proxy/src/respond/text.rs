//! The three shapes of error bodies.

use domain::failure::{Failure, FailureKind, MultipartFault};
use http::StatusCode;
use serde::Serialize;

use super::{BodyKind, echo, message};

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Shape<'a> {
    Error(&'a str),
    Detail(&'a str),
}

/// `{"error":"…"}`.
pub(super) fn compat_error(message: &str) -> Vec<u8> {
    json(&Shape::Error(message))
}

/// `{"error":"…"}`; `{"detail":"…"}` for paths and methods, as the old router's framework wrote them.
pub(super) fn compat(kind: &FailureKind, body: BodyKind) -> Vec<u8> {
    let message = message(kind, body);
    json(&match kind {
        FailureKind::PathUnknown | FailureKind::MethodNotAllowed => Shape::Detail(&message),
        _ => Shape::Error(&message),
    })
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

/// `{"error":{"message","type","param","code"}}`.
pub(super) fn openai(failure: &Failure, status: StatusCode, body: BodyKind) -> Vec<u8> {
    use FailureKind as K;
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::FORBIDDEN => "permission_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let (param, code) = match failure.kind {
        K::ModelUnknown { .. } => (Some("model"), Some("model_not_found")),
        K::ModelMissing | K::Multipart(MultipartFault::ModelMissing) => {
            (Some("model"), Some("missing_required_parameter"))
        }
        K::ModelRepeated { .. } => (Some("model"), Some("model_repeated")),
        K::Multipart(MultipartFault::FileMissing) => (Some("file"), Some("missing_required_parameter")),
        K::EngineIdMissing | K::EngineIdUnknown { .. } => (Some("id"), Some(failure.label())),
        K::Overloaded { .. } | K::Refused { status: 429, .. } => (None, Some("rate_limit_exceeded")),
        _ => (None, Some(failure.label())),
    };
    let message = message(&failure.kind, body);
    json(&OpenAi { error: OpenAiError { message: &message, kind, param, code } })
}

/// The same for a head that cannot be served.
pub(super) fn openai_bad_head(message: &str) -> Vec<u8> {
    let (kind, code) = ("invalid_request_error", Some("bad_head"));
    json(&OpenAi { error: OpenAiError { message, kind, param: None, code } })
}

/// One line of text.
pub(super) fn plain(kind: &FailureKind) -> Vec<u8> {
    use FailureKind as K;
    let mut text = match kind {
        K::ModelUnknown { model } | K::ModelUnavailable { model } => {
            format!("model {} not loaded on any pod", quoted(&echo(model)))
        }
        K::NotReady => "no pods available".to_owned(),
        K::Connect | K::LostBeforeHead | K::BadAnswer | K::Status { .. } | K::LostMidway => {
            format!("proxy error: {kind}")
        }
        _ => message(kind, BodyKind::Json).into_owned(),
    };
    text.push('\n');
    text.into_bytes()
}

/// Between double quotes, with backslash escapes for quotes, backslashes and control characters.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char.is_control() => out.push_str(&format!("\\x{:02x}", char as u32)),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structures of strings serialise")
}
