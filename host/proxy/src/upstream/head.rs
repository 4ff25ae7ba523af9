//! The head of a request to an engine, written from the client's.

use std::net::IpAddr;

use domain::endpoint::EndpointSpec;
use http::header::{CONNECTION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What of a client's request goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarded<'a> {
    /// Method.
    pub(crate) method: &'a Method,
    /// Path and query, without the prefixes that are ours; starts with `/`.
    pub(crate) path_and_query: &'a str,
    /// The client's header lines.
    pub(crate) headers: &'a HeaderMap,
    /// Names that `Connection` lists, see [`listed_in_connection`].
    pub(crate) listed: &'a [HeaderName],
    /// The request's id.
    pub(crate) request_id: &'a str,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// Header lines that policies add.
    pub(crate) added: &'a [(HeaderName, HeaderValue)],
    /// Bytes of the body; `None`: there is none, and no length is written.
    pub(crate) body_bytes: Option<usize>,
}

/// Header names that `Connection` lists: they concern the client's connection, and end here.
pub(crate) fn listed_in_connection(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    let mut listed = SmallVec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token) {
                listed.push(name);
            }
        }
    }
    listed
}

/// Appends the head to `out`.
pub(crate) fn write_head(out: &mut Vec<u8>, endpoint: &EndpointSpec, request: &Forwarded<'_>) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(endpoint.target.base_path.as_bytes());
    out.extend_from_slice(request.path_and_query.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, b"host", endpoint.target.authority.as_bytes());
    let auth = endpoint.auth.as_deref();
    let replaces = auth.filter(|auth| !(auth.forward_client && request.headers.contains_key(&auth.header)));
    // A policy never speaks under the name of the engine's credential.
    let added = || request.added.iter().filter(|(name, _)| auth.is_none_or(|auth| auth.header != *name));
    for (name, value) in request.headers {
        let is_replaced =
            replaces.is_some_and(|auth| auth.header == name) || added().any(|(added, _)| added == name);
        if !(is_ours(name) || is_replaced || request.listed.contains(name)) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    cookies(out, request.headers);
    if let Some(auth) = replaces {
        line(out, auth.header.as_str().as_bytes(), auth.value.as_bytes());
    }
    for (name, value) in added() {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    line(out, b"x-request-id", request.request_id.as_bytes());
    forwarded_for(out, request);
    if let Some(length) = request.body_bytes {
        line(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Lines that concern the client's connection only (its credentials for a proxy, which is what we are, among them), or that
/// are written anew.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "expect"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "cookie"
            | "x-request-id"
            | "x-forwarded-for"
    )
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// HTTP/2 may spread cookies over several lines; HTTP/1.1 has one (RFC 9113, 8.2.3).
fn cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (index, cookie) in headers.get_all(COOKIE).iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"cookie: " } else { b"; " });
        out.extend_from_slice(cookie.as_bytes());
    }
    if headers.contains_key(COOKIE) {
        out.extend_from_slice(b"\r\n");
    }
}

/// The client's address behind whatever the client said of those before it.
fn forwarded_for(out: &mut Vec<u8>, request: &Forwarded<'_>) {
    use std::io::Write;
    out.extend_from_slice(b"x-forwarded-for: ");
    for earlier in request.headers.get_all(X_FORWARDED_FOR) {
        out.extend_from_slice(earlier.as_bytes());
        out.extend_from_slice(b", ");
    }
    // An IPv4 client of a dual-stack socket is an IPv4 client. Writing to a vector cannot fail.
    let _ = write!(out, "{}", request.client.to_canonical());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::endpoint::EngineAuth;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::fixture;

    fn written(
        headers: &[(&'static str, &'static str)],
        auth: Option<(&'static str, bool)>,
        added: &[(&str, &str)],
    ) -> String {
        let mut endpoint = (*fixture::endpoint("http://10.0.0.1:8000", "")).clone();
        endpoint.target.base_path = "/base".into();
        endpoint.auth = auth.map(|(value, forward_client)| {
            Arc::new(EngineAuth {
                header: AUTHORIZATION,
                value: HeaderValue::from_static(value),
                forward_client,
            })
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let added: Vec<(HeaderName, HeaderValue)> =
            added.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut out = Vec::new();
        let request = Forwarded {
            method: &Method::POST,
            path_and_query: "/v1/completions?a=b",
            headers: &map,
            listed: &[],
            request_id: "id",
            client: "::ffff:10.9.9.9".parse().unwrap(),
            added: &added,
            body_bytes: Some(7),
        };
        write_head(&mut out, &endpoint, &request);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_written_whole() {
        assert_eq!(
            written(
                &[("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "gateway")],
                None,
                &[]
            ),
            "POST /base/v1/completions?a=b HTTP/1.1\r\nhost: 10.0.0.1:8000\r\naccept: */*\r\ncookie: a=1; b=2\r\n\
             x-request-id: id\r\nx-forwarded-for: 10.9.9.9\r\ncontent-length: 7\r\n\r\n"
        );
    }

    #[test]
    fn the_engines_credentials_are_ours_or_the_clients_as_configured() {
        let lines = |head: String| -> Vec<String> {
            head.lines().filter(|line| line.starts_with("authorization")).map(ToOwned::to_owned).collect()
        };
        let clients = [("authorization", "Bearer client")];
        assert_eq!(lines(written(&clients, None, &[])), ["authorization: Bearer client"]);
        assert_eq!(
            lines(written(&clients, Some(("Bearer ours", false)), &[])),
            ["authorization: Bearer ours"]
        );
        assert_eq!(
            lines(written(&clients, Some(("Bearer ours", true)), &[])),
            ["authorization: Bearer client"]
        );
        assert_eq!(lines(written(&[], Some(("Bearer ours", true)), &[])), ["authorization: Bearer ours"]);
    }

    #[test]
    fn a_policys_header_replaces_the_clients() {
        let head = written(&[("x-tier", "client")], None, &[("x-tier", "policy")]);
        assert!(head.contains("x-tier: policy\r\n") && !head.contains("client"), "{head}");
    }
}
