//! Finds the members that hold token counts in a JSON text that comes in pieces, without keeping the text.

use super::tally::{Member, Tally};

/// Most bytes of a member's value. Longer ones are not read.
const VALUE_BYTES_MAX: usize = 2 << 10;
/// Longest key of interest, bytes.
const KEY_BYTES_MAX: usize = 24;
/// Bytes looked at together while skipping what is nested: as many as fill vector registers without help.
const STRIDE: usize = 32;

/// Where a JSON text stands.
///
/// Looked at are the members of the outermost object, and of `response` and `message` directly below it: the envelopes of
/// the responses and messages APIs. What else is nested, such as a `usage` inside `choices`, is skipped. Malformed texts are
/// read as far as they make sense: these are the engine's bytes, and only counted.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Objects and arrays that are open.
    depth: u32,
    /// The outermost value is an object.
    is_object: bool,
    /// The object at depth 2 is an envelope.
    in_envelope: bool,
    in_string: bool,
    /// The last byte was a backslash in a string.
    is_escaped: bool,
    /// The next string is a key.
    at_key: bool,
    /// The string is a key.
    in_key: bool,
    key: [u8; KEY_BYTES_MAX],
    /// Bytes of the key; more than fit where it is too long.
    key_len: usize,
    /// The member whose value comes, if it is of interest.
    member: Option<Member>,
    is_capturing: bool,
    captured: Vec<u8>,
    has_found: bool,
}

impl Reader {
    /// The next piece of the text.
    pub(super) fn feed(&mut self, mut text: &[u8], tally: &mut Tally) {
        while !text.is_empty() {
            let was_deep = !self.is_level();
            let taken = if self.in_string {
                self.string(text)
            } else if was_deep {
                self.nested(text)
            } else {
                self.level(text[0], tally);
                1
            };
            let (passed, rest) = text.split_at(taken);
            text = rest;
            if self.is_capturing {
                self.capture(passed);
                if was_deep && self.is_level() {
                    self.release(tally);
                }
            }
        }
    }

    /// Something of interest was there.
    pub(super) fn has_found(&self) -> bool {
        self.has_found
    }

    /// The members of the object that is open here are looked at.
    fn is_level(&self) -> bool {
        self.depth == 0 || self.depth == 1 && self.is_object || self.depth == 2 && self.in_envelope
    }

    /// A byte outside of strings, in an object that is looked at or before the outermost one.
    fn level(&mut self, byte: u8, tally: &mut Tally) {
        match byte {
            b'"' => {
                self.in_string = true;
                self.in_key = self.at_key;
                self.key_len = 0;
            }
            b':' => {
                self.at_key = false;
                self.member = self.key.get(..self.key_len).and_then(Member::of);
            }
            b',' => {
                self.release(tally);
                self.at_key = true;
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => {
                self.release(tally);
                self.in_envelope &= self.depth > 2;
                self.depth = self.depth.saturating_sub(1);
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if self.member.is_some_and(Member::is_number) && !self.is_capturing => self.begin(),
            _ => {}
        }
    }

    fn open(&mut self, byte: u8) {
        let is_object = byte == b'{';
        if self.depth == 0 {
            self.is_object = is_object;
        }
        match self.member.take() {
            Some(Member::Envelope) if is_object && self.depth == 1 => self.in_envelope = true,
            Some(Member::Envelope) | None => {}
            Some(member) if is_object && !member.is_number() => {
                self.member = Some(member);
                self.begin();
            }
            Some(_) => {}
        }
        self.at_key = is_object;
        self.depth += 1;
    }

    fn begin(&mut self) {
        self.captured.clear();
        self.is_capturing = true;
    }

    fn capture(&mut self, passed: &[u8]) {
        if self.captured.len() + passed.len() > VALUE_BYTES_MAX {
            self.is_capturing = false;
            self.member = None;
            return;
        }
        self.captured.extend_from_slice(passed);
    }

    /// The end of a value that was captured.
    fn release(&mut self, tally: &mut Tally) {
        let member = self.member.take();
        if let (Some(member), true) = (member, std::mem::take(&mut self.is_capturing)) {
            self.has_found |= tally.take(member, &self.captured);
        }
    }

    /// Bytes of a string, up to its end or its next backslash.
    fn string(&mut self, text: &[u8]) -> usize {
        if std::mem::take(&mut self.is_escaped) {
            // A key with an escape in it is none of interest.
            self.key_len = KEY_BYTES_MAX + 1;
            return 1;
        }
        let end = memchr::memchr2(b'"', b'\\', text);
        let inside = &text[..end.unwrap_or(text.len())];
        if self.in_key {
            if let Some(place) = self.key.get_mut(self.key_len..self.key_len + inside.len()) {
                place.copy_from_slice(inside);
            }
            self.key_len += inside.len();
        }
        let Some(end) = end else { return text.len() };
        if text[end] == b'"' {
            self.in_string = false;
            self.in_key = false;
        } else {
            self.is_escaped = true;
        }
        end + 1
    }

    /// Bytes of a nested value, up to its next string, its next bracket or the end of the piece.
    fn nested(&mut self, text: &[u8]) -> usize {
        let is_plain = |byte: &u8| *byte != b'"' && byte | 0x20 != b'{' && byte | 0x20 != b'}';
        let strides = text.chunks_exact(STRIDE);
        let plain = strides.take_while(|stride| stride.iter().fold(true, |all, byte| all & is_plain(byte)));
        let skipped = plain.count() * STRIDE;
        let Some(at) = text[skipped..].iter().position(|byte| !is_plain(byte)) else { return text.len() };
        match text[skipped + at] {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            _ => self.depth = self.depth.saturating_sub(1),
        }
        skipped + at + 1
    }
}
