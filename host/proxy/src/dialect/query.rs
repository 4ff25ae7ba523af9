//! The few query parameters that the gateway reads, and the query without one of them.

use std::borrow::Cow;

/// The value of the first parameter `name`, percent-decoded (`+` is a space). `None`: absent, or not UTF-8.
pub fn get<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    pairs(query?).find(|(key, _)| decode(key).as_deref() == Some(name)).and_then(|(_, value)| decode(value))
}

/// The query without any parameter `name`, everything else byte for byte; `None` when nothing is left.
pub fn without(query: Option<&str>, name: &str) -> Option<String> {
    let mut kept = String::new();
    for pair in query?.split('&').filter(|pair| !pair.is_empty()) {
        let (key, _) = split(pair);
        if decode(key).as_deref() != Some(name) {
            if !kept.is_empty() {
                kept.push('&');
            }
            kept.push_str(pair);
        }
    }
    (!kept.is_empty()).then_some(kept)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(split)
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decoded(text);
    }
    percent_decoded(&text.replace('+', " ")).map(|text| Cow::Owned(text.into_owned()))
}

/// A piece of a path or query with its percent codes decoded. `None`: a code is broken, or the text is not UTF-8.
pub fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let high = char::from(digits[0]).to_digit(16)?;
                let low = char::from(digits[1]).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_and_decoded() {
        let table = [
            ("model=a", Some("a")),
            ("x=1&model=a%2Fb+c", Some("a/b c")),
            ("mod%65l=a", Some("a")),
            ("model=a&model=b", Some("a")),
            ("model", Some("")),
            ("models=a", None),
            ("model=%zz", None),
            ("model=%ff", None),
            ("model=%f", None),
            ("", None),
        ];
        for (query, expected) in table {
            assert_eq!(get(Some(query), "model").as_deref(), expected, "{query}");
        }
        assert_eq!(get(None, "model"), None);
    }

    #[test]
    fn taking_one_parameter_out_keeps_the_others_as_they_were() {
        let table = [
            ("id=1", None),
            ("id=1&level=2&tags=a%20b", Some("level=2&tags=a%20b")),
            ("level=2&id=1&id=3", Some("level=2")),
            ("ident=1", Some("ident=1")),
        ];
        for (query, expected) in table {
            assert_eq!(without(Some(query), "id").as_deref(), expected, "{query}");
        }
    }
}
