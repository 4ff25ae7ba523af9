//! Findings as people read them: with the line that each is about and a caret below it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use control::{Checked, Manifests};
use domain::finding::{Finding, Severity};

/// Largest file that lines are shown of, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Longest line that is shown, characters; a longer one is not.
const LINE_CHARS_MAX: usize = 200;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// With colours.
    pub(super) in_color: bool,
    /// With the line of the file.
    pub(super) with_lines: bool,
}

/// All findings and the totals. Control characters of manifests, which a terminal would obey, are replaced.
pub(super) fn text(checked: &Checked, manifests: &[Manifests], style: Style) -> String {
    let mut lines = Lines { manifests, read: HashMap::new() };
    let mut text = String::new();
    for finding in &checked.findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", head(finding, style));
        if let Some(excerpt) = lines.excerpt(finding).filter(|_| style.with_lines) {
            text.push_str(&paint(&excerpt, finding.severity, style));
        }
    }
    let whole = checked.to_string();
    text + whole.lines().last().unwrap_or_default() + "\n"
}

fn head(finding: &Finding, style: Style) -> String {
    let plain = harmless(&finding.to_string());
    let word = format!("{}: ", finding.severity.as_str());
    match plain.find(&word).filter(|_| style.in_color) {
        Some(at) => {
            let (place, rest) = plain.split_at(at);
            let rest = &rest[word.len()..];
            format!("\x1b[1m{place}\x1b[0m{}{rest}", paint(&word, finding.severity, style))
        }
        None => plain,
    }
}

fn paint(text: &str, severity: Severity, style: Style) -> String {
    let code = match severity {
        Severity::Error => "31",
        Severity::Warning => "33",
        Severity::Info => "36",
    };
    if style.in_color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Lines of files, each file read once.
struct Lines<'a> {
    manifests: &'a [Manifests],
    read: HashMap<Arc<str>, Vec<String>>,
}

impl Lines<'_> {
    /// The line that a finding is about, and a caret below its column. `None`: it is not known, or is that of a Secret.
    fn excerpt(&mut self, finding: &Finding) -> Option<String> {
        let origin = &finding.origin;
        if origin.line == 0 || finding.object.starts_with("Secret ") {
            return None;
        }
        if !self.read.contains_key(&origin.file) {
            let lines = self.lines(&origin.file);
            self.read.insert(Arc::clone(&origin.file), lines);
        }
        let line = self.read.get(&origin.file)?.get(origin.line as usize - 1)?;
        if line.chars().count() > LINE_CHARS_MAX || line.trim().is_empty() {
            return None;
        }
        let number = origin.line.to_string();
        let mut text = format!("{number} | {line}\n");
        if origin.column > 0 {
            let _ = writeln!(
                text,
                "{:width$} | {:indent$}^",
                "",
                "",
                width = number.len(),
                indent = origin.column as usize - 1
            );
        }
        Some(text)
    }

    fn lines(&self, file: &Arc<str>) -> Vec<String> {
        let text = self.manifests.iter().find_map(|manifests| match manifests {
            Manifests::Text(name, bytes) if name == file => Some(bytes.clone()),
            _ => None,
        });
        let bytes = text.or_else(|| files::read(Path::new(&**file), FILE_BYTES_MAX).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(harmless).collect()
    }
}

#[cfg(test)]
mod tests {
    use domain::finding::Origin;

    use super::*;

    fn checked(object: &str, line: u32, column: u32) -> Checked {
        let finding = Finding {
            severity: Severity::Error,
            object: object.into(),
            origin: Origin { file: "<stdin>".into(), line, column },
            field: "spec.x".into(),
            reason: "Wrong",
            message: "bad \u{1b}[2J".into(),
            remedy: "mend".into(),
        };
        Checked { findings: vec![finding], gateways: 1, routes: 2, endpoints: 3 }
    }

    /// D1: the line and a caret stand below a finding, but never that of a Secret, and nothing that a terminal obeys.
    #[test]
    fn a_finding_is_shown_with_its_line_and_a_caret() {
        let manifests = [Manifests::Text("<stdin>".into(), b"a: 1\nb:\t\x1b[2J\n".to_vec())];
        let with_lines = Style { in_color: false, with_lines: true };
        let shown = |object, line, column, style| text(&checked(object, line, column), &manifests, style);
        let first = shown("A b/c", 1, 4, with_lines);
        assert!(first.contains("[Wrong] -> mend\n1 | a: 1\n  |    ^\n"), "{first}");
        let second = shown("A b/c", 2, 1, with_lines);
        assert!(second.contains("2 | b:  [2J\n  | ^\n"), "{second}");
        for (object, line) in [("Secret b/c", 1), ("A b/c", 0), ("A b/c", 9)] {
            assert!(!shown(object, line, 4, with_lines).contains('|'), "{object} {line}");
        }
        for style in [with_lines, Style { in_color: false, with_lines: false }] {
            assert!(!shown("A b/c", 2, 1, style).contains('\x1b'));
        }
        let colored = shown("A b/c", 1, 4, Style { in_color: true, with_lines: true });
        assert!(colored.contains("\x1b[31merror: \x1b[0mA b/c"), "{colored:?}");
        assert_eq!(colored.matches('\x1b').count() % 2, 0);
    }
}
