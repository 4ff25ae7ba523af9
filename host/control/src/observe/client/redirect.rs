//! Where a redirect leads, if that is another path of the same host.

use http::{HeaderValue, Uri};

use super::Question;

/// Longest target of a redirect that is followed, or shown, bytes.
pub(super) const SHOWN_BYTES_MAX: usize = 256;

/// A target as text, for people; a longer one is cut, and then not followed.
pub(super) fn shown(location: &HeaderValue) -> Box<str> {
    let text = String::from_utf8_lossy(location.as_bytes());
    text.chars().filter(|char| char.is_ascii_graphic()).take(SHOWN_BYTES_MAX + 1).collect::<String>().into()
}

/// The whole path (with a query, if there is one) that a redirect leads to. `None`: it leads to another host, port or
/// scheme, or is not usable.
pub(super) fn path(location: &str, question: &Question) -> Option<String> {
    if location.is_empty() || location.len() > SHOWN_BYTES_MAX {
        return None;
    }
    let target = &question.target;
    let absolute = if location.starts_with("//") {
        format!("{}:{location}", if target.tls { "https" } else { "http" })
    } else {
        location.to_owned()
    };
    if absolute.contains("://") {
        let uri: Uri = absolute.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let is_same = is_tls == target.tls
            && host.eq_ignore_ascii_case(&target.host)
            && port == question.port.unwrap_or(target.port);
        return is_same.then(|| uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string));
    }
    let path = location.split('#').next().unwrap_or_default();
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    // Relative to the folder of the path that was asked for.
    let base = if question.port.is_some() { "" } else { &*target.base_path };
    let asked = format!("{base}{}", question.path);
    let asked = asked.split('?').next().unwrap_or_default();
    let folder = asked.rfind('/').map_or("/", |slash| &asked[..=slash]);
    let path = path.strip_prefix("./").unwrap_or(path);
    (!path.contains("..")).then(|| format!("{folder}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::client::{Access, Question};
    use crate::observe::fake_engine::spec;

    #[test]
    fn a_redirect_is_followed_to_another_path_of_the_same_host_only() {
        let mut target = spec("http://engine:8000").target;
        target.base_path = "/base".into();
        let question = Question {
            target,
            address: None,
            auth: None,
            access: Access::default(),
            port: None,
            path: "/metrics".into(),
            accept: "text/plain",
            bytes_max: 1,
        };
        for (location, expected) in [
            ("/metrics/", Some("/metrics/")),
            ("http://engine:8000/metrics/", Some("/metrics/")),
            ("//ENGINE:8000/m?a=b", Some("/m?a=b")),
            ("http://engine:8000", Some("/")),
            ("metrics/", Some("/base/metrics/")),
            ("./x", Some("/base/x")),
            ("/a#b", Some("/a")),
            ("../x", None),
            ("", None),
            ("https://engine:8000/metrics/", None),
            ("http://engine/metrics/", None),
            ("http://other:8000/metrics/", None),
            ("http://engine.evil:8000/", None),
            ("ftp://engine:8000/", None),
        ] {
            assert_eq!(path(location, &question).as_deref(), expected, "{location}");
        }
        let elsewhere = Question { port: Some(9), ..question };
        assert_eq!(path("http://engine:9/m", &elsewhere).as_deref(), Some("/m"));
        assert_eq!(path("http://engine:8000/m", &elsewhere), None, "another port");
        assert_eq!(path("m", &elsewhere).as_deref(), Some("/m"), "a port of its own has no base path");
        assert_eq!(path(&format!("/{}", "x".repeat(SHOWN_BYTES_MAX)), &elsewhere), None, "too long");
    }
}
