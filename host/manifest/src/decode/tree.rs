//! A YAML document as a tree that knows where each value stands.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::Spanned;

/// Most values that aliases may unfold into: a small file must not become a large tree.
const REPLAYED_EVENTS_MAX: usize = 50_000;

/// A value and where it stands; lines and columns count from 1.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The value.
    pub(super) content: Content,
    /// Its line in the file.
    pub(super) line: u32,
    /// Its column.
    pub(super) column: u32,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in order; keys are distinct.
    Map(Vec<(String, Node)>),
}

/// Why a document is no YAML.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) message: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Reads one document that begins at `first_line` of its file.
pub(super) fn parse(text: &str, first_line: u32) -> Result<Node, Broken> {
    // YAML 1.2: `yes`, `no`, `on`, `off`, `y` and `n` are texts. Under 1.1 a model called `n` would be `false`.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(mut node) => {
            node.shift(first_line - 1);
            Ok(node)
        }
        Err(error) => {
            let location = error.location();
            let line = location.map_or(0, |location| location.line() as u32);
            let column = location.map_or(0, |location| location.column() as u32);
            let message = error.to_string();
            // The parser's own line counts from the document; the finding names the file's.
            let message = message.lines().next().unwrap_or_default();
            let message = message.split(": line ").next().unwrap_or_default();
            let message = message.split(" at line ").next().unwrap_or_default();
            let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or_default().trim();
            let message = format!("the document is not readable as YAML: {message}");
            Err(Broken { message, line: line.max(1) + first_line - 1, column })
        }
    }
}

impl Node {
    /// The value under `key` of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A value that stands nowhere: it came from an API server.
    fn nowhere(content: Content) -> Self {
        Self { content, line: 0, column: 0 }
    }

    /// Positions of everything below, by path.
    pub(super) fn positions(&self) -> HashMap<Box<str>, (u32, u32)> {
        let mut positions = HashMap::new();
        self.collect(&mut String::new(), &mut positions);
        positions
    }

    fn collect(&self, path: &mut String, positions: &mut HashMap<Box<str>, (u32, u32)>) {
        if !path.is_empty() {
            positions.insert(path.as_str().into(), (self.line, self.column));
        }
        let length = path.len();
        match &self.content {
            Content::Map(entries) => {
                for (key, node) in entries {
                    push_key(path, key);
                    node.collect(path, positions);
                    path.truncate(length);
                }
            }
            Content::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    push_index(path, index);
                    node.collect(path, positions);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn shift(&mut self, lines: u32) {
        self.line += lines;
        match &mut self.content {
            Content::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.shift(lines)),
            Content::List(items) => items.iter_mut().for_each(|node| node.shift(lines)),
            _ => {}
        }
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        Self::nowhere(match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(*value),
            Value::Number(number) => Content::Number(number.clone()),
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                Content::Map(map.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        })
    }
}

/// Appends a key to a path.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Appends an index to a path.
pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        let (line, column) = (spanned.referenced.line() as u32, spanned.referenced.column() as u32);
        Ok(Self { content: spanned.value, line, column })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value).map(Content::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.len() < 64 && entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("the key {key} is there twice")));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines_in_the_file() {
        let node = parse("a:\n  - b: 1\n    c: [x, \"2\"]\nd: true\n", 10).expect("readable");
        let positions = node.positions();
        assert_eq!(positions["a[0].b"].0, 11);
        assert_eq!(positions["a[0].c[1]"], (12, 12));
        assert_eq!(positions["d"].0, 13);
        let c = node.get("a").and_then(|a| match &a.content {
            Content::List(items) => items[0].get("c"),
            _ => None,
        });
        assert!(
            matches!(&c.expect("there").content, Content::List(items) if matches!(&items[1].content, Content::Text(t) if t == "2"))
        );
    }

    #[test]
    fn broken_documents_say_where() {
        for (text, line) in
            [("a: [1, 2\nb: 3\n", 6), ("a: 1\na: 2\n", 6), ("a: 1\n\tb: 2\n", 6), ("a: .nan\n", 5)]
        {
            let broken = parse(text, 5).expect_err(text);
            assert!((5..=line + 1).contains(&broken.line), "{text}: {broken:?}");
            assert!(!broken.message.is_empty());
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (of, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "g"), ("g", "h")] {
            let list = vec![format!("*{of}"); 10].join(",");
            text.push_str(&format!("{to}: &{to} [{list}]\n"));
        }
        parse(&text, 1).expect_err("too large when unfolded");
    }
}
