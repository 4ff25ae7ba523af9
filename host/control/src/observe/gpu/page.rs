//! A DCGM exporter's page, as it streams in.

use std::borrow::Cow;

use super::rows::{Family, Gather, Gpu};
use crate::observe::lines::Lines;
use crate::observe::page::{number, sample};

/// Labels of one line that are read; further ones are left out.
const LABELS_MAX: usize = 64;

/// Collects the GPUs of one page, fed in pieces of any size. Never fails: what is no exposition text is skipped line by
/// line.
#[derive(Debug)]
pub(super) struct PageScanner {
    lines: Lines,
    gather: Gather,
}

impl PageScanner {
    /// For the page of a machine that goes by these names.
    pub(super) fn new(machine: Vec<Box<str>>) -> Self {
        Self { lines: Lines::default(), gather: Gather::new(machine) }
    }

    /// Reads the next piece of the page.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let Self { lines, gather } = self;
        lines.feed(bytes, |line| take(gather, line));
    }

    /// The page has ended: what it said.
    pub(super) fn finish(mut self) -> Vec<Gpu> {
        let Self { lines, gather } = &mut self;
        lines.finish(|line| take(gather, line));
        self.gather.finish()
    }
}

fn take(gather: &mut Gather, line: &[u8]) {
    let line = line.trim_ascii();
    let Some((name, value)) = sample(line) else { return };
    let Some(family) = Family::from_name(name) else { return };
    // Not a number, infinite and negative are unknown.
    let Some(value) = number(value) else { return };
    let labels = line[name.len()..].strip_prefix(b"{").map(labels).unwrap_or_default();
    gather.add(family, &labels, value);
}

/// The labels behind an opening brace, up to the first thing that is none.
pub(in crate::observe) fn labels(text: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut labels = Vec::new();
    let mut rest = text;
    while labels.len() < LABELS_MAX {
        rest = rest.trim_ascii_start();
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { break };
        let Ok(key) = std::str::from_utf8(rest[..equals].trim_ascii()) else { break };
        let Some((value, behind)) = quoted(rest[equals + 1..].trim_ascii_start()) else { break };
        labels.push((Cow::Borrowed(key), value));
        rest = behind.trim_ascii_start();
        match rest.split_first() {
            Some((b',', behind)) => rest = behind,
            _ => break,
        }
    }
    labels
}

/// A text in quotes, and what stands behind it.
fn quoted(text: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    let value = String::from_utf8_lossy(&text[..end]);
    let value = if value.contains('\\') { unescape(&value).into() } else { value };
    Some((value, &text[end + 1..]))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
