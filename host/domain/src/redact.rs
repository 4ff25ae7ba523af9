//! Texts that may hold a credential, made fit for logs and findings.

use std::borrow::Cow;

/// What stands in the place of what is not shown.
const HIDDEN: char = '…';

/// A URL or image reference, whole or broken, without user, password and query: `https://…@host/path?…`. Texts without any of
/// them stay as they are. Hides rather too much where a text is not well formed.
pub fn url(text: &str) -> Cow<'_, str> {
    let (shown, query) = match text.find('?') {
        Some(at) => (&text[..at], "?…"),
        None => (text, ""),
    };
    // The digest of an image follows the same character.
    let is_user = |at: &usize| !shown[at + 1..].starts_with("sha256:");
    let user = shown.match_indices('@').map(|(at, _)| at).rfind(is_user);
    let Some(end) = user else {
        return if query.is_empty() { Cow::Borrowed(text) } else { format!("{shown}{query}").into() };
    };
    let start = shown[..end].find("://").map_or(0, |at| at + 3);
    format!("{}{HIDDEN}{}{query}", &shown[..start], &shown[end..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_and_queries_are_hidden_and_nothing_else() {
        for (text, shown) in [
            ("http://10.0.0.1:8000/v1", "http://10.0.0.1:8000/v1"),
            ("https://user:s3cret@api.example/v1", "https://…@api.example/v1"),
            ("https://user:p@ss/w:rd@api.example", "https://…@api.example"),
            ("user:s3cret@api.example", "…@api.example"),
            ("http:/user:s3cret@api.example", "…@api.example"),
            ("https://api.example/x?sig=s3cret&a=@b", "https://api.example/x?…"),
            ("https://token@api.example?k=s3cret", "https://…@api.example?…"),
            ("ghcr.io/team/p@sha256:00", "ghcr.io/team/p@sha256:00"),
            ("user:s3cret@ghcr.io/team/p@sha256:00", "…@ghcr.io/team/p@sha256:00"),
            ("", ""),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }
}
