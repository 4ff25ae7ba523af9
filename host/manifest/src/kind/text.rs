//! Texts with a grammar: durations and amounts of memory.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest DNS name, bytes.
const DNS_NAME_BYTES_MAX: usize = 253;
/// Longest label of one, bytes.
const DNS_LABEL_BYTES_MAX: usize = 63;
/// Pattern of a duration, as in the Gateway API.
pub const DURATION_PATTERN: &str = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Pattern of an amount of memory.
pub const MEMORY_PATTERN: &str = r"^[0-9]{1,12}(Ki|Mi|Gi|k|M|G)?$";
/// Pattern of a SHA-256 in lower-case hex.
pub const SHA256_PATTERN: &str = r"^[0-9a-f]{64}$";
/// Pattern of the Go dialect's cache time to live.
pub const TTL_PATTERN: &str = r"^[0-9]+[smhd]$";
/// Pattern of a whole number written as text.
pub const DIGITS_PATTERN: &str = r"^[0-9]+$";

/// A span of time such as `500ms`, `30s` or `1m30s`. Units: `h`, `m`, `s`, `ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub String);

impl Span {
    /// The duration. `None`: the text has no such form.
    pub fn duration(&self) -> Option<Duration> {
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) {
                return None;
            }
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
            let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
            rest = &rest[unit.len()..];
            total += Duration::from_millis(number * factor);
            if rest.is_empty() {
                return Some(total);
            }
        }
        None
    }
}

/// An amount of memory in bytes, plain or with a unit: `Ki`, `Mi`, `Gi` (1,024) or `k`, `M`, `G` (1,000).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(pub String);

impl Memory {
    /// The bytes. `None`: the text has no such form.
    pub fn bytes(&self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match &self.0[digits..] {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return None,
        };
        if !(1..=12).contains(&digits) {
            return None;
        }
        self.0[..digits].parse::<u64>().ok()?.checked_mul(factor)
    }
}

/// Whether `text` is a lower-case DNS name as Kubernetes has it (RFC 1123): labels of letters, digits and inner hyphens, at
/// most 63 characters each and 253 in all, with dots between.
pub(crate) fn is_dns_name(text: &str) -> bool {
    text.len() <= DNS_NAME_BYTES_MAX && text.split('.').all(is_dns_label)
}

/// Whether `text` is one label of such a name.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=DNS_LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a host of a URL, other than an IPv6 address, can be one: an IPv4 address or a DNS name, in any case. Underscores
/// are taken, as names of container networks have them.
pub(crate) fn is_host(text: &str) -> bool {
    let host = text.strip_suffix('.').unwrap_or(text);
    let plain = host.to_ascii_lowercase().replace('_', "x");
    let last = plain.rsplit('.').next().unwrap_or_default();
    // What ends in a number is read as an address by every resolver, be it one or not.
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if is_number { host.parse::<Ipv4Addr>().is_ok() } else { is_dns_name(&plain) }
}

/// Whether `text` matches one of our patterns. `None`: no such pattern is known.
pub(crate) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    Some(match pattern {
        DURATION_PATTERN => Span(text.into()).duration().is_some(),
        MEMORY_PATTERN => Memory(text.into()).bytes().is_some(),
        SHA256_PATTERN => text.len() == 64 && text.bytes().all(is_hex),
        TTL_PATTERN => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && matches!(&text[digits..], "s" | "m" | "h" | "d")
        }
        DIGITS_PATTERN => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
        super::number::RATIO_PATTERN => super::number::is_ratio_text(text),
        _ => return None,
    })
}

/// What a text of one of our patterns is, for messages.
pub(crate) fn noun(pattern: &str) -> &'static str {
    match pattern {
        DURATION_PATTERN => "a duration",
        MEMORY_PATTERN => "an amount of memory",
        SHA256_PATTERN => "a SHA-256",
        TTL_PATTERN => "a time to live",
        DIGITS_PATTERN => "a whole number",
        super::number::RATIO_PATTERN => "a ratio",
        _ => "of the form that belongs here",
    }
}

/// What to write instead of `text`, which is not of this pattern: the same in the right form where that can be told.
pub(crate) fn cure(pattern: &str, text: &str) -> String {
    let example = match pattern {
        DURATION_PATTERN => "write a duration such as 30s or 1m30s",
        MEMORY_PATTERN => "write an amount of memory such as 16Mi",
        SHA256_PATTERN => "write the 64 lower-case hex digits of a SHA-256",
        TTL_PATTERN => "write a number and one of s, m, h, d, such as 1h",
        DIGITS_PATTERN => "write digits, such as 128",
        super::number::RATIO_PATTERN => "write a ratio from 0 to 1, such as 0.8",
        _ => "",
    };
    let fitting = |candidate: Option<String>| candidate.filter(|it| matches(pattern, it) == Some(true));
    let same = match pattern {
        DURATION_PATTERN => fitting(duration(text)),
        TTL_PATTERN => fitting(Some(format!("{text}s"))),
        _ => None,
    };
    same.map_or_else(|| example.to_owned(), |same| format!("write {same}, a number with its unit"))
}

/// A duration as people write it elsewhere: a bare number is seconds, units may be words, fractions and days are turned into
/// smaller units.
fn duration(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit_ms = match text[end..].trim() {
        "ms" | "msec" | "millis" | "milliseconds" => 1.0,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1_000.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
        "h" | "hr" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return None,
    };
    let ms = (number * unit_ms).round();
    if !(0.0..=1e12).contains(&ms) {
        return None;
    }
    let ms = ms as u64;
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    units
        .into_iter()
        .find(|(_, unit)| ms.is_multiple_of(*unit))
        .map(|(name, unit)| format!("{}{name}", ms / unit))
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": DURATION_PATTERN})
    }
}

impl JsonSchema for Memory {
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": MEMORY_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_units_and_nothing_else_is_one() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("99999h99999m99999s99999ms", Some(99_999 * 3_661_001)),
            ("", None),
            ("30", None),
            ("1.5s", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("1µs", None),
        ] {
            assert_eq!(Span(text.into()).duration(), expected.map(Duration::from_millis), "{text}");
        }
    }

    /// N11: one message leads to what is right, not to the next message.
    #[test]
    fn what_is_to_be_written_instead_is_right_at_once() {
        for (text, expected) in [
            ("2", "2s"),
            ("300", "5m"),
            ("1.5s", "1500ms"),
            ("1.5", "1500ms"),
            ("5 minutes", "5m"),
            ("30 Seconds", "30s"),
            ("1d", "24h"),
            ("90 min", "90m"),
        ] {
            assert_eq!(
                cure(DURATION_PATTERN, text),
                format!("write {expected}, a number with its unit"),
                "{text}"
            );
        }
        assert_eq!(cure(TTL_PATTERN, "60"), "write 60s, a number with its unit");
        for text in ["", "soon", "-1", "5 moons", "1e99"] {
            assert_eq!(cure(DURATION_PATTERN, text), "write a duration such as 30s or 1m30s", "{text}");
        }
    }

    #[test]
    fn memory_has_binary_and_decimal_units() {
        for (text, expected) in [
            ("16Mi", Some(16 << 20)),
            ("1k", Some(1_000)),
            ("65536", Some(65_536)),
            ("999999999999Gi", None),
            ("16MB", None),
            ("", None),
            ("Mi", None),
            ("1.5Gi", None),
        ] {
            assert_eq!(Memory(text.into()).bytes(), expected, "{text}");
        }
    }
}
