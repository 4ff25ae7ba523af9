//! The head of a request to an engine, written from the client's.

use std::net::IpAddr;

use domain::endpoint::EndpointSpec;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

/// The header that carries a request's id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Header lines of an engine's answer that concern its connection only, or that are ours to write.
pub(crate) const REMOVED_FROM_ANSWERS: [HeaderName; 9] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, SERVER, X_REQUEST_ID];

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
    for (name, value) in request.headers {
        let is_replaced = replaces.is_some_and(|auth| auth.header == name)
            || request.added.iter().any(|(added, _)| added == name);
        if !(is_ours(name) || is_replaced || request.listed.contains(name)) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(auth) = replaces {
        line(out, auth.header.as_str().as_bytes(), auth.value.as_bytes());
    }
    for (name, value) in request.added {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    line(out, X_REQUEST_ID.as_str().as_bytes(), request.request_id.as_bytes());
    forwarded_for(out, request);
    if let Some(length) = request.body_bytes {
        line(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Lines that concern the client's connection only, or that are written anew.
fn is_ours(name: &HeaderName) -> bool {
    // The one that nearly every request has and that stays, first.
    if *name == AUTHORIZATION {
        return false;
    }
    [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, EXPECT].contains(name)
        || [KEEP_ALIVE, PROXY_CONNECTION, X_REQUEST_ID, X_FORWARDED_FOR].contains(name)
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
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
