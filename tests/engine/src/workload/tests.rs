use std::io::Write as _;

use super::*;

fn percentile(mut values: Vec<u32>, share: f64) -> f64 {
    values.sort_unstable();
    f64::from(values[(share * values.len() as f64) as usize])
}

fn near(what: &str, value: f64, expected: f64, tolerance: f64) {
    let off = (value / expected - 1.0).abs();
    assert!(off <= tolerance, "{what}: {value} is {:.1} % off {expected}", 100.0 * off);
}

fn shape(seed: u64) -> Shape {
    Shape { requests: 2_000, requests_per_second: 5.0, seed }
}

#[test]
fn mooncake_like_workload_has_the_published_statistics() {
    for seed in [1, 2] {
        let workload = mooncake(Mooncake { seed, ..Mooncake::default() });
        let of = |field: fn(&Request) -> u32| workload.requests.iter().map(field).collect::<Vec<_>>();
        near("requests", workload.requests.len() as f64, 12_031.0, 0.03);
        near("input p50", percentile(of(|r| r.prompt_tokens), 0.5), 6_909.0, 0.1);
        near("input p90", percentile(of(|r| r.prompt_tokens), 0.9), 27_367.0, 0.1);
        near("output p50", percentile(of(|r| r.output_tokens), 0.5), 350.0, 0.05);
        near("output p90", percentile(of(|r| r.output_tokens), 0.9), 597.0, 0.05);
        near("hit rate", workload.hit_rate_max(), 0.366, 0.06);
        let first = workload.requests[0].blocks[0];
        assert!(workload.requests.iter().all(|r| r.blocks[0] == first), "block 0 is in every request");
        let stamps: HashSet<Duration> = workload.requests.iter().map(|r| r.arrival).collect();
        near("distinct arrivals", stamps.len() as f64, 1_180.0, 0.05);
    }
}

#[test]
fn shorter_mooncake_like_workload_keeps_its_hit_rate() {
    let workload = mooncake(Mooncake { requests: 1_500, requests_per_second: 20.0, seed: 3 });
    near("hit rate", workload.hit_rate_max(), 0.366, 0.15);
    near("span", workload.span().as_secs_f64(), 75.0, 0.05);
}

#[test]
fn workloads_are_the_same_for_a_seed_and_differ_between_seeds() {
    for make in [chats, shared_system, tenants, agentic] {
        assert_eq!(make(shape(1)), make(shape(1)));
        assert_ne!(make(shape(1)), make(shape(2)));
    }
    let short = Mooncake { requests: 1_000, ..Mooncake::default() };
    assert_eq!(mooncake(short), mooncake(short));
}

#[test]
fn workloads_have_the_rate_and_size_asked_for_and_follow_only_earlier_requests() {
    for make in [chats, shared_system, tenants, agentic] {
        let workload = make(shape(7));
        assert_eq!(workload.requests.len(), 2_000, "{}", workload.name);
        near(&workload.name, workload.requests.len() as f64 / workload.span().as_secs_f64(), 5.0, 0.2);
        for (at, request) in workload.requests.iter().enumerate() {
            assert!(request.follows.is_none_or(|before| before < at));
            assert_eq!(request.blocks.len() as u32, request.prompt_tokens.div_ceil(workload.block_tokens));
            if let Some(before) = request.follows {
                let before = &workload.requests[before];
                assert!(request.blocks.starts_with(&before.blocks[..before.blocks.len() - 1]));
            }
        }
    }
}

#[test]
fn each_synthetic_workload_shares_what_it_says() {
    let system = shared_system(shape(1));
    let first = &system.requests[0].blocks[..64];
    assert!(system.requests.iter().all(|r| r.blocks.starts_with(first)));
    let tenants = tenants(shape(1));
    let top = tenants.requests.iter().filter(|r| r.tenant == 1).count() as f64 / 2_000.0;
    near("share of the first of 256 tenants", top, 1.0 / 6.12, 0.15);
    for (workload, least, most) in [
        (chats(shape(1)), 0.6, 0.85),
        (system, 0.8, 0.97),
        (tenants, 0.75, 0.98),
        (agentic(shape(1)), 0.8, 0.97),
    ] {
        let rate = workload.hit_rate_max();
        assert!((least..=most).contains(&rate), "{}: {rate}", workload.name);
    }
}

#[test]
fn text_shares_bytes_exactly_as_far_as_ids_agree() {
    let workload = mooncake(Mooncake { requests: 300, requests_per_second: 3.4, seed: 1 });
    for scale in [1, 16] {
        for pair in workload.requests.windows(2) {
            let shared = pair[0].blocks.iter().zip(pair[1].blocks.iter()).take_while(|(a, b)| a == b).count();
            let [a, b] = [0, 1].map(|i| workload.text(&pair[i], scale));
            let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            let expected = (shared * 2_048 / scale as usize).min(a.len()).min(b.len());
            // Numbers of two blocks may begin with the same digits.
            assert!((expected..expected + 4).contains(&same), "{shared} blocks, {same} bytes");
        }
    }
    let request = &workload.requests[0];
    assert_eq!(workload.text(request, 16).len(), (request.prompt_tokens / 4) as usize);
    let body: serde_json::Value =
        serde_json::from_slice(&workload.chat_body(request, 16, ("m", true))).unwrap();
    assert_eq!(body["messages"][0]["content"], workload.text(request, 16));
}

#[test]
fn trace_is_read_plain_or_compressed_and_a_bad_line_is_named() {
    let lines = "{\"timestamp\": 3000, \"input_length\": 1000, \"output_length\": 5, \"hash_ids\": [0, 7]}\n\
        {\"timestamp\": 0, \"input_length\": 500, \"output_length\": 0, \"hash_ids\": [0], \"more\": 1}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    for bytes in [lines.as_bytes().to_vec(), gzip.finish().unwrap()] {
        let workload = read(&bytes).unwrap();
        assert_eq!(workload.requests[0].arrival, Duration::ZERO, "sorted by arrival");
        assert_eq!((workload.requests[1].session, &*workload.requests[1].blocks), (7, &[0, 7][..]));
        assert_eq!(workload.requests[0].output_tokens, 1);
    }
    assert!(matches!(read(format!("{lines}nonsense").as_bytes()), Err(TraceError::Line { number: 3, .. })));
}

fn read(bytes: &[u8]) -> Result<Workload, TraceError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    read_trace(file.path())
}
