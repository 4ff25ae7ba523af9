//! What each part of a decision costs. The bars are in docs/benchmarks.md.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::Index;
use control::publish::{Core, Input};
use control::source::Burst;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use domain::endpoint::EngineReading;
use domain::policy::{Call, Policies};
use domain::pool::Pool;
use domain::prefix::{PREFIX_INDEX_BYTES_DEFAULT, PrefixIndex, PromptHashes, hash_prompt};
use domain::request::{Fleet, RequestView};
use domain::signal::Signal;
use manifest::{Bundle, Change, LowerOptions, decode, lower};
use policy::{Compiler, Library, Options};
use proxy::intake::scan::scan;

#[path = "../src/routing/pool.rs"]
mod pool;

// What the gateway allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 4] = [8, 64, 512, 4_096];
const NOW_MS: u64 = 1_000;
const CHAINS: [&[pool::Link]; 7] = [
    &[("round-robin", "{}")],
    &[("least-in-flight", "{}")],
    &[("session-affinity", "{}")],
    &[("prefix-hash", "{}")],
    &[("load-aware", "{}")],
    &[("gpu-load-aware", "{}")],
    &[("session-affinity", r#"{"mode":"prefer"}"#), ("prefix-hash", "{}"), ("load-aware", "{}")],
];

/// Services, each of [`ENDPOINTS`] endpoints with a pod.
const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;

/// The slice of a service. Another `shift` means another address of its last endpoint.
fn slice(service: usize, shift: usize) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: b{service}, labels: {{kubernetes.io/service-name: b{service}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8000}}]\nendpoints:\n"
    );
    for endpoint in 0..ENDPOINTS {
        let (high, low) = (service / 256, service % 256);
        let last = if endpoint + 1 == ENDPOINTS { endpoint + shift } else { endpoint };
        let _ = writeln!(
            text,
            "  - {{addresses: [10.{high}.{low}.{last}], conditions: {{ready: true}}, nodeName: n{low}, \
             targetRef: {{kind: Pod, name: p{service}-{last}, uid: u{service}-{last}}}}}"
        );
    }
    text.push_str("---\n");
    text
}

/// Everything of a cluster of [`SERVICES`] services behind one gateway.
fn cluster() -> String {
    let mut text = String::new();
    let mut routes = String::new();
    for service in 0..SERVICES {
        let _ = writeln!(routes, "    - {{model: m{service}, inferenceServiceRef: s{service}}}");
        let _ = write!(
            text,
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: s{service}}}\n\
             spec: {{modelName: m{service}, backendRef: b{service}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: b{service}}}\n\
             spec: {{ports: [{{name: http, port: 80}}]}}\n---\n{}",
            slice(service, 0)
        );
        for endpoint in 0..ENDPOINTS {
            let _ = write!(
                text,
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{service}-{endpoint}, uid: u{service}-{endpoint}, \
                 labels: {{app: a}}}}\nstatus: {{phase: Running}}\n---\n"
            );
        }
    }
    let _ = write!(
        text,
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: g}}\nspec:\n  \
         routeStrategy: PrefixHash\n  routes:\n{routes}"
    );
    text
}

fn changes(text: &str) -> Vec<Change> {
    let file = Arc::from("m.yaml");
    let objects = text.split("---\n").flat_map(|part| decode(&file, part.as_bytes()).objects);
    objects.map(|object| Change::Applied(Arc::new(object))).collect()
}

fn burst(changes: Vec<Change>) -> [Input; 1] {
    [Input::Burst(Burst { source: "bench", changes, findings: Vec::new() })]
}

