//! A ratio that may be written as a number or as text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Pattern of a ratio written as text.
pub const RATIO_PATTERN: &str = r"^(0(\.[0-9]+)?|1(\.0+)?)$";

/// A ratio from 0 to 1, as a number (`0.8`) or as text (`"0.8"`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumberOrString {
    /// Written as a number.
    Number(f64),
    /// Written as text.
    Text(String),
}

impl NumberOrString {
    /// The ratio. `None`: it is no decimal from 0 to 1.
    pub fn ratio(&self) -> Option<f64> {
        let value = match self {
            Self::Number(number) => *number,
            Self::Text(text) if is_ratio_text(text) => text.parse().ok()?,
            Self::Text(_) => return None,
        };
        (0.0..=1.0).contains(&value).then_some(value)
    }
}

/// Whether `text` matches [`RATIO_PATTERN`].
pub(crate) fn is_ratio_text(text: &str) -> bool {
    match text.split_once('.') {
        None => text == "0" || text == "1",
        Some(("0", digits)) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        Some(("1", digits)) => !digits.is_empty() && digits.bytes().all(|byte| byte == b'0'),
        Some(_) => false,
    }
}

impl JsonSchema for NumberOrString {
    fn schema_name() -> Cow<'static, str> {
        "NumberOrString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A structural schema cannot say "number or string" with `oneOf`. Without a type, each bound bites on values of its
    /// own kind only: the impossible ones forbid arrays, objects and booleans.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A ratio from 0 to 1, as a number (0.8) or as text (\"0.8\").",
            "x-kubernetes-preserve-unknown-fields": true,
            "minimum": 0.0,
            "maximum": 1.0,
            "pattern": RATIO_PATTERN,
            "minItems": 1,
            "maxItems": 0,
            "minProperties": 1,
            "maxProperties": 0,
            "not": {"enum": [true, false]},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_decimals_from_0_to_1_in_both_forms() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("1", Some(1.0)),
            ("0.85", Some(0.85)),
            ("1.00", Some(1.0)),
            ("1.01", None),
            ("0.", None),
            (".5", None),
            ("-0.1", None),
            ("80%", None),
            ("", None),
        ] {
            assert_eq!(NumberOrString::Text(text.into()).ratio(), expected, "{text}");
        }
        assert_eq!(NumberOrString::Number(0.8).ratio(), Some(0.8));
        assert_eq!(NumberOrString::Number(1.5).ratio(), None);
        assert_eq!(NumberOrString::Number(f64::NAN).ratio(), None);
    }
}
