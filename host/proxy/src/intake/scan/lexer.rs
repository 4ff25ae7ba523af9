//! A JSON validator that walks over bytes and reports the members of one object.

use std::ops::Range;

use super::{NESTING_MAX, text};

/// Not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

type Valid = Result<(), Malformed>;

/// A position in a text that should be JSON.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

/// Bytes looked at together while skipping a string: as many as fill vector registers without help.
const STRIDE: usize = 32;

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of every byte of `word` that needs attention in a string: quote, backslash, control character.
///
/// A borrow may also mark bytes *above* the lowest marked one; only the lowest counts.
const fn special(word: u64) -> u64 {
    let quote = word ^ repeat(b'"');
    let backslash = word ^ repeat(b'\\');
    let found = quote.wrapping_sub(repeat(1)) & !quote | backslash.wrapping_sub(repeat(1)) & !backslash;
    let control = word.wrapping_sub(repeat(0x20)) & !word;
    (found | control) & repeat(0x80)
}

impl<'a> Lexer<'a> {
    /// At the start of `text`.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The text behind what was read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// The byte here; `None` at the end.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips white space.
    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Valid {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Walks over the object that starts here and reports each member: the decoded key, and where the value stands.
    pub(crate) fn members(&mut self, mut each: impl FnMut(&[u8], Range<usize>)) -> Valid {
        self.try_members(|key, value| {
            each(key, value);
            Ok(())
        })
    }

    /// The same; ends early, with its error, when `each` fails.
    pub(crate) fn try_members(&mut self, mut each: impl FnMut(&[u8], Range<usize>) -> Valid) -> Valid {
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let start = self.at;
            let escaped = self.string()?;
            let key = &self.text[start..self.at];
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.at;
            self.nested_value()?;
            if escaped {
                each(text::decode(key).ok_or(Malformed)?.as_bytes(), value..self.at)?;
            } else {
                each(&key[1..key.len() - 1], value..self.at)?;
            }
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                _ => return Err(Malformed),
            }
        }
    }

    /// Walks over one value, whatever it is.
    pub(crate) fn value(&mut self) -> Valid {
        self.walk(NESTING_MAX)
    }

    /// Walks over one value inside one object.
    fn nested_value(&mut self) -> Valid {
        self.walk(NESTING_MAX - 1)
    }

    fn walk(&mut self, depth_max: usize) -> Valid {
        // One bit per open container, the innermost in the lowest place; 1 is an object.
        let mut objects = 0_u128;
        let mut depth = 0;
        loop {
            let opened = match self.peek().ok_or(Malformed)? {
                b'{' => self.open(b'}')?.then_some(true),
                b'[' => self.open(b']')?.then_some(false),
                _ => {
                    self.scalar()?;
                    None
                }
            };
            if let Some(is_object) = opened {
                if depth == depth_max {
                    return Err(Malformed);
                }
                depth += 1;
                objects = objects << 1 | u128::from(is_object);
                if is_object {
                    self.key()?;
                }
                continue;
            }
            // A value has ended; close what ends with it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = objects & 1 == 1;
                self.space();
                match self.next()? {
                    b',' => {
                        self.space();
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return Err(Malformed),
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    /// Steps into a container; false if it is empty and already closed again.
    fn open(&mut self, close: u8) -> Result<bool, Malformed> {
        self.at += 1;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// A key, its colon, and the space after it.
    fn key(&mut self) -> Valid {
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(())
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, byte: u8) -> Valid {
        if self.next()? == byte { Ok(()) } else { Err(Malformed) }
    }

    fn scalar(&mut self) -> Valid {
        match self.peek().ok_or(Malformed)? {
            b'"' => self.string().map(|_| ()),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &[u8]) -> Valid {
        if !self.text[self.at..].starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Valid {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => {
                self.digits();
            }
            _ => return Err(Malformed),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Valid {
        let start = self.at;
        self.digits();
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    /// A string with its quotes; true if it holds an escape.
    fn string(&mut self) -> Result<bool, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let (mut escaped, mut beyond_ascii) = (false, false);
        loop {
            self.plain(&mut beyond_ascii);
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Malformed),
            }
        }
        // The standard library takes ten times as long over text that is not English.
        if beyond_ascii && simdutf8::basic::from_utf8(&self.text[start..self.at - 1]).is_err() {
            return Err(Malformed);
        }
        Ok(escaped)
    }

    /// Skips what needs no attention: stops before a quote, a backslash, a control character, or the end.
    fn plain(&mut self, beyond_ascii: &mut bool) {
        let mut rest = &self.text[self.at..];
        while let Some((chunk, more)) = rest.split_first_chunk::<STRIDE>() {
            let (mut stop, mut high) = (false, false);
            for &byte in chunk {
                stop |= (byte == b'"') | (byte == b'\\') | (byte < 0x20);
                high |= byte >= 0x80;
            }
            if stop {
                break;
            }
            *beyond_ascii |= high;
            rest = more;
        }
        while let Some((word, more)) = rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            // Bytes behind the end of the string may count too: then it is validated for nothing.
            *beyond_ascii |= word & repeat(0x80) != 0;
            let marks = special(word);
            if marks != 0 {
                self.at = self.text.len() - rest.len() + (marks.trailing_zeros() / 8) as usize;
                return;
            }
            rest = more;
        }
        let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
        *beyond_ascii |= !rest[..plain].is_ascii();
        self.at = self.text.len() - rest.len() + plain;
    }

    fn escape(&mut self) -> Valid {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.next()?.is_ascii_hexdigit() {
                        return Err(Malformed);
                    }
                }
                Ok(())
            }
            _ => Err(Malformed),
        }
    }
}