fn lowering(criterion: &mut Criterion) {
    let all = changes(&cluster());
    let mut bundle = Bundle::default();
    for change in all.clone() {
        bundle.apply(change);
    }
    let lowered = lower(&bundle, &LowerOptions::default());
    let endpoints: usize = lowered.draft.gateways[0].routes.iter().map(|route| route.endpoints.len()).sum();
    assert_eq!(endpoints, SERVICES * ENDPOINTS, "{:?}", lowered.findings.first());
    criterion.bench_function("lower 1,000 services of 10", |bencher| {
        bencher.iter(|| lower(black_box(&bundle), &LowerOptions::default()));
    });

    let library = Library::new(Options { compiler: Compiler::InProcess, ..Options::default() }).unwrap();
    let mut core = Core::new(Index::default());
    core.apply(burst(all), &library);
    let deadline = Instant::now() + Duration::from_secs(60);
    while core.is_preparing() {
        assert!(Instant::now() < deadline, "the policies get ready");
        std::thread::sleep(Duration::from_millis(10));
        core.apply([Input::Policies], &library);
    }
    let slices = [0, 1].map(|shift| changes(&slice(SERVICES / 2, shift)));
    // The first applied is the one that is not in force.
    let mut turn = 0;
    criterion.bench_function("one endpoint of 10,000 changes: next snapshot", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let assembled = core.apply(burst(slices[turn % 2].clone()), &library).expect("something new");
            assert_eq!(assembled.snapshot.endpoints.len(), SERVICES * ENDPOINTS);
            assembled
        });
    });
}

fn prompts(criterion: &mut Criterion) {
    for bytes in [1 << 10, 128 << 10] {
        let words = "the quick brown fox jumps over the lazy dog ".repeat(bytes / 44 + 1);
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}],"stream":true}}"#,
            &words[..bytes]
        );
        let size = format!("{} KiB", bytes >> 10);
        criterion.bench_function(&format!("body scan {size}"), |bencher| {
            bencher.iter(|| scan(black_box(body.as_bytes()), Some("user")).unwrap());
        });
        let lines = with_line_breaks(&body);
        criterion.bench_function(&format!("body scan {size}, line breaks"), |bencher| {
            bencher.iter(|| scan(black_box(lines.as_bytes()), Some("user")).unwrap());
        });
        let mut hashes = PromptHashes::default();
        criterion.bench_function(&format!("prefix hash {size}"), |bencher| {
            bencher.iter(|| hash_prompt(7, black_box(&words.as_bytes()[..bytes]), &mut hashes));
        });
        let pool = pool::pool(64, Vec::new());
        let index = PrefixIndex::new(PREFIX_INDEX_BYTES_DEFAULT);
        hash_prompt(7, &words.as_bytes()[..bytes], &mut hashes);
        for slot in 1..=3 {
            index.learn(pool.key.0, &hashes, slot);
        }
        let mut column = vec![0.0; 64];
        criterion.bench_function(&format!("index lookup {size}, 64 endpoints"), |bencher| {
            bencher.iter(|| index.lookup(pool.key.0, black_box(&hashes), &pool.slots, &mut column));
        });
        criterion.bench_function(&format!("index learn {size}, known"), |bencher| {
            bencher.iter(|| index.learn(pool.key.0, black_box(&hashes), 1));
        });
    }
}

/// The body with an escaped line break in place of some of its spaces, 40 to 400 bytes apart in no order.
fn with_line_breaks(body: &str) -> String {
    let mut distances = std::iter::successors(Some(1_u32), |last| Some(last.wrapping_mul(747_796_405) + 1));
    let mut broken = String::with_capacity(body.len());
    let mut left = 200;
    for char in body.chars() {
        left -= 1;
        if char == ' ' && left < 0 {
            broken.push_str("\\n");
            left = distances.next().map_or(200, |random| 40 + (random >> 16) as i32 % 360);
        } else {
            broken.push(char);
        }
    }
    broken
}

fn picks(criterion: &mut Criterion) {
    let library = Library::new(Options { compiler: Compiler::InProcess, ..Options::default() }).unwrap();
    for chain in CHAINS {
        let names: Vec<&str> = chain.iter().map(|(name, _)| *name).collect();
        let entries = pool::entries(&library, chain, &[]).unwrap();
        for len in SIZES {
            let pool = pool::pool(len, entries.clone());
            load(&pool);
            pick(criterion, (&names.join(", "), &library), &pool);
        }
    }
}

