//! What happened, as tables.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::gateway::Gateway;
use hdrhistogram::Histogram;

use crate::fleet::{AGENT_MODEL, CHAT_MODEL, Fleet};
use crate::load::Played;
use crate::say;

/// Prints the tables: per part of the trace, per engine, per policy.
pub(crate) async fn print(played: &[Played], fleet: &Fleet, gateway: &Gateway) {
    parts(played);
    engines(fleet);
    policies(played, gateway).await;
    for (error, count) in errors(played) {
        say(format_args!("LOST {count}: {error}"));
    }
}

/// Requests, cached share and time to first token of some requests.
struct Row {
    requests: usize,
    prompt: u64,
    cached: u64,
    first: Histogram<u64>,
}

impl Row {
    fn of<'a>(played: impl Iterator<Item = &'a Played>) -> Self {
        // Microseconds, up to ten minutes.
        let first = Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are allowed");
        let mut row = Self { requests: 0, prompt: 0, cached: 0, first };
        for one in played.filter(|one| !one.is_lost()) {
            row.requests += 1;
            row.prompt += one.prompt_tokens;
            row.cached += one.cached_tokens;
            row.first.saturating_record(one.first_event.as_micros() as u64);
        }
        row
    }
    fn first_ms(&self, quantile: f64) -> f64 {
        Duration::from_micros(self.first.value_at_quantile(quantile)).as_secs_f64() * 1e3
    }
    fn text(&self) -> String {
        let share = 100.0 * self.cached as f64 / self.prompt.max(1) as f64;
        format!(
            "{:>8} {:>14.1} {:>9.1} % {:>10.0} ms {:>10.0} ms",
            self.requests,
            self.prompt as f64 / 1e6,
            share,
            self.first_ms(0.5),
            self.first_ms(0.99)
        )
    }
}

fn header(first: &str) -> String {
    format!(
        "\n{first:<24} {:>8} {:>14} {:>11} {:>13} {:>13}",
        "requests", "prompt Mtokens", "cached", "TTFT p50", "TTFT p99"
    )
}

fn parts(played: &[Played]) {
    say(format_args!("{}", header("part of the trace")));
    let names = ["1 session, prefix, load", "2 round robin", "3 session, prefix, load"];
    for (phase, name) in names.iter().enumerate() {
        say(format_args!("{name:<24} {}", Row::of(played.iter().filter(|one| one.phase == phase)).text()));
    }
}

fn engines(fleet: &Fleet) {
    let mut work: BTreeMap<&str, u64> = BTreeMap::new();
    for (model, engine) in fleet.engines() {
        *work.entry(model).or_default() += engine.totals().work_tokens();
    }
    say(format_args!(
        "\n{:<24} {:<32} {:>8} {:>10} {:>12} {:>14}",
        "engine", "model", "requests", "work share", "cached Mtok", "generated ktok"
    ));
    for (model, engine) in fleet.engines() {
        let totals = engine.totals();
        let share = 100.0 * totals.work_tokens() as f64 / work[model].max(1) as f64;
        say(format_args!(
            "{:<24} {:<32} {:>8} {:>8.1} % {:>12.2} {:>14.1}",
            engine.name(),
            model,
            totals.finished,
            share,
            totals.cached_tokens as f64 / 1e6,
            totals.generated_tokens as f64 / 1e3
        ));
    }
    for (model, engine) in fleet.engines().filter(|(_, engine)| engine.totals().finished == 0) {
        say(format_args!("{}", idle(engine.name(), model)));
    }
}

/// Why an engine has served nothing.
fn idle(engine: &str, model: &str) -> String {
    match model {
        CHAT_MODEL | AGENT_MODEL => format!("{engine}: its policies chose others of its model every time."),
        _ => format!("{engine}: no request of the trace names its model, and models are never mixed."),
    }
}

async fn policies(played: &[Played], gateway: &Gateway) {
    say(format_args!("{}", header("decided by")));
    let names: std::collections::BTreeSet<&str> = played.iter().map(|one| one.policy.as_str()).collect();
    for name in &names {
        say(format_args!("{name:<24} {}", Row::of(played.iter().filter(|one| one.policy == *name)).text()));
    }
    say(format_args!(
        "\n{:<24} {:>9} {:>11} {:>8} {:>16}",
        "policy (gateway's count)", "decisions", "abstentions", "faults", "mean decision"
    ));
    let page = gateway.admin_page("/metrics").await.text();
    let sum = |metric: &str, policy: &str| -> f64 {
        let label = format!("policy=\"{policy}\"");
        let samples = page.lines().filter(|line| line.starts_with(metric) && line.contains(&label));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value)
    };
    for policy in ["session-affinity", "prefix-hash", "gpu-load-aware", "round-robin"] {
        let seconds = sum("wicketgate_policy_decision_seconds_sum", policy);
        let calls = sum("wicketgate_policy_decision_seconds_count", policy).max(1.0);
        say(format_args!(
            "{policy:<24} {:>9} {:>11} {:>8} {:>13.1} µs",
            sum("wicketgate_policy_decisions_total", policy),
            sum("wicketgate_policy_abstentions_total", policy),
            sum("wicketgate_policy_faults_total", policy),
            seconds / calls * 1e6
        ));
    }
}

fn errors(played: &[Played]) -> BTreeMap<&str, usize> {
    let mut errors = BTreeMap::new();
    for error in played.iter().filter_map(|one| one.error.as_deref()) {
        *errors.entry(error).or_default() += 1;
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N14: an engine that served nothing is explained, by its model.
    #[test]
    fn an_engine_without_requests_is_explained() {
        assert!(idle("a-0", CHAT_MODEL).contains("chose others"));
        assert!(idle("a-0", "another").contains("no request of the trace names its model"));
    }
}
