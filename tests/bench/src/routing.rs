//! Routing in virtual time: chains of the real policy components over eight simulated engines, beside round robin and an
//! oracle that knows every queue and every cache.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use domain::pool::Entry;
use engine::core::CoreConfig;
use engine::fleet::{self, FleetConfig, Oracle, Report, RoundRobin};
use engine::workload::{
    Mooncake, Shape, Workload, agentic, chats, mooncake, read_trace, shared_system, tenants,
};
use policy::{Compiler, Library, Options};

mod chain;
mod pool;
mod table;

use crate::beside_nginx::spread::say;
use chain::{ChainRouter, Hashes, Tally};
use pool::{Link, StandIn};

/// Engines of the fleet.
const ENGINES: usize = 8;
/// Requests per engine of the workloads of our own design.
const REQUESTS_PER_ENGINE: usize = 1_000;
/// Seeds of the generated workloads.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// KV cache of one engine under Mooncake's long prompts, tokens: as in `make demo`.
const MOONCAKE_KV_TOKENS: u64 = 1_000_000;
/// Arrivals per second at which capacity is looked for; it depends little on it.
const CAPACITY_RATE: f64 = 10.0;

/// The chains compared. The second is the seed's own; `prefer` is what the gateway's manifests come to
/// where session affinity stands before prefix hashing.
const CHAINS: [(&str, &[Link]); 5] = [
    (
        "session-affinity, prefix-hash, load-aware",
        &[("session-affinity", PREFER), ("prefix-hash", "{}"), ("load-aware", "{}")],
    ),
    (
        "session-affinity, prefix-hash, gpu-load-aware",
        &[("session-affinity", PREFER), ("prefix-hash", "{}"), ("gpu-load-aware", "{}")],
    ),
    ("prefix-hash, load-aware", &[("prefix-hash", "{}"), ("load-aware", "{}")]),
    ("prefix-hash", &[("prefix-hash", "{}")]),
    ("least-in-flight", &[("least-in-flight", "{}")]),
];
const PREFER: &str = r#"{"mode":"prefer"}"#;
/// How many of [`CHAINS`], from the first, are held against the bars; the others are there to compare.
const HELD: usize = 3;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RoutingArgs {
    /// Arrivals, as a share of what the fleet could sustain under the oracle
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    load: f64,
    /// Also run this trace, in the format of Mooncake's (JSON lines, .gz allowed)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Only workloads whose names contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Decide with the component in FILE wherever a chain names POLICY; may be given again
    #[arg(long = "policy", value_name = "POLICY=FILE", value_parser = stand_in)]
    policies: Vec<(String, PathBuf)>,
    /// Only so many of the five seeds
    #[arg(long, value_name = "N", default_value_t = SEEDS.len())]
    seeds: usize,
}

/// Where the requests of a row of the tables come from.
enum Source {
    Synthetic(fn(Shape) -> Workload),
    Mooncake,
    Trace(Workload),
}

struct Case {
    name: String,
    source: Source,
    fleet: FleetConfig,
    /// How many seeds: one for a trace.
    seeds: usize,
    /// Arrivals per second that the fleet could sustain.
    capacity: f64,
}

/// One workload of one seed through every router.
struct Round {
    case: usize,
    seed: u64,
    round_robin: Report,
    oracle: Report,
    chains: Vec<(Report, Tally)>,
}

