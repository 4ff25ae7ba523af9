//! Splits a YAML stream into documents, so that one that is broken costs only itself.

/// One document of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its text, without markers.
    pub(super) text: &'a str,
    /// Line of the stream where the text begins, counted from 1.
    pub(super) line: u32,
}

/// Splits at `---` and `...` lines. A marker stands at the very start of a line, where no manifest has anything else: a
/// block text is indented. Documents of nothing but blanks and comments are left out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = index as u32 + 1;
        if is_marker(line, "---") || is_marker(line, "...") {
            documents.push(Document { text: &text[start..offset], line: start_line });
            // What follows the marker on its line (a comment, or a flow mapping) belongs to the next document.
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], line: start_line });
    documents.retain(|document| document.text.lines().any(has_content));
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_lines_and_empty_ones_are_left_out() {
        let text = "# head\n---\na: 1\n---\n\n# nothing\n---\nb: |\n  ---\n  x\n...\n--- # more\nc: 2\n---";
        let found: Vec<(u32, &str)> = split(text).iter().map(|d| (d.line, d.text.trim())).collect();
        assert_eq!(found, [(2, "a: 1"), (7, "b: |\n  ---\n  x"), (12, "# more\nc: 2")]);
        assert_eq!(split("").len() + split("\n# only\n").len(), 0);
        assert_eq!(split("---\r\na: 1\r\n---\r\nb: 2\r\n").len(), 2);
        assert_eq!(split("--- {a: 1}\n")[0].text.trim(), "{a: 1}");
    }
}
