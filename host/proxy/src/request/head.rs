//! What hyper lets pass in a head and two parsers could read differently.

use http::Version;
use http::header::{HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;

/// What is wrong with a head, for the client; `None`: nothing. `has_length`: how long the body is, is known from the head.
///
/// On the way of every request: one look-up, and a pass over the host's few bytes.
pub(super) fn fault(parts: &Parts, has_length: bool) -> Option<&'static str> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    match hosts.next() {
        // HTTP/2 names it in the target, and HTTP/1.0 need not (RFC 9112, 3.2).
        None if parts.version == Version::HTTP_11 => return Some("Invalid request: no Host header."),
        None => {}
        Some(_) if hosts.next().is_some() => return Some("Invalid request: more than one Host header."),
        Some(host) if !is_host(host.as_bytes()) => {
            return Some("Invalid request: the Host header is no host name.");
        }
        Some(_) => {}
    }
    // A body with a coding has no length in the head, so most requests need not be asked for one.
    if !has_length && has_other_codings(parts) {
        return Some("Invalid request: a Transfer-Encoding other than chunked is not accepted.");
    }
    None
}

/// Whether the client can do with nothing but another protocol. Those that offer HTTP/2 or TLS go on without as well.
pub(super) fn wants_upgrade(parts: &Parts) -> bool {
    let mut lines = parts.headers.get_all(UPGRADE).iter().peekable();
    let is_offer = |token: &[u8]| {
        let token = token.trim_ascii().to_ascii_lowercase();
        token == b"h2c" || token.starts_with(b"http/") || token.starts_with(b"tls/")
    };
    lines.peek().is_some() && !lines.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_offer))
}

/// Host and port, of the characters that RFC 3986 (3.2.2) has for them. Empty is allowed: a target may have no host.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte))
}

/// Whether anything but a single `chunked` was applied to the body. hyper looks at the last coding only.
fn has_other_codings(parts: &Parts) -> bool {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return false };
    !first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") || codings.next().is_some()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(version: Version, lines: &[(&str, &str)], has_length: bool) -> Option<&'static str> {
        let mut builder = Request::post("/v1/completions").version(version);
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        fault(&builder.body(()).unwrap().into_parts().0, has_length)
    }

    #[test]
    fn http_1_1_names_one_host_that_can_be_one() {
        for good in ["gw", "gw.example:8080", "[::1]:80", "127.0.0.1", "a_b-c~", "%41", ""] {
            assert_eq!(of(Version::HTTP_11, &[("host", good)], true), None, "{good:?}");
        }
        for bad in ["a b", "user@gw", "gw/path", "gw?", "gw#", "a\\b", "a\"b", "<gw>", "a\tb"] {
            assert!(of(Version::HTTP_11, &[("host", bad)], true).is_some(), "{bad:?}");
        }
        assert!(of(Version::HTTP_11, &[("host", "gw"), ("host", "gw")], true).is_some());
        assert!(of(Version::HTTP_11, &[], true).is_some());
        assert_eq!(of(Version::HTTP_10, &[], true), None);
        assert_eq!(of(Version::HTTP_2, &[], false), None);
    }

    #[test]
    fn chunked_is_the_only_coding_and_applied_once() {
        let coded = |codings: &[&str]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            of(Version::HTTP_11, &[("host", "gw")].into_iter().chain(codings).collect::<Vec<_>>(), false)
        };
        for good in ["chunked", "CHUNKED", " chunked "] {
            assert_eq!(coded(&[good]), None, "{good:?}");
        }
        for bad in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["chunked", "chunked"]]
        {
            assert!(coded(bad).is_some(), "{bad:?}");
        }
    }
}
