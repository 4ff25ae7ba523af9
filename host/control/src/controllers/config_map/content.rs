//! What stands in the ConfigMap: valid for the production stack's unmodified router, which refuses a file with any key
//! that it does not know.

use manifest::kind::StaticRouteSpec;
use serde::Serialize;

/// Keys of the ConfigMap, both with the same content: the one that the controller of the production stack wrote, and the
/// one that its documentation names.
pub(super) const KEYS: [&str; 2] = ["dynamic_config.json", "static_config.json"];
/// The header that sessions are known by, as in this gateway.
const SESSION_KEY: &str = "x-session-id";

/// The file, in the order in which the production stack's controller writes it.
#[derive(Serialize)]
struct RouterConfig<'a> {
    service_discovery: &'static str,
    routing_logic: &'static str,
    static_backends: &'a str,
    static_models: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_key: Option<&'static str>,
}

/// The content, and what of the route that router cannot be told.
pub(super) fn content(spec: &StaticRouteSpec) -> (String, String) {
    let (routing_logic, remark) = routing_logic(&spec.routing_logic);
    let config = RouterConfig {
        service_discovery: "static",
        routing_logic,
        static_backends: &trimmed(&spec.static_backends, without_v1),
        static_models: &trimmed(&spec.static_models, |model| model),
        session_key: (routing_logic == "session").then_some(SESSION_KEY),
    };
    // Texts only, which always have a JSON form.
    (serde_json::to_string(&config).unwrap_or_default(), remark)
}

/// The same list without blanks around its entries, which that router would take as part of them.
fn trimmed(list: &str, part: fn(&str) -> &str) -> String {
    list.split(',').map(|entry| part(entry.trim())).collect::<Vec<_>>().join(",")
}

/// A base URL as that router wants it, which puts `/v1` behind it.
fn without_v1(url: &str) -> &str {
    url.trim_end_matches('/').strip_suffix("/v1").unwrap_or(url)
}

/// That router's word for a logic. What it does not know becomes its default.
fn routing_logic(written: &str) -> (&'static str, String) {
    let folded: String =
        written.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
    let known = match folded.as_str() {
        "roundrobin" => Some("roundrobin"),
        "session" | "sessionaffinity" => Some("session"),
        "prefixaware" | "prefixhash" => Some("prefixaware"),
        _ => None,
    };
    match known {
        Some(known) => (known, String::new()),
        None => {
            let remark = format!(
                "the production stack's router has no routing logic {written}; its file says roundrobin"
            );
            ("roundrobin", remark)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(backends: &str, logic: &str) -> StaticRouteSpec {
        StaticRouteSpec {
            static_backends: backends.into(),
            static_models: "m, n".into(),
            routing_logic: logic.into(),
            ..StaticRouteSpec::default()
        }
    }

    #[test]
    fn the_file_is_compact_in_order_and_without_blanks() {
        let (text, remark) = content(&spec("http://a:8000, http://b:8000", "roundrobin"));
        let expected = r#"{"service_discovery":"static","routing_logic":"roundrobin","static_backends":"http://a:8000,http://b:8000","static_models":"m,n"}"#;
        assert_eq!((text.as_str(), remark.as_str()), (expected, ""));
    }

    #[test]
    fn a_logic_is_told_in_the_routers_own_word_or_becomes_its_default() {
        for (written, expected, is_remarked) in [
            ("roundrobin", "\"roundrobin\"", false),
            ("PrefixHash", "\"prefixaware\"", false),
            ("session-affinity", "\"session\"", false),
            ("least_loaded", "\"roundrobin\"", true),
            ("my-policy", "\"roundrobin\"", true),
        ] {
            let (text, remark) = content(&spec("http://a", written));
            assert!(text.contains(&format!("\"routing_logic\":{expected}")), "{text}");
            assert_eq!(!remark.is_empty(), is_remarked, "{written}");
            assert_eq!(text.contains("session_key"), expected == "\"session\"", "{text}");
        }
    }
}
