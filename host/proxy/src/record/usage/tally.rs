//! What the members of answers say of tokens, in the words of every API that engines speak.

use std::ops::Range;

use domain::outcome::Usage;

use crate::intake::scan::Lexer;

/// A member of an answer that is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// An object of counts: `usage`, or SGLang's `meta_info`.
    Usage,
    /// Cohere's `meta`, which has such objects below it.
    Meta,
    /// Ollama's `prompt_eval_count`, a number.
    PromptEvalCount,
    /// Ollama's `eval_count`, a number.
    EvalCount,
    /// An object that may have a `usage`: `response` of the responses API, `message` of the messages API.
    Envelope,
}

impl Member {
    /// The member of this name, if it is of interest.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        match key {
            b"usage" | b"meta_info" => Some(Self::Usage),
            b"meta" => Some(Self::Meta),
            b"prompt_eval_count" => Some(Self::PromptEvalCount),
            b"eval_count" => Some(Self::EvalCount),
            b"response" | b"message" => Some(Self::Envelope),
            _ => None,
        }
    }

    /// Its value is a number; of the others, an object.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::PromptEvalCount | Self::EvalCount)
    }
}

/// Counts as far as an answer has told them. A later one replaces an earlier one unless it is zero: the events of a stream
/// add to each other, and some repeat what they do not know as zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// `prompt_tokens`: all of the prompt.
    prompt: Option<u64>,
    /// `input_tokens`: all of the prompt in the responses API; in the messages API what is neither read from nor written to
    /// a cache.
    input: Option<u64>,
    /// `cached_tokens` of the details: a part of the prompt.
    cached: Option<u64>,
    /// `cache_read_input_tokens`: the same in the messages API, beside `input_tokens`.
    cache_read: Option<u64>,
    /// `cache_creation_input_tokens`, likewise beside `input_tokens`.
    cache_creation: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
}

impl Tally {
    /// Notes the value of a member, raw JSON. False: it holds no count.
    pub(super) fn take(&mut self, member: Member, raw: &[u8]) -> bool {
        match member {
            Member::Usage | Member::Meta => self.counts(raw),
            Member::PromptEvalCount => note(&mut self.prompt, raw),
            Member::EvalCount => note(&mut self.completion, raw),
            Member::Envelope => false,
        }
    }

    /// An object of counts.
    fn counts(&mut self, raw: &[u8]) -> bool {
        let mut found = false;
        members(raw, |key, value| found |= self.count(key, value));
        found
    }

    /// Notes one member of an object of counts. False: it is none.
    pub(super) fn count(&mut self, key: &[u8], value: &[u8]) -> bool {
        let place = match key {
            b"prompt_tokens" => &mut self.prompt,
            b"input_tokens" => &mut self.input,
            b"completion_tokens" | b"output_tokens" => &mut self.completion,
            b"total_tokens" => &mut self.total,
            b"cached_tokens" | b"prompt_cache_hit_tokens" => &mut self.cached,
            b"cache_read_input_tokens" => &mut self.cache_read,
            b"cache_creation_input_tokens" => &mut self.cache_creation,
            b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => {
                members(value, |key, value| {
                    if key == b"cached_tokens" {
                        note(&mut self.cached, value);
                    }
                });
                return false;
            }
            // Cohere's stand one level lower: what was computed goes before what is billed.
            b"tokens" => return self.counts(value),
            b"billed_units" => {
                let mut billed = Self::default();
                let found = billed.counts(value);
                self.input = self.input.or(billed.input);
                self.completion = self.completion.or(billed.completion);
                return found && (billed.input.is_some() || billed.completion.is_some());
            }
            _ => return false,
        };
        note(place, value)
    }

    /// The counts together. `None`: nothing was told. Never more cached tokens than the prompt has.
    pub(super) fn usage(&self) -> Option<Usage> {
        let told = [self.prompt, self.input, self.cache_read, self.completion, self.total];
        if told.iter().all(Option::is_none) {
            return None;
        }
        let completion_tokens = self.completion.unwrap_or(0);
        let total = self.total.unwrap_or(0);
        let rest = total.saturating_sub(completion_tokens);
        let input = self.input.unwrap_or(0);
        let beside = self.cache_read.unwrap_or(0).saturating_add(self.cache_creation.unwrap_or(0));
        let prompt_tokens = match self.prompt {
            Some(prompt) if prompt > 0 => prompt,
            // An engine that adds up to its total without them counts the cached ones in.
            _ if input > 0 && input.saturating_add(completion_tokens) == total => input,
            _ if input > 0 || beside > 0 => input.saturating_add(beside),
            // Reranking and embeddings: some tell the total only.
            _ => rest,
        };
        let cached_tokens = self.cached.or(self.cache_read).map(|cached| cached.min(prompt_tokens));
        Some(Usage { prompt_tokens, cached_tokens, completion_tokens })
    }
}

/// Notes a count. False: the value is none.
fn note(place: &mut Option<u64>, raw: &[u8]) -> bool {
    let Some(count) = count(raw) else { return false };
    if count > 0 || place.is_none() {
        *place = Some(count);
    }
    true
}

/// A number that counts something: digits, or as some write them, with a fraction of nothing.
fn count(raw: &[u8]) -> Option<u64> {
    let text = str::from_utf8(raw.trim_ascii()).ok()?;
    if let Ok(count) = text.parse::<u64>() {
        return Some(count);
    }
    let number = text.parse::<f64>().ok()?;
    (number >= 0.0 && number.fract() == 0.0 && number < 2f64.powi(53)).then_some(number as u64)
}

/// The members of the object that `text` begins with; nothing unless it begins with one.
fn members(text: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
    if text.first() == Some(&b'{') {
        // A cut or garbled object reports what it has: these are the engine's bytes, and only counted.
        let _ = Lexer::new(text).members(|key, value: Range<usize>| each(key, &text[value]));
    }
}
