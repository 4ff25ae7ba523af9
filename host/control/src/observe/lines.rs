//! Cuts a page that streams in into lines, in bounded memory.

/// Longest line that is read, bytes; a longer one is skipped as a whole.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Lines of one page, fed in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Start of a line whose end has not come yet; at most [`LINE_BYTES_MAX`].
    partial: Vec<u8>,
    /// The current line is too long: skip to its end.
    skipping: bool,
}

impl Lines {
    /// Takes the next piece and hands on the lines that end in it, without their ends.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.end_of_line(&bytes[..end], &mut on_line);
            bytes = &bytes[end + 1..];
        }
        if self.skipping || self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            self.skipping = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// The page has ended, perhaps without an end of line.
    pub(super) fn finish(&mut self, mut on_line: impl FnMut(&[u8])) {
        self.end_of_line(&[], &mut on_line);
    }

    /// Memory that is held, bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.partial.capacity()
    }

    fn end_of_line(&mut self, rest: &[u8], on_line: &mut impl FnMut(&[u8])) {
        if self.skipping || self.partial.len() + rest.len() > LINE_BYTES_MAX {
            self.skipping = false;
            self.partial.clear();
        } else if self.partial.is_empty() {
            on_line(rest);
        } else {
            self.partial.extend_from_slice(rest);
            on_line(&self.partial);
            self.partial.clear();
        }
    }
}
