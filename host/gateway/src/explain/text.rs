//! Decisions as people read them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Deserialize;

/// What the admin page answers.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    decisions: Vec<Decision>,
}

/// One decision; `proxy::explain::Explanation` says what the fields mean.
#[derive(Debug, Deserialize)]
struct Decision {
    at_unix_ms: u64,
    request_id: String,
    gateway: String,
    model: String,
    generation: u64,
    attempt: u32,
    pool: usize,
    candidates: u32,
    prompt_tokens: u32,
    cached_tokens: u32,
    endpoint: Option<String>,
    took_us: Option<f64>,
    entries: Vec<Entry>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    #[serde(default)]
    avoided: Vec<Avoided>,
    #[serde(default)]
    numbers: Vec<Numbers>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    endpoint: String,
    why: String,
    result: String,
    status: Option<u16>,
    took_ms: f64,
    first_byte_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Avoided {
    endpoint: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    endpoint: String,
    signals: BTreeMap<String, Option<f64>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    policy: String,
    digest: Option<String>,
    step: String,
    endpoint: Option<String>,
    fault: Option<String>,
    #[serde(default)]
    signals: Vec<String>,
    fuel: u64,
    took_us: Option<f64>,
}

impl Page {
    /// A table of the decisions, the latest last, with their ages at `now_unix_ms`.
    pub(super) fn table(&self, now_unix_ms: u64) -> String {
        let heads = ["AGE", "REQUEST", "MODEL", "ENDPOINT", "DECIDED BY"].map(str::to_owned);
        let row = |decision: &Decision| {
            let last = decision.attempts.last().map(|attempt| &attempt.endpoint);
            let endpoint = last.or(decision.endpoint.as_ref()).cloned().unwrap_or_else(|| "none".to_owned());
            let (id, model) = (decision.request_id.clone(), decision.model.clone());
            [decision.age(now_unix_ms), id, model, endpoint, decision.decider().to_owned()]
        };
        let rows: Vec<[String; 5]> = [heads].into_iter().chain(self.decisions.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// All there is to say about each decision.
    pub(super) fn details(&self, now_unix_ms: u64) -> String {
        let one = |decision: &Decision| Detail(decision, now_unix_ms).to_string();
        self.decisions.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl Decision {
    fn age(&self, now_unix_ms: u64) -> String {
        let ms = now_unix_ms.saturating_sub(self.at_unix_ms);
        match ms / 1_000 {
            0..60 => format!("{:.1} s", ms as f64 / 1e3),
            seconds @ 60..3_600 => format!("{} min", seconds / 60),
            seconds => format!("{} h", seconds / 3_600),
        }
    }

    /// The entry that had the last word: who chose or refused, else who scored last.
    fn decider(&self) -> &str {
        let last = |steps: &[&str]| self.entries.iter().rfind(|entry| steps.contains(&&*entry.step));
        let decider = last(&["chose", "refused"]).or_else(|| last(&["scored"]));
        decider.map_or("no policy: least in flight", |entry| &entry.policy)
    }
}

struct Detail<'a>(&'a Decision, u64);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(decision, now_unix_ms) = self;
        let age = decision.age(*now_unix_ms);
        writeln!(f, "request {}, {age} ago", decision.request_id)?;
        writeln!(
            f,
            "  gateway {}, model {}, generation {}, attempt {}",
            decision.gateway, decision.model, decision.generation, decision.attempt
        )?;
        let (tokens, cached) = (decision.prompt_tokens, decision.cached_tokens);
        writeln!(f, "  prompt of about {tokens} tokens, {cached} of them believed cached where it went")?;
        let endpoints = if decision.pool == 1 { "endpoint" } else { "endpoints" };
        writeln!(f, "  {} of {} {endpoints} could be chosen", decision.candidates, decision.pool)?;
        for Avoided { endpoint, reason } in &decision.avoided {
            writeln!(f, "    not {endpoint}: {reason}")?;
        }
        for entry in &decision.entries {
            writeln!(f, "  - {entry}")?;
        }
        for Numbers { endpoint, signals } in &decision.numbers {
            let known = |(signal, value): (&String, &Option<f64>)| match value {
                Some(value) => format!("{signal} {value}"),
                None => format!("{signal} unknown"),
            };
            let signals: Vec<String> = signals.iter().map(known).collect();
            writeln!(f, "    {endpoint}: {}", signals.join(", "))?;
        }
        match &decision.endpoint {
            Some(endpoint) => write!(f, "  decided for {endpoint}")?,
            None => write!(f, "  turned away")?,
        }
        match decision.took_us {
            Some(micros) => writeln!(f, " in {micros:.1} µs")?,
            None => writeln!(f)?,
        }
        for (number, attempt) in (1..).zip(&decision.attempts) {
            writeln!(f, "  attempt {number}: {attempt}")?;
        }
        if decision.attempts.is_empty() && decision.endpoint.is_some() {
            writeln!(f, "  the first attempt is under way")?;
        }
        Ok(())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)?;
        f.write_str(match &*self.why {
            "probe" => " (to find out whether it is well again)",
            "reconnect" => " (no connection before; costs nothing)",
            "repair" => " (repairs the attempt before; costs no retry)",
            "retry" => " (a retry out of the budget)",
            _ => "",
        })?;
        match (&*self.result, self.status) {
            ("answered", Some(status)) => write!(f, ": answered {status}")?,
            ("status", Some(status)) => write!(f, ": failed, answered {status}")?,
            ("client_gone", _) => f.write_str(": the client left")?,
            (result, _) => write!(f, ": failed, {result}")?,
        }
        write!(f, " after {:.1} ms", self.took_ms)?;
        match self.first_byte_ms {
            Some(millis) => write!(f, ", first content after {millis:.1} ms"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.policy)?;
        if let Some(digest) = &self.digest {
            write!(f, " ({digest})")?;
        }
        let endpoint = self.endpoint.as_deref().unwrap_or("no endpoint");
        match &*self.step {
            "chose" => write!(f, ": chose {endpoint}")?,
            "scored" => write!(f, ": gave scores, the best to {endpoint}")?,
            "abstained" => f.write_str(": had no opinion")?,
            "refused" => f.write_str(": turned the request away")?,
            "no_session" => f.write_str(": not asked, the request has no session")?,
            "unavailable" => f.write_str(": not asked, it is not loaded or fails too often")?,
            "fault" => write!(f, ": failed ({})", self.fault.as_deref().unwrap_or("unknown"))?,
            "shadow" => write!(f, ": only watches, would have chosen {endpoint}")?,
            "not_asked" => f.write_str(": not asked, the decision had fallen")?,
            other => write!(f, ": {other}")?,
        }
        if !self.signals.is_empty() {
            write!(f, "; saw {}", self.signals.join(", "))?;
        }
        if self.fuel > 0 {
            write!(f, "; fuel {}", self.fuel)?;
        }
        match self.took_us {
            Some(micros) => write!(f, ", {micros:.1} µs"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decision(id: &str, entries: &Value) -> Value {
        json!({
            "at_unix_ms": 1_000_000, "request_id": id, "gateway": "default/gw", "model": "m", "generation": 3,
            "attempt": 0, "pool": 2, "candidates": 1, "prompt_tokens": 12, "cached_tokens": 8,
            "endpoint": "http://a:1", "took_us": 9.25, "entries": entries
        })
    }

    fn page(decisions: &[Value]) -> Page {
        serde_json::from_value(json!({ "decisions": decisions })).unwrap()
    }

    #[test]
    fn the_latest_decisions_are_a_table_of_who_decided() {
        let scored = json!({"policy": "prefix-hash", "step": "scored", "endpoint": "http://a:1", "fuel": 7});
        let chose = json!({"policy": "round-robin", "step": "chose", "endpoint": "http://a:1", "fuel": 7});
        let shadow = json!({"policy": "mine", "step": "shadow", "fuel": 7});
        let decisions = [
            decision("request-1", &json!([scored, shadow])),
            decision("2", &json!([scored, chose])),
            decision("3", &json!([{"policy": "mine", "step": "abstained", "fuel": 1}])),
        ];
        let expected = "\
AGE    REQUEST    MODEL  ENDPOINT    DECIDED BY
2 min  request-1  m      http://a:1  prefix-hash
2 min  2          m      http://a:1  round-robin
2 min  3          m      http://a:1  no policy: least in flight
";
        assert_eq!(page(&decisions).table(1_150_000), expected);
    }

    #[test]
    fn one_decision_is_told_entry_by_entry() {
        let entries = json!([
            {"policy": "session-affinity", "digest": "0123456789ab", "step": "no_session", "fuel": 0},
            {"policy": "mine", "step": "fault", "fault": "trap", "fuel": 70, "took_us": 3.0},
            {"policy": "load-aware", "step": "scored", "endpoint": "http://a:1", "signals": ["inflight"], "fuel": 900},
            {"policy": "new", "step": "shadow", "fuel": 5},
        ]);
        let expected = "\
request r, 1.5 s ago
  gateway default/gw, model m, generation 3, attempt 0
  prompt of about 12 tokens, 8 of them believed cached where it went
  1 of 2 endpoints could be chosen
  - session-affinity (0123456789ab): not asked, the request has no session
  - mine: failed (trap); fuel 70, 3.0 µs
  - load-aware: gave scores, the best to http://a:1; saw inflight; fuel 900
  - new: only watches, would have chosen no endpoint; fuel 5
  decided for http://a:1 in 9.2 µs
  the first attempt is under way
";
        assert_eq!(page(&[decision("r", &entries)]).details(1_001_500), expected);
    }

    /// N2: what became of a decision is said as well.
    #[test]
    fn attempts_numbers_and_avoided_endpoints_are_told() {
        let mut failed_over = decision("r", &json!([]));
        failed_over["attempts"] = json!([
            {"endpoint": "http://a:1", "why": "decided", "result": "connect", "took_ms": 0.25},
            {"endpoint": "http://b:1", "why": "reconnect", "result": "status", "status": 500, "took_ms": 2.0},
            {"endpoint": "http://c:1", "why": "repair", "result": "answered", "status": 200, "took_ms": 250.0,
             "first_byte_ms": 40.0},
        ]);
        failed_over["avoided"] = json!([{"endpoint": "http://d:1", "reason": "overloaded"}]);
        failed_over["numbers"] =
            json!([{"endpoint": "http://a:1", "signals": {"inflight": 3.0, "kv-usage": null}}]);
        let text = page(&[failed_over.clone()]).details(1_001_500);
        let told: Vec<&str> = text.lines().skip(4).collect();
        let expected = [
            "    not http://d:1: overloaded",
            "    http://a:1: inflight 3, kv-usage unknown",
            "  decided for http://a:1 in 9.2 µs",
            "  attempt 1: http://a:1: failed, connect after 0.2 ms",
            "  attempt 2: http://b:1 (no connection before; costs nothing): failed, answered 500 after 2.0 ms",
            "  attempt 3: http://c:1 (repairs the attempt before; costs no retry): answered 200 after 250.0 ms, first content after 40.0 ms",
        ];
        assert_eq!(told, expected);
        assert!(page(&[failed_over]).table(1_150_000).contains("m      http://c:1"), "who answered");
    }
}