/// One decision, without and with the gather.
fn pick(criterion: &mut Criterion, (name, library): (&str, &Library), pool: &Pool) {
    let mut evaluator = library.evaluator(0);
    let mut fleet = Fleet::default();
    let signals = pool.chain.wants.signals;
    gather(&mut fleet, pool);
    let mut ticket = 0;
    let mut decide = |fleet: &Fleet| {
        ticket += 1;
        let request = request(ticket, &[1, 0, 2]);
        let verdict = evaluator.evaluate(Call { pool, request: &request, fleet });
        black_box(verdict);
    };
    let len = pool.endpoints.len();
    criterion.bench_with_input(BenchmarkId::new(format!("pick {name}"), len), &len, |bencher, _| {
        bencher.iter(|| decide(&fleet));
    });
    let mut fleet = Fleet::default();
    let name = format!("gather and pick {name}");
    criterion.bench_with_input(BenchmarkId::new(name, len), &len, |bencher, _| {
        bencher.iter(|| {
            fleet.gather(pool, signals, NOW_MS);
            decide(&fleet);
        });
    });
}

fn gathers(criterion: &mut Criterion) {
    let library = Library::new(Options { compiler: Compiler::InProcess, ..Options::default() }).unwrap();
    let entries = pool::entries(&library, CHAINS[6], &[]).unwrap();
    for len in [64, 4_096] {
        let pool = pool::pool(len, entries.clone());
        load(&pool);
        let mut fleet = Fleet::default();
        let id = BenchmarkId::new("gather session-affinity, prefix-hash, load-aware", len);
        criterion.bench_with_input(id, &len, |bencher, _| {
            bencher.iter(|| fleet.gather(black_box(&pool), pool.chain.wants.signals, NOW_MS));
        });
    }
}

/// The first decision of a worker for a pool: instance, configuration and the pool's endpoints included.
fn instantiation(criterion: &mut Criterion) {
    let library = Library::new(Options { compiler: Compiler::InProcess, ..Options::default() }).unwrap();
    let entries = pool::entries(&library, &[("prefix-hash", "{}")], &[]).unwrap();
    let pool = pool::pool(64, entries);
    load(&pool);
    let mut fleet = Fleet::default();
    gather(&mut fleet, &pool);
    criterion.bench_function("instantiate prefix-hash and pick first, 64 endpoints", |bencher| {
        bencher.iter(|| {
            let mut evaluator = library.evaluator(0);
            evaluator.evaluate(Call { pool: &pool, request: &request(0, &[1, 0, 2]), fleet: &fleet })
        });
    });
}

fn gather(fleet: &mut Fleet, pool: &Pool) {
    fleet.gather(pool, pool.chain.wants.signals, NOW_MS);
    if let Some(column) = fleet.column_mut(Signal::CachedTokens) {
        column[0] = 500.0;
    }
}

/// Engines that have said something.
fn load(pool: &Pool) {
    for (index, endpoint) in pool.endpoints.iter().enumerate() {
        let reading = EngineReading {
            queued: Some((index % 3) as f32),
            running: Some((index * 7 % 11) as f32),
            kv_usage: Some((index % 10) as f32 / 10.0),
            ..EngineReading::default()
        };
        endpoint.state.store_reading(&reading, NOW_MS);
    }
}

fn request(ticket: u64, owners: &[u32]) -> RequestView<'_> {
    RequestView {
        ticket,
        seed: ticket.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        now_ms: NOW_MS,
        attempt: 0,
        priority: 0,
        prompt_tokens: 1_000,
        output_tokens: Some(100),
        session: Some(7),
        tenant: None,
        excluded: &[],
        owners,
        prefix_hashes: &[1, 2, 3, 4, 5, 6, 7, 8],
        headers: &[],
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .without_plots()
}

criterion_group! { name = parts; config = short(); targets = lowering, prompts, gathers, picks, instantiation }
criterion_main!(parts);
