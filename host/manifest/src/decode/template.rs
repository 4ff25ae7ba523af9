//! Recognises templates of Helm that were not rendered.

use super::tree::{Content, Node};
use crate::object::Kind;

/// Fields whose content is somebody else's, and may be a template of another tool.
const FOREIGN: [&str; 6] = ["annotations", "config", "data", "parameters", "stringData", "binaryData"];

/// Where a document that is not YAML has an action of a template, outside comments.
pub(super) fn in_text(text: &str, first_line: u32) -> Option<(u32, u32)> {
    text.lines().enumerate().find_map(|(index, line)| {
        let code = if line.trim_start().starts_with('#') { "" } else { line };
        let column = action(code)?;
        Some((first_line + index as u32, column as u32 + 1))
    })
}

/// Where an object has a text that is, or holds, an action: in its own fields if it is one of ours, else in its name only.
pub(super) fn in_object(node: &Node, kind: Kind) -> Option<(u32, u32)> {
    if kind.is_ours() { in_node(node) } else { in_node(node.get("metadata")?.get("name")?) }
}

fn in_node(node: &Node) -> Option<(u32, u32)> {
    match &node.content {
        Content::Text(text) => action(text).map(|_| (node.line, node.column)),
        Content::List(items) => items.iter().find_map(in_node),
        Content::Map(entries) => {
            entries.iter().filter(|(key, _)| !FOREIGN.contains(&key.as_str())).find_map(|(key, node)| {
                let own = action(key).map(|_| (node.line, node.column));
                own.or_else(|| in_node(node))
            })
        }
        Content::Null | Content::Bool(_) | Content::Number(_) => None,
    }
}

/// Byte where `{{ … }}` begins, if the text holds one.
fn action(text: &str) -> Option<usize> {
    let start = text.find("{{")?;
    let inner = &text[start + 2..];
    let inner = &inner[..inner.find("}}")?];
    let word = inner.trim_start_matches('-').trim_start();
    word.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '.' | '$' | '"' | '(' | '/'))
        .then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_told_from_flow_mappings() {
        for (text, expected) in [
            ("name: {{ .Values.name }}", Some(6)),
            ("{{- if .Values.on }}", Some(0)),
            ("{{include \"x\" .}}", Some(0)),
            ("a: {b: {c: d}}", None),
            ("{{", None),
            ("{{}}", None),
        ] {
            assert_eq!(action(text), expected, "{text}");
        }
        assert_eq!(in_text("a: 1\n# {{ .x }}\n  b: {{ .y }}\n", 10), Some((12, 6)));
    }
}
