//! Reading a policy's JSON settings, so that every complaint points at the value it is about.

use core::fmt::Display;
use core::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::ConfigError;

/// One JSON object of settings. Each key is taken once; what is left at the end is refused.
#[derive(Debug)]
pub struct Settings {
    /// JSON Pointer to this object; empty for the whole document.
    path: String,
    values: Map<String, Value>,
}

impl Settings {
    /// Reads a document. Nothing at all, or `null`, is an empty object.
    ///
    /// # Errors
    /// Not JSON, or not an object.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let value = serde_json::from_str(text).map_err(|error| fault(String::new(), error))?;
        Self::object(String::new(), value)
    }

    /// A number within `range`; `default` when absent.
    ///
    /// # Errors
    /// Not a number, or out of range.
    pub fn number(
        &mut self,
        key: &str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(self.refuse(
                key,
                format_args!(
                    "must be a number from {} to {}, not {value}",
                    Value::from(*range.start()),
                    Value::from(*range.end())
                ),
            )),
        }
    }

    /// A whole number within `range`; `default` when absent.
    ///
    /// # Errors
    /// Not a whole number, or out of range.
    pub fn integer(
        &mut self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.as_u64() {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(self.refuse(
                key,
                format_args!("must be a whole number from {} to {}, not {value}", range.start(), range.end()),
            )),
        }
    }

    /// `true` or `false`; `default` when absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.refuse(key, format_args!("must be true or false, not {value}")))
    }

    /// A text; `None` when absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.refuse(key, format_args!("must be a text, not {value}"))),
        }
    }

    /// An object of settings of its own, empty when absent. What `read` leaves of it is refused.
    ///
    /// # Errors
    /// Not an object, a key left over, or what `read` finds.
    pub fn section<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let mut section = self.nested(key)?;
        let read = read(&mut section)?;
        section.finish().map(|()| read)
    }

    /// The pool's settings, which the gateway adds under `pool`; keys this policy does not know are none of its business.
    ///
    /// # Errors
    /// Not an object, or what `read` finds.
    pub fn pool<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        read(&mut self.nested("pool")?)
    }

    /// Any value, as JSON; `None` when absent. For what the other methods cannot say.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.take(key)
    }

    /// A complaint about the value of `key`.
    pub fn refuse(&self, key: &str, message: impl Display) -> ConfigError {
        // RFC 6901: `~` and `/` inside a key.
        fault(format!("{}/{}", self.path, key.replace('~', "~0").replace('/', "~1")), message)
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// A key that no method above was asked for, other than `pool`.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.values.keys().find(|key| key.as_str() != "pool") {
            None => Ok(()),
            Some(unknown) => Err(self.refuse(unknown, "this policy has no such setting")),
        }
    }

    fn nested(&mut self, key: &str) -> Result<Self, ConfigError> {
        let value = self.take(key).unwrap_or(Value::Null);
        let path = self.refuse(key, "").path;
        Self::object(path, value)
    }

    fn object(path: String, value: Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(values) => Ok(Self { path, values }),
            Value::Null => Ok(Self { path, values: Map::new() }),
            other => Err(fault(path, format_args!("must be an object, not {other}"))),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key)
    }
}

fn fault(path: String, message: impl Display) -> ConfigError {
    ConfigError { path, message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(f64, u64, f64), ConfigError> {
        let mut settings = Settings::parse(text)?;
        let threshold = settings.pool(|pool| pool.number("thresholdHitRate", 0.8, 0.0..=1.0))?;
        let most = settings.section("limits", |limits| limits.integer("most", 3, 1..=9))?;
        let beta = settings.number("beta", 1.0, 0.0..=10.0)?;
        settings.finish().map(|()| (beta, most, threshold))
    }

    #[test]
    fn absent_settings_are_their_defaults() {
        for text in ["", "{}", "null", r#"{"limits":{},"pool":null}"#] {
            assert_eq!(read(text), Ok((1.0, 3, 0.8)), "{text}");
        }
        let all = r#"{"beta":2,"limits":{"most":9},"pool":{"thresholdHitRate":0.5,"new":1}}"#;
        assert_eq!(read(all), Ok((2.0, 9, 0.5)), "unknown pool keys are ignored");
    }

    #[test]
    fn every_complaint_points_at_its_value() {
        let table = [
            ("[]", ""),
            ("{", ""),
            (r#"{"beta":"2"}"#, "/beta"),
            (r#"{"beta":11}"#, "/beta"),
            (r#"{"limits":{"most":0}}"#, "/limits/most"),
            (r#"{"limits":{"least":1}}"#, "/limits/least"),
            (r#"{"limits":7}"#, "/limits"),
            (r#"{"pool":{"thresholdHitRate":-1}}"#, "/pool/thresholdHitRate"),
            (r#"{"a/b~c":1}"#, "/a~1b~0c"),
        ];
        for (text, path) in table {
            let error = read(text).expect_err(text);
            assert_eq!(error.path, path, "{text}: {}", error.message);
            assert!(!error.message.is_empty());
        }
    }
}