/// Runs it. Returns whether every bar was reached.
pub(crate) fn run(args: &RoutingArgs) -> anyhow::Result<bool> {
    let began = Instant::now();
    let library = Library::new(Options { workers: 2, compiler: Compiler::InProcess, ..Options::default() })?;
    let stand_ins = args.policies.iter().map(|(name, file)| {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        Ok((name.clone(), bytes.into()))
    });
    let stand_ins: Vec<StandIn> = stand_ins.collect::<anyhow::Result<_>>()?;
    let chains: Vec<Vec<Entry>> = CHAINS
        .iter()
        .map(|(name, links)| {
            pool::entries(&library, links, &stand_ins).map_err(|error| anyhow::anyhow!("{name}: {error:?}"))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut cases = cases(args)?;
    let capacities = parallel(&cases, capacity);
    for (case, capacity) in cases.iter_mut().zip(capacities) {
        case.capacity = capacity;
    }
    let jobs: Vec<(usize, u64)> = (0..cases.len())
        .flat_map(|case| SEEDS.iter().take(cases[case].seeds).map(move |seed| (case, *seed)))
        .collect();
    let rounds = parallel(&jobs, |(case, seed)| {
        round((*case, &cases[*case]), (*seed, args.load), (&library, &chains))
    });
    say(format_args!(
        "{ENGINES} engines, load {} of capacity; ranges are min–**median**–max over seeds\n",
        args.load
    ));
    let reached = table::print(&cases, &rounds);
    say(format_args!("\nran for {:.0} s", began.elapsed().as_secs_f64()));
    Ok(reached)
}

/// `POLICY=FILE`, of one of the policies that the chains name.
fn stand_in(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected POLICY=FILE")?;
    let is_in = |links: &[Link]| links.iter().any(|(policy, _)| *policy == name);
    if CHAINS.iter().any(|(_, links)| is_in(links)) {
        Ok((name.to_owned(), file.into()))
    } else {
        Err(format!("no chain has a policy {name:?}"))
    }
}

fn cases(args: &RoutingArgs) -> anyhow::Result<Vec<Case>> {
    let seeds = args.seeds.clamp(1, SEEDS.len());
    let own = |name: &str, make: fn(Shape) -> Workload| Case {
        name: name.to_owned(),
        source: Source::Synthetic(make),
        fleet: FleetConfig { engines: ENGINES, ..FleetConfig::default() },
        seeds,
        capacity: 0.0,
    };
    let long_prompts = || FleetConfig {
        engines: ENGINES,
        core: CoreConfig::default().with_kv_tokens(MOONCAKE_KV_TOKENS, CoreConfig::default().block_tokens),
        ..FleetConfig::default()
    };
    let mut cases = vec![
        own("chats", chats),
        own("shared system prompt", shared_system),
        own("zipf tenants", tenants),
        own("agentic", agentic),
        Case {
            name: "like Mooncake's".to_owned(),
            source: Source::Mooncake,
            fleet: long_prompts(),
            seeds,
            capacity: 0.0,
        },
    ];
    if let Some(file) = &args.trace {
        let trace = read_trace(file).with_context(|| file.display().to_string())?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = Source::Trace(trace);
        cases.push(Case { name, source, fleet: long_prompts(), seeds: 1, capacity: 0.0 });
    }
    cases.retain(|case| args.only.as_ref().is_none_or(|only| case.name.contains(only.as_str())));
    Ok(cases)
}

impl Case {
    fn workload(&self, requests_per_second: f64, seed: u64) -> Workload {
        let requests = ENGINES * REQUESTS_PER_ENGINE;
        let whole = match &self.source {
            Source::Synthetic(make) => return make(Shape { requests, requests_per_second, seed }),
            Source::Mooncake => mooncake(Mooncake { seed, ..Mooncake::default() }),
            Source::Trace(trace) => trace.clone(),
        };
        let rate = whole.requests.len() as f64 / whole.span().as_secs_f64().max(1e-9);
        whole.sped_up(requests_per_second / rate)
    }
}

fn capacity(case: &Case) -> f64 {
    fleet::capacity(&case.workload(CAPACITY_RATE, SEEDS[0]), &case.fleet, &mut Oracle)
}

fn round(
    (index, case): (usize, &Case),
    (seed, load): (u64, f64),
    (library, chains): (&Library, &[Vec<Entry>]),
) -> Round {
    let workload = case.workload(load * case.capacity, seed);
    let hashes = Hashes::of(&workload);
    let chains = chains.iter().map(|entries| {
        let mut router = ChainRouter::new((library, entries), (&workload, &hashes), ENGINES);
        let report = fleet::run(&workload, &case.fleet, &mut router);
        (report, router.tally)
    });
    Round {
        case: index,
        seed,
        round_robin: fleet::run(&workload, &case.fleet, &mut RoundRobin::default()),
        oracle: fleet::run(&workload, &case.fleet, &mut Oracle),
        chains: chains.collect(),
    }
}

/// Does all jobs, one per core at a time; results are in the order of jobs.
fn parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let worker = || {
        while let Some((at, job)) = Some(next.fetch_add(1, Relaxed)).and_then(|at| Some((at, jobs.get(at)?)))
        {
            let result = work(job);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Milliseconds of a time, for tables.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
