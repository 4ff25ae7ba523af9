//! Base URLs of engines.

use std::sync::Arc;

use domain::endpoint::Target;

use crate::bundle::facts::authority;
use crate::kind::text::is_host;

/// Longest URL that is taken, bytes.
pub(crate) const URL_BYTES_MAX: usize = 2_048;

/// Paths that OpenAI clients put behind a base URL of theirs.
const API_PATHS: [&str; 6] =
    ["chat/completions", "completions", "embeddings", "models", "responses", "messages"];

/// Reads the base URL of an engine as [`parse`] does, and takes it as OpenAI clients write it too: a `/v1` at the end of the
/// path is left out, since every path that is asked there has its own.
///
/// # Errors
/// Why it is not one, for people; among others, if it is the URL of one API call.
pub fn parse_engine(text: &str) -> Result<(Arc<str>, Target), &'static str> {
    let (url, target) = parse(text)?;
    let path = &*target.base_path;
    if API_PATHS.iter().any(|api| path.strip_suffix(api).is_some_and(|base| base.ends_with("/v1/"))) {
        return Err("it is the URL of one API call; leave out its path from /v1 on");
    }
    let Some(base) = path.strip_suffix("/v1") else { return Ok((url, target)) };
    let base = base.trim_end_matches('/');
    let url = &url[..url.len() - (path.len() - base.len())];
    Ok((url.into(), Target { base_path: base.into(), ..target }))
}

/// Reads a base URL: `http` or `https`, a host, perhaps a port and a path; no user, query or fragment. Returns it without
/// trailing slashes, host and scheme in lower case, together with its parts.
///
/// # Errors
/// Why it is none, for people.
pub fn parse(text: &str) -> Result<(Arc<str>, Target), &'static str> {
    let text = text.trim();
    if text.len() > URL_BYTES_MAX {
        return Err("it is longer than 2048 bytes");
    }
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\' || byte >= 0x80) {
        return Err("it holds blanks, backslashes or characters outside ASCII");
    }
    let (scheme, rest) = text.split_once("://").ok_or("it does not begin with http:// or https://")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("it does not begin with http:// or https://"),
    };
    if rest.contains(['?', '#']) {
        return Err("it has a query or a fragment");
    }
    let (place, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    if place.contains('@') {
        return Err("it holds a user; credentials belong into auth.secretRef");
    }
    let (host, port) = host_and_port(place, if tls { 443 } else { 80 })?;
    let host = host.to_ascii_lowercase();
    if host.contains(['$', '{', '}', '<', '>', '%']) {
        return Err("its host holds a placeholder that was not filled in");
    }
    if !host.contains(':') && !is_host(&host) {
        return Err("its host is neither a DNS name nor an IP address");
    }
    let path = path.trim_end_matches('/');
    let is_default = port == if tls { 443 } else { 80 };
    let with_port = authority(&host, port);
    let shown = if is_default {
        with_port.rsplit_once(':').map_or(&*with_port, |(host, _)| host)
    } else {
        &with_port
    };
    let url = format!("{}://{shown}{path}", if tls { "https" } else { "http" });
    let target =
        Target { tls, host: host.as_str().into(), port, base_path: path.into(), authority: shown.into() };
    Ok((url.into(), target))
}

fn host_and_port(place: &str, default: u16) -> Result<(&str, u16), &'static str> {
    let (host, rest) = match place.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or("its address lacks a closing bracket")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
            (host, rest)
        }
        None => place.find(':').map_or((place, ""), |colon| place.split_at(colon)),
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => default,
        None => return Err("it has no usable port"),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or("its port is not one from 1 to 65535")?
        }
        Some(_) if rest.contains(['$', '{', '<']) => {
            return Err("its port holds a placeholder that was not filled in");
        }
        Some(_) => return Err("its port is not one from 1 to 65535"),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_brought_to_one_form() {
        for (text, url, host, port, path, authority) in [
            ("http://10.0.0.1:8000/", "http://10.0.0.1:8000", "10.0.0.1", 8000, "", "10.0.0.1:8000"),
            ("HTTP://Svc:8000/V1//", "http://svc:8000/V1", "svc", 8000, "/V1", "svc:8000"),
            ("https://api.example", "https://api.example", "api.example", 443, "", "api.example"),
            ("http://[fd00::1]:9/x", "http://[fd00::1]:9/x", "fd00::1", 9, "/x", "[fd00::1]:9"),
            ("http://[fd00::1]", "http://[fd00::1]", "fd00::1", 80, "", "[fd00::1]"),
            (
                "http://vllm_engine:8000",
                "http://vllm_engine:8000",
                "vllm_engine",
                8000,
                "",
                "vllm_engine:8000",
            ),
            ("http://e.ns.svc.:1", "http://e.ns.svc.:1", "e.ns.svc.", 1, "", "e.ns.svc.:1"),
            (" http://a:80 ", "http://a", "a", 80, "", "a"),
        ] {
            let (found, target) = parse(text).expect(text);
            assert_eq!(&*found, url);
            assert_eq!((&*target.host, target.port, &*target.base_path), (host, port, path), "{text}");
            assert_eq!(&*target.authority, authority, "{text}");
            assert_eq!(target.tls, text.starts_with("https"));
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:",
            "http://u:p@a",
            "http://a?x=1",
            "http://a#x",
            "http://a b",
            "http://[fd00",
            "http://[x]:1",
            "http://[::1]x",
            "http://ä",
            "http://a\\b",
            "http://a\r\nb",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    /// N4: what can never be a host is refused, a placeholder above all.
    #[test]
    fn hosts_that_cannot_be_are_refused() {
        for text in [
            "http://${ENGINE}:8000",
            "http://$ENGINE:8000",
            "http://{{ .Values.host }}:8000",
            "http://{{host}}:8000",
            "http://<host>:8000",
            "http://%ENGINE%:8000",
            "http://engine:${PORT}",
            "http://-a:1",
            "http://a-:1",
            "http://a..b:1",
            "http://.a:1",
            "http://a,b:1",
            "http://a;b:1",
            "http://a*:1",
            "http://*:1",
            "http://a!:1",
            "http://'a':1",
            "http://10.0.0.256:1",
            "http://10.0.0:1",
            "http://1.2.3.4.5:1",
            "http://12345:1",
            "http://0x7f.1:1",
            "http://fd00::1",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let long = "a".repeat(64);
        assert!(parse(&format!("http://{long}:1")).is_err());
        assert!(parse(&format!("http://{}:1", vec!["abcdefgh"; 29].join("."))).is_err());
    }

    /// B4: a base URL as OpenAI clients have it means the same engine as without `/v1`.
    #[test]
    fn a_base_url_that_ends_in_v1_is_the_engines_own() {
        for (text, url, path) in [
            ("http://a:8000/v1", "http://a:8000", ""),
            ("http://a:8000/v1/", "http://a:8000", ""),
            ("https://api.example/openai/v1", "https://api.example/openai", "/openai"),
            ("http://[fd00::1]/v1", "http://[fd00::1]", ""),
            ("http://a:8000/v1beta", "http://a:8000/v1beta", "/v1beta"),
            ("http://a:8000/xv1", "http://a:8000/xv1", "/xv1"),
            ("http://a:8000", "http://a:8000", ""),
        ] {
            let (found, target) = parse_engine(text).expect(text);
            assert_eq!((&*found, &*target.base_path), (url, path), "{text}");
        }
        for text in
            ["http://a:8000/v1/chat/completions", "http://a/openai/v1/embeddings/", "http://a/v1/models"]
        {
            assert!(parse_engine(text).is_err(), "{text}");
        }
    }
}
