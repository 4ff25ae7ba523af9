//! Which header lines of a request to an engine an object may ask for.

use http::HeaderName;

/// Names that only the gateway writes: framing, what concerns one connection (RFC 9110, 7.6.1), what describes the body, the
/// client's cookies, and who asked. Lower case, without underscores.
const RESERVED: [&str; 23] = [
    "accept-encoding",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "range",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-http-method-override",
    "x-real-ip",
    "x-request-id",
];
/// Beginnings of such names.
const RESERVED_PREFIXES: [&str; 4] = ["content-", "proxy-", "x-forwarded-", "x-wicketgate-"];

/// Whether a credential may be sent to an engine under this name: not under one that frames the request or that the gateway
/// writes itself. A second framing would let the owner of one service plant answers for every other client of its engine.
///
/// Many servers read `_` as `-`, so both spellings count.
pub fn may_carry_credential(header: &HeaderName) -> bool {
    let name = header.as_str().replace('_', "-");
    !RESERVED.contains(&name.as_str()) && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_under_names_that_frame_nothing() {
        for (name, expected) in [
            ("authorization", true),
            ("x-api-key", true),
            ("api-key", true),
            ("ocp-apim-subscription-key", true),
            ("x-goog-api-key", true),
            ("transfer-encoding", false),
            ("Transfer_Encoding", false),
            ("content-length", false),
            ("content-type", false),
            ("Host", false),
            ("connection", false),
            ("te", false),
            ("trailer", false),
            ("upgrade", false),
            ("expect", false),
            ("proxy-authorization", false),
            ("cookie", false),
            ("x-request-id", false),
            ("X-Forwarded-Host", false),
            ("x_forwarded_for", false),
            ("x-wicketgate-policy", false),
        ] {
            let header: HeaderName = name.parse().expect(name);
            assert_eq!(may_carry_credential(&header), expected, "{name}");
        }
    }
}
