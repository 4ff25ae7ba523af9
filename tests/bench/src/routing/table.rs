//! What the rounds came to, as tables, and the bars.

use engine::fleet::Report;

use super::{CHAINS, Case, HELD, Round, Tally, millis};
use crate::beside_nginx::spread::{Spread, say};

/// Cached tokens, at least so much of the oracle's.
const CACHED_MIN: f64 = 0.95;
/// Token-work of the busiest engine over the mean, at most.
const WORK_MAX: f64 = 1.1;
/// 99th percentile of the time to the first token, at most so much of round robin's.
const P99_MAX: f64 = 1.02;

/// Prints a table per workload; returns whether the chains held to the bars reached them all.
pub(super) fn print(cases: &[Case], rounds: &[Round]) -> bool {
    let mut reached = true;
    for (index, case) in cases.iter().enumerate() {
        let rounds: Vec<&Round> = rounds.iter().filter(|round| round.case == index).collect();
        reached &= print_case(case, &rounds);
    }
    reached
}

fn print_case(case: &Case, rounds: &[&Round]) -> bool {
    let seeds: Vec<String> = rounds.iter().map(|round| round.seed.to_string()).collect();
    let requests: Spread = rounds.iter().map(|round| round.oracle.finished as f64).collect();
    say(format_args!(
        "\n### {}: {:.0} requests, capacity {:.2}/s, seeds {}\n",
        case.name,
        requests.median(),
        case.capacity,
        seeds.join(" ")
    ));
    say(format_args!(
        "| router | hit rate | cached ÷ oracle's | work max/mean | first token p50 ms | p99 ms | p99 ÷ round robin's \
         | whole answer p99 ÷ round robin's | bars |"
    ));
    say(format_args!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |"));
    Row::new("round robin", rounds, |round| (&round.round_robin, None)).print("");
    Row::new("oracle", rounds, |round| (&round.oracle, None)).print("");
    let mut reached = true;
    for (chain, (name, _)) in CHAINS.iter().enumerate() {
        let row = Row::new(name, rounds, |round| (&round.chains[chain].0, Some(&round.chains[chain].1)));
        let verdict = row.verdict();
        row.print(&verdict);
        reached &= chain >= HELD || verdict == "pass";
    }
    reached
}

/// One router's line.
struct Row<'a> {
    name: &'a str,
    hit_rate: Spread,
    cached: Spread,
    work: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    p99: Spread,
    whole: Spread,
    /// Decisions that no policy took, entries that failed, requests without an answer.
    wrong: u64,
}

impl<'a> Row<'a> {
    fn new<'r>(
        name: &'a str,
        rounds: &[&'r Round],
        of: impl Fn(&'r Round) -> (&'r Report, Option<&'r Tally>),
    ) -> Self {
        let spread = |value: &dyn Fn(&Report, &Round) -> f64| {
            rounds.iter().map(|round| value(of(round).0, round)).collect::<Spread>()
        };
        let wrong = |round: &&'r Round| {
            let (report, tally) = of(round);
            report.rejected + tally.map_or(0, |tally| tally.faults + tally.undecided)
        };
        Self {
            name,
            hit_rate: spread(&|report, _| report.hit_rate()),
            cached: spread(&|report, round| {
                report.cached_tokens as f64 / round.oracle.cached_tokens.max(1) as f64
            }),
            work: spread(&|report, _| report.work_max_over_mean()),
            p50_ms: spread(&|report, _| millis(report.ttft_p50)),
            p99_ms: spread(&|report, _| millis(report.ttft_p99)),
            p99: spread(&|report, round| {
                report.ttft_p99.as_secs_f64() / round.round_robin.ttft_p99.as_secs_f64().max(1e-9)
            }),
            whole: spread(&|report, round| {
                report.latency_p99.as_secs_f64() / round.round_robin.latency_p99.as_secs_f64().max(1e-9)
            }),
            wrong: rounds.iter().map(wrong).sum(),
        }
    }

    /// `pass`, or which bars the medians miss.
    fn verdict(&self) -> String {
        let bars = [
            ("cached", self.cached.median() >= CACHED_MIN),
            ("work", self.work.median() <= WORK_MAX),
            ("p99", self.p99.median() <= P99_MAX),
            ("every request decided and answered", self.wrong == 0),
        ];
        let missed: Vec<&str> = bars.iter().filter(|(_, reached)| !reached).map(|(bar, _)| *bar).collect();
        if missed.is_empty() { "pass".to_owned() } else { format!("misses {}", missed.join(", ")) }
    }

    fn print(&self, verdict: &str) {
        let Self { name, hit_rate, cached, work, p50_ms, p99_ms, p99, whole, .. } = self;
        say(format_args!(
            "| {name} | {hit_rate} | {cached} | {work} | {p50_ms} | {p99_ms} | {p99} | {whole} | {verdict} |"
        ));
    }
}
