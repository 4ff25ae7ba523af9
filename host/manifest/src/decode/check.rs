//! Checks a document against its schema, as an API server does: drops what is not named, fills in defaults, refuses what
//! is forbidden. Rules written in CEL are not evaluated here: [`crate::lower`] says the same in its own words.

use std::collections::HashSet;

use domain::finding::Severity;
use serde_json::{Map, Value};

use super::schema;
use super::tree::{Content, Node, push_index, push_key};
use crate::kind::text;
use crate::object::Kind;
use crate::spelling;

/// A document after the check.
pub(super) struct Checked {
    /// What is left, with defaults.
    pub(super) value: Value,
    /// What was wrong.
    pub(super) problems: Vec<Problem>,
}

/// One thing that is wrong with a document.
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Checks a whole object.
pub(super) fn object(node: &Node, kind: Kind) -> Checked {
    let mut walk = Walk { path: String::new(), problems: Vec::new() };
    let value = walk.value(node, schema::of(kind));
    Checked { value, problems: walk.problems }
}

struct Walk {
    path: String,
    problems: Vec<Problem>,
}

impl Walk {
    fn value(&mut self, node: &Node, schema: &Value) -> Value {
        if !self.allows(node, schema) {
            return Value::Null;
        }
        match &node.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => {
                self.number(node, number.as_f64().unwrap_or_default(), schema);
                Value::Number(number.clone())
            }
            Content::Text(text) => {
                self.text(node, text, schema);
                Value::String(if schema["format"] == "byte" { one_line(text) } else { text.clone() })
            }
            Content::List(items) => self.list(node, items, schema),
            Content::Map(entries) => self.map(node, entries, schema),
        }
    }

    /// Whether a value of this kind may stand here at all.
    fn allows(&mut self, node: &Node, schema: &Value) -> bool {
        let (found, fits) = match &node.content {
            Content::Null => return true,
            Content::Bool(_) => ("true or false", allows_bool(schema)),
            Content::Number(number) => {
                let whole =
                    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0);
                ("a number", allows_number(schema) && (whole || schema["type"] != "integer"))
            }
            Content::Text(_) => ("a text", allows_text(schema)),
            Content::List(_) => ("a list", allows_list(schema)),
            Content::Map(_) => ("a mapping", allows_map(schema)),
        };
        if fits {
            return true;
        }
        let expected = expected(schema);
        let pattern = schema["pattern"].as_str();
        let remedy = match (&node.content, schema["type"].as_str()) {
            // Quotes alone would only lead to the next finding.
            (Content::Number(number), Some("string"))
                if pattern.is_some_and(|known| text::matches(known, &number.to_string()) == Some(false)) =>
            {
                text::cure(pattern.unwrap_or_default(), &number.to_string())
            }
            (Content::Bool(_) | Content::Number(_), Some("string")) => "put the value in quotes".into(),
            (Content::Text(_), Some("boolean")) => "write true or false, without quotes".into(),
            (Content::Text(_), Some("integer" | "number")) => {
                format!("write a number{}, without quotes", range(schema))
            }
            _ => format!("write {expected}"),
        };
        self.error(node, "WrongType", format!("{found} where {expected} belongs"), remedy);
        false
    }

    fn map(&mut self, node: &Node, entries: &[(String, Node)], schema: &Value) -> Value {
        let properties = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        // Where a mapping is one of several forms (no type), its fields are those of that form; see `kind::reference`.
        let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true && schema["type"].is_string();
        let open = keeps || properties.is_none();
        let mut map = Map::new();
        let mut meant = Vec::new();
        for (key, value) in entries {
            let length = self.path.len();
            push_key(&mut self.path, key);
            let known = properties.and_then(|properties| properties.get(key)).or(others);
            match known {
                Some(_) if matches!(value.content, Content::Null) => {}
                Some(schema) => {
                    map.insert(key.clone(), self.value(value, schema));
                }
                None if open => {
                    map.insert(key.clone(), plain(value));
                }
                None => meant.extend(self.unknown_field(value, key, (entries, schema))),
            }
            self.path.truncate(length);
        }
        self.required(node, (&map, &meant), schema);
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| map.len() as u64 > *most) {
            self.error(node, "TooMany", format!("more than {most} entries"), format!("keep at most {most}"));
        }
        for (key, schema) in properties.into_iter().flatten() {
            if let Some(default) = schema.get("default").filter(|_| !map.contains_key(key)) {
                map.insert(key.clone(), default.clone());
            }
        }
        Value::Object(map)
    }

    /// Says of a field that the schema does not have what may have been meant by it. Returns that: its absence is then not
    /// said once more. A field that has to be there is an error, any other is dropped.
    fn unknown_field<'s>(
        &mut self,
        node: &Node,
        key: &str,
        (entries, schema): (&[(String, Node)], &'s Value),
    ) -> Option<&'s str> {
        let known = schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
        let is_given = |name: &&str| entries.iter().any(|(given, _)| given == name);
        let near = spelling::nearest(key, known.filter(|name| !is_given(name)));
        let remedy = match near {
            Some(name) if name.eq_ignore_ascii_case(key) => format!("spell it {name}"),
            Some(name) => format!("did you mean {name}?"),
            None => "remove it, or correct its name".into(),
        };
        let is_needed = near.is_some_and(|name| is_needed(name, schema));
        let severity = if is_needed { Severity::Error } else { Severity::Warning };
        let ignored = if is_needed { "" } else { "; it is ignored" };
        self.problem(severity, node, "UnknownField", format!("there is no field {key}{ignored}"), remedy);
        near
    }

    fn required(&mut self, node: &Node, (map, meant): (&Map<String, Value>, &[&str]), schema: &Value) {
        let is_there = |name: &str| map.contains_key(name) || meant.contains(&name);
        let missing = |list: &Value| -> Option<String> {
            let names = list.as_array()?.iter().filter_map(Value::as_str);
            names.into_iter().find(|name| !is_there(name)).map(str::to_owned)
        };
        if let Some(name) = missing(&schema["required"]) {
            let length = self.path.len();
            push_key(&mut self.path, &name);
            self.error(node, "RequiredField", format!("the field {name} is missing"), format!("add {name}"));
            self.path.truncate(length);
        }
        if let Some(options) = schema["anyOf"].as_array()
            && options.iter().all(|option| missing(&option["required"]).is_some())
        {
            let names: Vec<&str> =
                options.iter().filter_map(|option| option["required"][0].as_str()).collect();
            let names = names.join(", ");
            self.error(node, "RequiredField", format!("none of {names} is given"), "add one of them".into());
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Value) -> Value {
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| items.len() as u64 > *most) {
            self.error(node, "TooMany", format!("more than {most} entries"), format!("keep at most {most}"));
        }
        let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is_set = schema["x-kubernetes-list-type"] == "set";
        let mut seen = HashSet::new();
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let length = self.path.len();
            push_index(&mut self.path, index);
            let value = match schema.get("items") {
                Some(items) => self.value(item, items),
                None => plain(item),
            };
            let identity = match (is_set, keys.is_empty()) {
                (true, _) => Some(value.to_string()),
                (_, false) => {
                    Some(keys.iter().map(|key| value[*key].to_string()).collect::<Vec<_>>().join("/"))
                }
                _ => None,
            };
            if identity.is_some_and(|identity| !seen.insert(identity)) {
                self.error(
                    item,
                    "Duplicate",
                    "the entry is there twice".into(),
                    "remove one of the two".into(),
                );
            }
            list.push(value);
            self.path.truncate(length);
        }
        Value::Array(list)
    }

    fn number(&mut self, node: &Node, number: f64, schema: &Value) {
        let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let remedy = format!("write a number{}", range(schema));
            self.error(node, "OutOfRange", format!("{number} is out of range"), remedy);
        }
        let allowed = schema["enum"].as_array();
        if let Some(allowed) =
            allowed.filter(|allowed| allowed.iter().all(|one| one.as_f64() != Some(number)))
        {
            let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.error(
                node,
                "NotAllowed",
                format!("{number} is not allowed"),
                format!("use one of {}", names.join(", ")),
            );
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value) {
        if let Some(allowed) =
            schema["enum"].as_array().filter(|allowed| allowed.iter().all(|one| one != text))
        {
            let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            let near = spelling::nearest(text, names.iter().copied());
            let near = near.map_or_else(String::new, |name| format!("did you mean {name}? "));
            let remedy = format!("{near}use one of {}", names.join(", "));
            self.error(node, "NotAllowed", format!("{text:?} is not allowed"), remedy);
        }
        if schema["format"] == "byte" && !is_base64(&one_line(text)) {
            let message = "the value is not base64".into();
            let remedy =
                "encode it, or put it as text into data of a ConfigMap or stringData of a Secret".into();
            self.error(node, "WrongForm", message, remedy);
        }
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.error(node, "TooShort", "the text is too short".into(), "write a longer one".into());
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            let remedy = format!("write at most {most} characters");
            self.error(node, "TooLong", format!("the text has {length} characters"), remedy);
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && text::matches(pattern, text) == Some(false)
        {
            let message = format!("{text:?} is not {}", text::noun(pattern));
            self.error(node, "WrongForm", message, text::cure(pattern, text));
        }
    }

    fn error(&mut self, node: &Node, reason: &'static str, message: String, remedy: String) {
        self.problem(Severity::Error, node, reason, message, remedy);
    }

    fn problem(
        &mut self,
        severity: Severity,
        node: &Node,
        reason: &'static str,
        message: String,
        remedy: String,
    ) {
        let (line, column, path) = (node.line, node.column, self.path.clone());
        self.problems.push(Problem { severity, path, line, column, reason, message, remedy });
    }
}

