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

/// Names under which clients and engines send credentials. Lower case, without underscores.
const CREDENTIALS: [&str; 20] = [
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-amz-security-token",
    "x-amzn-oidc-data",
    "x-api-key",
    "x-api-token",
    "x-apikey",
    "x-auth-token",
    "x-authorization",
    "x-client-secret",
    "x-csrf-token",
    "x-goog-api-key",
    "x-vault-token",
];

/// Whether a header of this name holds a credential, as a rule: no policy sees it, and none sets it. What a service calls its
/// own (`spec.auth.header`) comes on top, see [`crate::assemble`].
pub fn is_credential(header: &HeaderName) -> bool {
    CREDENTIALS.contains(&header.as_str().replace('_', "-").as_str())
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

    /// C8: credentials under all their usual names, and nothing that policies read otherwise.
    #[test]
    fn credentials_are_known_by_their_names() {
        for name in ["authorization", "x-api-key", "api-key", "X-Api_Key", "cookie", "proxy-authorization"] {
            assert!(is_credential(&name.parse().expect(name)), "{name}");
        }
        for name in ["x-tier", "x-session-id", "user-agent", "x-request-key", "anthropic-version"] {
            assert!(!is_credential(&name.parse().expect(name)), "{name}");
        }
    }
}
