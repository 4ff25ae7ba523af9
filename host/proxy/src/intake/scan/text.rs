//! JSON strings to text and back, and values as Python's `str()` writes them.

use std::borrow::Cow;

/// The text of a validated JSON string, quotes included in `raw`. Lone surrogates become U+FFFD.
///
/// `None` only for what is no valid JSON string.
pub(crate) fn decode(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = str::from_utf8(raw.get(1..raw.len().checked_sub(1)?)?).ok()?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let kind = *rest.as_bytes().get(at + 1)?;
        rest = &rest[at + 2..];
        out.push(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (decoded, used) = unicode(rest)?;
                rest = &rest[used..];
                decoded
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// The character of `XXXX`, or of `XXXX\uYYYY` where that is a surrogate pair, and the bytes it took.
fn unicode(rest: &str) -> Option<(char, usize)> {
    let unit = |text: &str| u16::from_str_radix(text, 16).ok();
    let first = unit(rest.get(..4)?)?;
    if let Some(second) = rest.get(4..6).filter(|&mark| mark == "\\u").and_then(|_| unit(rest.get(6..10)?))
        && let Some(Ok(pair)) = char::decode_utf16([first, second]).next()
        && pair as u32 > 0xFFFF
    {
        return Some((pair, 10));
    }
    Some((char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER), 4))
}

/// Appends `text` as a JSON string.
pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// A validated JSON value as Python's `str()` writes it once parsed; lists and objects as they stand.
///
/// `None` for `null` and for no value at all.
pub(crate) fn python_str(raw: &[u8]) -> Option<Cow<'_, str>> {
    match raw.first()? {
        b'"' => decode(raw),
        b't' => Some(Cow::Borrowed("True")),
        b'f' => Some(Cow::Borrowed("False")),
        b'n' => None,
        b'[' | b'{' => str::from_utf8(raw).ok().map(Cow::Borrowed),
        _ => Some(python_number(str::from_utf8(raw).ok()?)),
    }
}

fn python_number(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return Cow::Borrowed(if text == "-0" { "0" } else { text });
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_infinite() => Cow::Borrowed(if number > 0.0 { "inf" } else { "-inf" }),
        Ok(number) => Cow::Owned(python_float(number)),
        Err(_) => Cow::Borrowed(text),
    }
}

/// The shortest text that reads back the same, with an exponent below 1e-4 and from 1e16 on.
fn python_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let exponent: i32 =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if number == 0.0 || (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let mantissa = scientific.split_once('e').map_or("", |(mantissa, _)| mantissa);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
