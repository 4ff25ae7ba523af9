//! What a registry wants before it answers: `WWW-Authenticate`.

/// A challenge that we can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token, to be had from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads one header's value; a token is preferred where both are offered in headers of their own.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }

    /// Where to get the token for pulling from `repository`; `None` for a challenge that wants none.
    pub(super) fn token_url(&self, repository: &str) -> Option<String> {
        let Self::Bearer { realm, service, scope } = self else { return None };
        let default = format!("repository:{repository}:pull");
        let scope = scope.as_deref().unwrap_or(&default);
        let mut url =
            format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, encode(scope));
        if let Some(service) = service {
            url += &format!("&service={}", encode(service));
        }
        Some(url)
    }
}

/// `key="value"` or `key=value` with commas between; quotes may hold commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, behind)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_owned();
        let behind = behind.trim_start();
        let (value, left) = match behind.strip_prefix('"') {
            None => {
                let (value, left) = behind.split_once(',').unwrap_or((behind, ""));
                (value.trim().to_owned(), left)
            }
            Some(quoted) => {
                let (mut value, mut escaped, mut end) = (String::new(), false, quoted.len());
                for (at, char) in quoted.char_indices() {
                    match char {
                        '"' if !escaped => {
                            end = at + 1;
                            break;
                        }
                        '\\' if !escaped => escaped = true,
                        char => {
                            value.push(char);
                            escaped = false;
                        }
                    }
                }
                (value, &quoted[end.min(quoted.len())..])
            }
        };
        found.push((key, value));
        rest = left;
    }
    found
}

/// Percent-encodes what has a meaning in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_lead_to_where_tokens_are() {
        let url = |header: &str| Challenge::parse(header).and_then(|found| found.token_url("team/p"));
        let table = [
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:team/p:pull""#,
                Some("https://auth.example/token?scope=repository:team/p:pull&service=registry.example"),
            ),
            (r#"bearer realm="https://a/t?x=1""#, Some("https://a/t?x=1&scope=repository:team/p:pull")),
            (
                r#"Bearer service="a \"b\", c" , realm=https://a/t"#,
                Some("https://a/t?scope=repository:team/p:pull&service=a%20%22b%22%2C%20c"),
            ),
            (r#"Bearer service="s""#, None),
            ("Bearer", None),
            (r#"Basic realm="x""#, None),
            ("Negotiate", None),
            (r#"Bearer realm="unfinished"#, Some("unfinished?scope=repository:team/p:pull")),
        ];
        for (header, expected) in table {
            assert_eq!(url(header).as_deref(), expected, "{header}");
        }
        assert_eq!(Challenge::parse(r#"BASIC realm="x""#), Some(Challenge::Basic));
    }
}
