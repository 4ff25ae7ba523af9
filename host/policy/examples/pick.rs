//! What one decision costs, and what an idle library weighs. Meaningful with `--release` only:
//! `cargo run --release -p policy --example pick`. The benchmarks proper are in `tests/bench`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::endpoint::{Endpoint, EndpointSpec, EndpointState, Endpoints, Slab};
use domain::name::{ModelName, ObjectName, PolicyName};
use domain::policy::{Call, EntrySpec, FailureMode, Mode, Policies, PolicyLimits, PolicySource};
use domain::pool::{Chain, Entry, Pool, PoolKey, PoolState};
use domain::prefix::SlotMap;
use domain::request::{Fleet, RequestView};
use domain::ring::LazyRing;
use domain::signal::{Signal, SignalSet};
use policy::{Compiler, Library, Options};

fn main() {
    let before = resident_kib();
    let library =
        Library::new(Options { workers: 2, compiler: Compiler::InProcess, ..Options::default() }).unwrap();
    println!("library: {} KiB resident", resident_kib() - before);
    let chains: [&[&str]; 8] = [
        &["round-robin"],
        &["least-in-flight"],
        &["session-affinity"],
        &["prefix-hash"],
        &["load-aware"],
        &["gpu-load-aware"],
        &["prefix-hash", "load-aware"],
        &["session-affinity", "prefix-hash", "load-aware"],
    ];
    for chain in chains {
        let entries: Vec<Entry> = chain.iter().map(|name| entry(&library, name)).collect();
        for endpoints in [8, 64, 512, 4_096] {
            let (nanoseconds, fuel) = measure(&library, &pool(endpoints, entries.clone()));
            println!("{:50} {endpoints:5} endpoints {nanoseconds:8} ns  fuel {fuel}", chain.join(", "));
        }
    }
    println!("with all policies: {} KiB resident", resident_kib() - before);
}

/// Least time of one decision over many batches, and its fuel.
fn measure(library: &Library, pool: &Pool) -> (u128, u64) {
    let mut evaluator = library.evaluator(0);
    let len = pool.endpoints.len();
    let set: SignalSet = Signal::ALL.into_iter().collect();
    let values = (0..set.len() * len).map(|at| (at * 7 % 11) as f32 / 11.0).collect();
    let fleet = Fleet::from_columns(set, len, values);
    let mut best = Duration::MAX;
    let mut fuel = 0;
    let batch = 20_000 / (len as u64 + 50) + 1;
    for round in 0..200 {
        let began = Instant::now();
        for at in 0..batch {
            let request = request(round * batch + at);
            let verdict = evaluator.evaluate(Call { pool, request: &request, fleet: &fleet });
            fuel = verdict.traces.iter().map(|trace| trace.fuel).sum();
        }
        best = best.min(began.elapsed() / batch as u32);
    }
    (best.as_nanos(), fuel)
}

fn request(ticket: u64) -> RequestView<'static> {
    RequestView {
        ticket,
        seed: ticket.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        now_ms: 1_000_000,
        attempt: 0,
        priority: 0,
        prompt_tokens: 1_000,
        output_tokens: Some(100),
        session: None,
        tenant: None,
        excluded: &[],
        owners: &[],
        prefix_hashes: &[1, 2, 3, 4, 5, 6, 7, 8],
        headers: &[],
    }
}

fn entry(library: &Library, name: &str) -> Entry {
    let spec = Arc::new(EntrySpec {
        name: PolicyName::from(name),
        source: PolicySource::Builtin(PolicyName::from(name)),
        sha256: None,
        config: "{}".into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: "default".into(),
    });
    let prepared = library.prepare_now(&spec).unwrap();
    Entry { spec, prepared: Some(prepared) }
}

fn pool(len: usize, entries: Vec<Entry>) -> Pool {
    let gateway = ObjectName::new("default", "bench");
    let model = ModelName::new(format!("model-{len}"));
    let mut slab = Slab::default();
    let endpoints: Endpoints = (0..len).map(|index| endpoint(index, &mut slab)).collect();
    Pool {
        key: PoolKey::of(&gateway, &model),
        signature: len as u64,
        gateway,
        model,
        slots: SlotMap::new(endpoints.iter().map(|endpoint| endpoint.state.slot)),
        ring: Arc::new(LazyRing::default()),
        endpoints,
        chain: Chain::new(entries),
        state: Arc::new(PoolState::default()),
    }
}

fn endpoint(index: usize, slab: &mut Slab) -> Endpoint {
    let url = format!("http://10.0.{}.{}:8000", index / 250, index % 250);
    let spec = EndpointSpec::at(&url).expect("a URL");
    Endpoint { spec: Arc::new(spec), state: Arc::new(EndpointState::in_slab(index as u32 + 1, slab)) }
}

/// Resident memory of this process, KiB; 0 where the system does not say.
fn resident_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