/// Whether a field has to be there, alone or as one of several.
fn is_needed(name: &str, schema: &Value) -> bool {
    let lists = |list: &Value| list.as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let is_choice = |rule: &Value| {
        let (message, rule) =
            (rule["message"].as_str().unwrap_or_default(), rule["rule"].as_str().unwrap_or_default());
        (message.starts_with("exactly one") || message.starts_with("at least one"))
            && rule.contains(&format!("has(self.{name})"))
    };
    lists(&schema["required"])
        || schema["anyOf"].as_array().is_some_and(|options| options.iter().any(|one| lists(&one["required"])))
        || rules.into_iter().any(is_choice)
}

/// The range of a number, to be put behind the word; empty where there is none.
fn range(schema: &Value) -> String {
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(" of at least {least}"),
        (None, Some(most)) => format!(" of at most {most}"),
        (None, None) => String::new(),
    }
}

/// Base64 as the API server reads it: in lines, and with spare bits set in its last digit. Returns the strict form.
fn one_line(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let padding = line.len() - line.trim_end_matches('=').len();
    let last = line.len() - padding;
    let spare_bits = match padding {
        1 => 0b11,
        2 => 0b1111,
        _ => return line,
    };
    let value =
        last.checked_sub(1).and_then(|at| DIGITS.iter().position(|digit| *digit == line.as_bytes()[at]));
    if let Some(value) = value {
        line.replace_range(last - 1..last, &char::from(DIGITS[value & !spare_bits]).to_string());
    }
    line
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len().is_multiple_of(4) && text.len() - digits.len() <= 2 && digits.bytes().all(is_digit)
}

