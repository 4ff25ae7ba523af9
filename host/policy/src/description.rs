//! Whether the host can serve what a policy says of itself.

use domain::header::is_credential;
use domain::policy::{Description, PrepareFailure};
use domain::signal::Signal;
use http::HeaderName;

use crate::bindings::wicketgate::routing::types;
use crate::inspect::refuse;

/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 63;
/// Most request headers that a policy may ask for.
const HEADERS_MAX: usize = 16;

/// Checks a description and puts it into the host's words.
///
/// # Errors
/// `InvalidComponent`, or `UnknownSignal` for a signal that this gateway does not have.
pub(crate) fn check(description: types::Description) -> Result<Description, PrepareFailure> {
    let types::Description { name, version, summary, config_schema, .. } = description;
    if !is_name(&name) {
        return Err(wrong(
            format!("its name {name:?} is not lower-case words joined by `-`"),
            "rename it, for example `my-policy`",
        ));
    }
    for (what, text) in [("version", &version), ("summary", &summary)] {
        if text.len() > 1 << 10 || text.contains(char::is_control) {
            return Err(wrong(format!("its {what} is not one line of at most 1 KiB"), "shorten it"));
        }
    }
    let schema = serde_json::from_str::<serde_json::Value>(&config_schema);
    if !schema.is_ok_and(|schema| schema.is_object() || schema.is_boolean()) {
        return Err(wrong("its config schema is not a JSON Schema".to_owned(), "give at least `{}`"));
    }
    Ok(Description {
        name,
        version,
        summary,
        config_schema,
        signals: signals(&description.signals)?,
        wants_owners: description.wants_owners,
        wants_prefix_hashes: description.wants_prefix_hashes,
        needs_session: description.needs_session,
        headers: headers(&description.headers)?,
    })
}

fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(word)
}

fn signals(names: &[String]) -> Result<Vec<Signal>, PrepareFailure> {
    let mut signals = Vec::with_capacity(names.len().min(Signal::ALL.len()));
    for name in names {
        let Some(signal) = Signal::from_name(name) else {
            let known: Vec<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
            return Err(refuse(
                "UnknownSignal",
                format!("it asks for the signal {name:?}, which this gateway does not have"),
                format!("use only: {}", known.join(", ")),
            ));
        };
        if signals.contains(&signal) {
            return Err(wrong(format!("it asks for the signal `{name}` twice"), "name each signal once"));
        }
        signals.push(signal);
    }
    Ok(signals)
}

fn headers(names: &[String]) -> Result<Vec<HeaderName>, PrepareFailure> {
    if names.len() > HEADERS_MAX {
        return Err(wrong(format!("it asks for more than {HEADERS_MAX} request headers"), "ask for fewer"));
    }
    let mut headers = Vec::with_capacity(names.len());
    for name in names {
        match HeaderName::from_lowercase(name.as_bytes()) {
            Ok(header) if is_readable(&header) => headers.push(header),
            Ok(_) => {
                return Err(wrong(
                    format!("it asks for the request header `{name}`, which no policy may see"),
                    "do without it: credentials and the gateway's own headers stay in the gateway",
                ));
            }
            Err(_) => {
                return Err(wrong(
                    format!("it asks for the request header {name:?}, which is not a lower-case header name"),
                    "write header names in lower case",
                ));
            }
        }
    }
    Ok(headers)
}

/// Whether a policy may see this request header, whatever pool it serves.
pub(crate) fn is_readable(header: &HeaderName) -> bool {
    !is_credential(header) && !header.as_str().starts_with("x-wicketgate-")
}

fn wrong(message: String, remedy: &str) -> PrepareFailure {
    refuse("InvalidComponent", message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C8: a policy that asks for a credential does not load, under whatever name it travels.
    #[test]
    fn no_policy_may_ask_for_a_credential() {
        for name in
            ["authorization", "x-api-key", "api-key", "cookie", "proxy-authorization", "x-wicketgate-policy"]
        {
            let refused = headers(&["x-tier".to_owned(), name.to_owned()]).expect_err(name);
            assert_eq!(refused.reason, "InvalidComponent");
            assert!(refused.message.contains(name), "{refused}");
        }
        assert_eq!(headers(&["x-tier".to_owned()]).map(|headers| headers.len()), Ok(1));
    }

    /// N6: a signal of the gateway that the SDK does not name could not be asked for, and the other way round.
    #[test]
    fn the_sdk_names_the_signals_of_the_gateway() {
        let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/sdk/src/signal.rs");
        let sdk = std::fs::read_to_string(sdk).unwrap();
        let named = sdk.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
        let mut named: Vec<&str> = named.collect();
        let mut known: Vec<&str> = Signal::ALL.into_iter().map(Signal::name).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }
}
