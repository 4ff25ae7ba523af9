//! Reads the few numbers we need from an engine's Prometheus text page, as it streams in.
//!
//! Borrowed and bounded: nothing is kept but one number per known metric and the start of a line whose end has not come
//! yet. Bytes that are no exposition text are skipped line by line; the scanner never fails and never panics. It knows
//! names, not types: comment lines are skipped with the rest.

use domain::endpoint::EngineReading;

use super::gpu::labels;
use super::lines::Lines;

mod known;
mod samples;
mod unread;

pub use unread::Unread;

use known::{CACHE_CONFIG, KNOWN, Meaning};
use samples::Samples;
use unread::Glance;

/// A share slightly above one is rounding; one far above is another unit, and unknown.
const SHARE_MAX: f64 = 1.01;
/// Ray shows the metrics of vLLM under its own prefix, and in newer versions without the colon.
const RAY_PREFIXES: [&[u8]; 2] = [b"ray_vllm_", b"ray_vllm:"];

/// Collects the numbers of one page, fed in pieces of any size.
#[derive(Debug)]
pub struct Scanner {
    lines: Lines,
    found: Found,
    glance: Glance,
}

#[derive(Debug)]
struct Found {
    numbers: [Samples; KNOWN.len()],
    /// Of all the engine's parts together.
    kv_blocks: Option<f64>,
    kv_bytes: Option<f64>,
}

impl Default for Scanner {
    fn default() -> Self {
        let numbers = std::array::from_fn(|_| Samples::default());
        let found = Found { numbers, kv_blocks: None, kv_bytes: None };
        Self { lines: Lines::default(), found, glance: Glance::default() }
    }
}

impl Scanner {
    /// Reads the next piece of the page.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { lines, found, glance } = self;
        glance.bytes(bytes);
        lines.feed(bytes, |line| found.line(line, glance));
    }

    /// The page has ended: what it said, or what it was if it held no number that is known.
    ///
    /// # Errors
    /// The page holds no known number.
    pub fn finish(mut self) -> Result<EngineReading, Unread> {
        let Self { lines, found, glance } = &mut self;
        lines.finish(|line| found.line(line, glance));
        let reading = self.reading();
        if reading == EngineReading::default() { Err(self.glance.finish()) } else { Ok(reading) }
    }

    fn reading(&self) -> EngineReading {
        let (hits, queries) = self.pair(Meaning::PrefixHits, Meaning::PrefixQueries);
        let (accepted, proposed) = self.pair(Meaning::DraftAccepted, Meaning::DraftProposed);
        EngineReading {
            queued: self.get(Meaning::Queued).and_then(count),
            running: self.get(Meaning::Running).and_then(count),
            kv_usage: self.get(Meaning::KvUsage).and_then(share).map(|value| value as f32),
            acceptance: ratio(accepted, proposed).map(|value| value as f32),
            prefix_hit_rate: self
                .get(Meaning::PrefixHitRate)
                .and_then(share)
                .or_else(|| ratio(hits, queries)),
            prefix_hits: hits,
            prefix_queries: queries,
            kv_blocks: self.found.kv_blocks.or_else(|| self.get(Meaning::KvBlocks)),
            kv_bytes: self.found.kv_bytes,
        }
    }

    fn get(&self, meaning: Meaning) -> Option<f64> {
        let mut of_meaning =
            KNOWN.iter().zip(&self.found.numbers).filter(|(known, _)| known.meaning == meaning);
        of_meaning.find_map(|(known, samples)| samples.fold(known.fold))
    }

    /// Two counters that only make sense together.
    fn pair(&self, part: Meaning, whole: Meaning) -> (Option<f64>, Option<f64>) {
        (self.get(part), self.get(whole))
    }
}

impl Found {
    /// The sizes stand in labels; `None` and the like are unknown.
    fn cache_config(&mut self, line: &[u8]) {
        let Some(open) = line.iter().position(|byte| *byte == b'{') else { return };
        for (name, value) in labels(&line[open + 1..]) {
            let cell = match &*name {
                "num_gpu_blocks" => &mut self.kv_blocks,
                "kv_cache_memory_bytes" => &mut self.kv_bytes,
                _ => continue,
            };
            if let Some(value) = number(value.as_bytes()) {
                *cell = Some(cell.unwrap_or(0.0) + value);
            }
        }
    }

    fn line(&mut self, line: &[u8], glance: &mut Glance) {
        let line = line.trim_ascii();
        let Some((name, value)) = sample(line) else { return };
        glance.sample(name);
        let rest = RAY_PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix));
        let is_named = |known: &[u8]| match rest {
            Some(rest) => known.strip_prefix(b"vllm:") == Some(rest),
            None => known == name,
        };
        if is_named(CACHE_CONFIG) {
            return self.cache_config(line);
        }
        if !KNOWN.iter().any(|known| is_named(known.name)) {
            return;
        }
        let Some(value) = number(value) else { return };
        let labels = line[name.len()..].strip_prefix(b"{").map(labels).unwrap_or_default();
        for (known, samples) in KNOWN.iter().zip(&mut self.numbers) {
            if is_named(known.name) && known.takes(&labels) {
                samples.add(&labels, value);
            }
        }
    }
}

/// Name and the text after it of one sample line; `None` for anything else.
pub(super) fn sample(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| !is_name(*byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    match rest.first()? {
        _ if name.is_empty() => None,
        b'{' => Some((name, after_labels(rest)?)),
        b' ' | b'\t' => Some((name, rest)),
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// What stands behind the closing brace; braces inside quotes do not count.
fn after_labels(labels: &[u8]) -> Option<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in labels.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(&labels[index + 1..]),
            _ => {}
        }
    }
    None
}

/// The value in front of an optional timestamp. Blank, not finite or negative is unknown: none of ours can be negative.
pub(super) fn number(text: &[u8]) -> Option<f64> {
    let value = text.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    let value: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

fn count(value: f64) -> Option<f32> {
    Some(value as f32).filter(|value| value.is_finite())
}

fn share(value: f64) -> Option<f64> {
    (value <= SHARE_MAX).then(|| value.min(1.0))
}

fn ratio(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0.0 => share(part / whole),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