/// A value as it is, unchecked.
fn plain(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Bool(value) => Value::Bool(*value),
        Content::Number(number) => Value::Number(number.clone()),
        Content::Text(text) => Value::String(text.clone()),
        Content::List(items) => items.iter().map(plain).collect(),
        Content::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), plain(node))).collect(),
    }
}

// A schema without a type allows every kind of value whose bounds are possible; see `kind::reference`.

fn allows_bool(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some(name) => name == "boolean",
        None => !schema["not"]["enum"].is_array() && !is_int_or_string(schema),
    }
}

fn allows_number(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some(name) => matches!(name, "integer" | "number"),
        None => schema["minimum"].as_f64() <= schema["maximum"].as_f64() || schema["maximum"].is_null(),
    }
}

fn allows_text(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some(name) => name == "string",
        None => schema["maxLength"].as_u64() != Some(0),
    }
}

fn allows_list(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some(name) => name == "array",
        None => schema["maxItems"].as_u64() != Some(0) && !is_int_or_string(schema),
    }
}

fn allows_map(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some(name) => name == "object",
        None => schema["maxProperties"].as_u64() != Some(0) && !is_int_or_string(schema),
    }
}

fn is_int_or_string(schema: &Value) -> bool {
    schema["x-kubernetes-int-or-string"] == true
}

fn expected(schema: &Value) -> String {
    let kinds = [
        (allows_text(schema), "a text"),
        (allows_number(schema) && schema["type"] != "integer", "a number"),
        (schema["type"] == "integer", "a whole number"),
        (allows_bool(schema), "true or false"),
        (allows_list(schema), "a list"),
        (allows_map(schema), "a mapping"),
    ];
    let names: Vec<&str> = kinds.iter().filter(|(allowed, _)| *allowed).map(|(_, name)| *name).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests;
