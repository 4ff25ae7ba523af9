use std::time::Duration;

use domain::assemble::Assembler;
use domain::endpoint::EngineReading;
use domain::name::Generation;
use domain::outcome::{Ending, Outcome, Usage};
use domain::policy::{EntryTrace, Fault, Step};
use domain::published::{Publisher, published};
use domain::snapshot::Snapshot;
use prometheus::{Registry, TextEncoder};

use super::*;
use crate::fixture;
use crate::record::cells::FAILURES;
use crate::record::{Decision, End, Recorder};

struct World {
    publisher: Publisher,
    published: Published,
    registry: Registry,
    board: Arc<Board>,
}

fn world(snapshot: Arc<Snapshot>) -> World {
    let (publisher, published) = published();
    publisher.publish(snapshot);
    let (registry, board) = (Registry::new(), Board::new());
    let index = Arc::new(PrefixIndex::new(1 << 20));
    let sources = Sources { published: published.clone(), epoch: Instant::now(), prefix_index: Some(index) };
    registry.register(Box::new(Collector::new(Arc::clone(&board), sources))).unwrap();
    World { publisher, published, registry, board }
}

impl World {
    fn page(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

const URLS: [&str; 2] = ["http://10.0.0.1:8000", "http://10.0.0.2:8000"];

fn snapshot(assembler: &mut Assembler, urls: &[&str]) -> Arc<Snapshot> {
    let endpoints: Vec<_> = urls.iter().map(|url| fixture::endpoint(url, "")).collect();
    let routes = vec![
        fixture::route_with_chain("m", &endpoints, &["session-affinity", "prefix-hash"]),
        fixture::route("empty", &[]),
    ];
    fixture::snapshot(assembler, vec![fixture::gateway("g", routes)])
}

/// One request of each worker through the first endpoint, told as the request path tells it.
fn traffic(recorder: &Recorder, snapshot: &Snapshot) {
    let pool = snapshot.gateways[0].route("m").map(|route| Arc::clone(&route.pool)).unwrap();
    recorder.incoming(Some(&"m".into()));
    recorder.incoming(None);
    let trace = |entry, step| EntryTrace { entry, step, fuel: 100, nanoseconds: 1_500 };
    recorder.decided(&Decision {
        request_id: "id",
        pool: &pool,
        generation: Generation(1),
        attempt: 0,
        candidates: 2,
        prompt_tokens: 100,
        cached_tokens: 25,
        endpoint: Some(0),
        traces: &[trace(0, Step::Fault(Fault::Trap)), trace(1, Step::Chose(0))],
        took: Duration::from_micros(4),
        seen: &crate::explain::Seen::default(),
    });
    let mut attempt = recorder.attempt(&pool, &pool.endpoints[0], 0);
    attempt.first_byte();
    let outcome = Outcome {
        ending: Ending::Answered { status: 200 },
        attempts: 2,
        request_bytes: 10,
        response_bytes: 20,
        chunks: 2,
        duration: Duration::from_millis(1_000),
        first_byte: Some(Duration::from_millis(100)),
        decision: Duration::from_micros(4),
        usage: Some(Usage { prompt_tokens: 7, cached_tokens: Some(4), completion_tokens: 10 }),
    };
    recorder.finished(&End {
        request_id: "id",
        operation: "chat_completions",
        gateway: Some(&snapshot.gateways[0].name),
        model: Some(&pool.model),
        attempt: Some(&attempt),
        events: 10,
        outcome: &outcome,
        now_ms: 0,
    });
}

/// D32: the names that dashboards know are there, and workers add up.
#[test]
fn the_page_has_every_name_with_its_labels_and_adds_workers_up() {
    let mut assembler = Assembler::default();
    let snapshot = snapshot(&mut assembler, &URLS);
    let world = world(Arc::clone(&snapshot));
    let reading = EngineReading {
        queued: Some(3.0),
        kv_usage: Some(0.5),
        prefix_hits: Some(30.0),
        prefix_queries: Some(40.0),
        ..EngineReading::default()
    };
    snapshot.endpoints[0].state.store_reading(&reading, 1);
    let recorders = [Recorder::new(&world.board, 0), Recorder::new(&world.board, 1)];
    recorders.iter().for_each(|recorder| traffic(recorder, &snapshot));
    let waiting = recorders[0].attempt(&snapshot.pools[0], &snapshot.pools[0].endpoints[1], 0);
    let page = world.page();
    let lines = [
        r#"vllm:num_requests_running{server="http://10.0.0.1:8000"} 0"#,
        r#"vllm:num_requests_running{server="http://10.0.0.2:8000"} 1"#,
        r#"vllm:num_prefill_requests{server="http://10.0.0.2:8000"} 1"#,
        r#"vllm:num_decoding_requests{server="http://10.0.0.2:8000"} 0"#,
        r#"vllm:num_requests_waiting{server="http://10.0.0.1:8000"} 3"#,
        r#"vllm:current_qps{server="http://10.0.0.1:8000"} 0.03333333333333333"#,
        r#"vllm:avg_decoding_length{server="http://10.0.0.1:8000"} 10"#,
        r#"vllm:avg_latency{server="http://10.0.0.1:8000"} 1"#,
        r#"vllm:avg_latency{server="http://10.0.0.2:8000"} -1"#,
        r#"vllm:avg_itl{server="http://10.0.0.1:8000"} 0.1"#,
        r#"vllm:num_requests_swapped{server="http://10.0.0.1:8000"} 0"#,
        r#"vllm:gpu_prefix_cache_hit_rate{server="http://10.0.0.1:8000"} 0.75"#,
        r#"vllm:gpu_prefix_cache_hits_total{server="http://10.0.0.1:8000"} 30"#,
        r#"vllm:gpu_prefix_cache_queries_total{server="http://10.0.0.1:8000"} 40"#,
        r#"vllm:healthy_pods_total{server="http://10.0.0.1:8000"} 1"#,
        r#"vllm:num_incoming_requests_total{model="m"} 2"#,
        r#"vllm:num_incoming_requests_total{model="empty"} 0"#,
        r#"vllm:num_incoming_requests_total{model="other"} 2"#,
        r#"vllm:input_tokens_total{server="http://10.0.0.1:8000",model="m"} 14"#,
        r#"vllm:output_tokens_total{server="http://10.0.0.1:8000",model="m"} 20"#,
        r#"vllm:request_latency_seconds_bucket{server="http://10.0.0.1:8000",model="m",status="success",le="0.5"} 0"#,
        r#"vllm:request_latency_seconds_bucket{server="http://10.0.0.1:8000",model="m",status="success",le="1"} 2"#,
        r#"vllm:request_latency_seconds_bucket{server="http://10.0.0.1:8000",model="m",status="success",le="120"} 2"#,
        r#"vllm:request_latency_seconds_count{server="http://10.0.0.1:8000",model="m",status="error"} 0"#,
        r#"wicketgate_policy_decisions_total{gateway="default/g",model="m",policy="prefix-hash",result="chose"} 2"#,
        r#"wicketgate_policy_faults_total{gateway="default/g",model="m",policy="session-affinity",reason="trap"} 2"#,
        r#"wicketgate_policy_fuel_total{gateway="default/g",model="m",policy="prefix-hash"} 200"#,
        r#"wicketgate_policy_decision_seconds_count{gateway="default/g",model="m",policy="prefix-hash"} 2"#,
        r#"production_stack_route_decisions_total{gateway="default/g",model="m",strategy="prefix-hash",reason="prefix_hit"} 2"#,
        r#"production_stack_prefix_match_ratio{gateway="default/g",model="m"} 0.25"#,
        r#"wicketgate_requests_total{code="200"} 2"#,
        "wicketgate_retries_total 2",
        "wicketgate_generation 1",
        r#"wicketgate_gateway_requests_in_flight{gateway="default/g"} 0"#,
        "wicketgate_prefix_index_entries 0",
        "router_cpu_usage_percent ",
        "router_memory_usage_percent ",
        "router_disk_usage_percent ",
    ];
    for line in lines {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{page}");
    }
    assert!(page.contains("vllm:num_incoming_requests_created{model=\"m\"} "));
    assert!(page.contains("# TYPE vllm:num_incoming_requests_total counter"));
    assert!(page.contains("# TYPE vllm:request_latency_seconds histogram"));
    assert!(
        !page.contains(r#"vllm:num_requests_waiting{server="http://10.0.0.2:8000"}"#),
        "unknown is absent, not 0"
    );
    drop(waiting);
}

/// D32.
#[test]
fn a_vanished_engine_vanishes_from_the_page() {
    let mut assembler = Assembler::default();
    let first = snapshot(&mut assembler, &URLS);
    let world = world(Arc::clone(&first));
    let recorder = Recorder::new(&world.board, 0);
    traffic(&recorder, &first);
    assert!(world.page().contains(r#"vllm:input_tokens_total{server="http://10.0.0.1:8000",model="m"} 7"#));
    let second = snapshot(&mut assembler, &URLS[1..]);
    world.publisher.publish(Arc::clone(&second));
    assert!(!world.page().contains(URLS[0]), "before the worker has noticed");
    recorder.adopt(&second);
    assert!(!world.page().contains(URLS[0]) && world.page().contains(URLS[1]));
    assert_eq!(world.board.pairs.live().len(), 0);
    assert!(world.published.is_ready());
}

/// D33.
#[test]
fn a_request_for_a_model_without_engines_counts() {
    let snapshot = snapshot(&mut Assembler::default(), &URLS);
    let world = world(snapshot);
    let recorder = Recorder::new(&world.board, 0);
    recorder.incoming(Some(&"empty".into()));
    assert!(world.page().contains(r#"vllm:num_incoming_requests_total{model="empty"} 1"#));
}

/// C7: an engine that lists thousands of adapters does not make the page longer without end, and no request goes uncounted.
#[test]
fn adapters_beyond_a_bound_are_counted_together() {
    const ADAPTERS: usize = 3_000;
    let endpoints = [fixture::endpoint(URLS[0], "")];
    let adapter = |number: usize| domain::draft::RouteDraft {
        parent: Some("m".into()),
        ..fixture::route_with_chain(&format!("adapter-{number:04}"), &endpoints, &["prefix-hash"])
    };
    let mut routes = vec![fixture::route("m", &endpoints)];
    routes.extend((0..ADAPTERS).map(adapter));
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![fixture::gateway("g", routes)]);
    let world = world(Arc::clone(&snapshot));
    let recorder = Recorder::new(&world.board, 0);
    for pool in &snapshot.pools {
        recorder.incoming(Some(&pool.model));
        let mut attempt = recorder.attempt(pool, &pool.endpoints[0], 0);
        attempt.first_byte();
    }
    let page = world.page();
    let samples = |start: &str| page.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(samples("vllm:num_incoming_requests_total{"), 1 + together::ADAPTERS_MAX + 1);
    assert_eq!(samples("vllm:input_tokens_total{"), 1 + together::ADAPTERS_MAX + 1);
    let beyond = ADAPTERS - together::ADAPTERS_MAX;
    for line in [
        format!("wicketgate_models_together {beyond}"),
        format!("vllm:num_incoming_requests_total{{model=\"other\"}} {beyond}"),
        r#"vllm:num_incoming_requests_total{model="m"} 1"#.to_owned(),
        r#"vllm:num_incoming_requests_total{model="adapter-0000"} 1"#.to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn a_page_before_any_configuration_is_sound() {
    let (_publisher, published) = published();
    let registry = Registry::new();
    let sources = Sources { published, epoch: Instant::now(), prefix_index: None };
    registry.register(Box::new(Collector::new(Board::new(), sources))).unwrap();
    let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(page.contains("wicketgate_generation 0"));
}

/// `docs/metrics.md` tells operators what the page shows; `BLESS=1` writes it.
#[test]
fn the_reference_equals_the_table_of_families() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let errors: Vec<String> = FAILURES.iter().map(|label| format!("`{label}`")).collect();
    let expected = format!(
        "# Metrics\n\nWritten by `BLESS=1 cargo test -p proxy metrics`. `server` is an endpoint's URL, `gateway` is \
         `namespace/name`. Endpoints, models and gateways that are not configured any more are not shown; requests for \
         models that are not routed count under `model=\"other\"`. A number that an engine's page does not give is \
         absent.\n\n`error_type` and the `reason` of failures are one of: {}.\n\n{}",
        errors.join(", "),
        family::reference()
    );
    // The rest of the page belongs to the control plane, whose own test holds it.
    let page = std::fs::read_to_string(path).unwrap();
    let (first, second) = page.split_at(page.find("\n## Control plane\n").unwrap_or(page.len()));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{expected}{second}")).unwrap();
    } else {
        assert_eq!(first, expected, "run with BLESS=1");
    }
}
