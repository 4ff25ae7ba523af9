//! Tables, the captured page of a real engine, and random bytes beside a naive oracle.

use proptest::prelude::*;

use super::*;
use crate::observe::LINE_BYTES_MAX;

const CAPTURED: &str = include_str!("../../../tests/fixtures/vllm_0.32_metrics.txt");

fn read(page: &str) -> EngineReading {
    let mut scanner = Scanner::default();
    scanner.feed(page.as_bytes());
    scanner.finish()
}

#[test]
fn every_engine_dialect_reads_as_the_same_numbers() {
    let numbers = |queued, running, kv_usage| EngineReading {
        queued: Some(queued),
        running: Some(running),
        kv_usage: Some(kv_usage),
        ..EngineReading::default()
    };
    let table = [
        (
            "vllm:num_requests_waiting 3\nvllm:num_requests_running 2\nvllm:kv_cache_usage_perc 0.5\n",
            numbers(3., 2., 0.5),
        ),
        (
            "vllm:num_requests_waiting 3\nvllm:num_requests_running 2\nvllm:gpu_cache_usage_perc 0.5\n",
            numbers(3., 2., 0.5),
        ),
        (
            "sglang:num_queue_reqs{tp=\"0\"} 4\nsglang:num_running_reqs 1\nsglang:token_usage .25",
            numbers(4., 1., 0.25),
        ),
        (
            "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 0\ntrtllm_kv_cache_utilization 0",
            numbers(1., 0., 0.),
        ),
        (
            "llamacpp:requests_deferred 7\nllamacpp:requests_processing 1\nllamacpp:kv_cache_usage_ratio 1",
            numbers(7., 1., 1.),
        ),
    ];
    for (page, expected) in table {
        assert_eq!(read(page), expected, "{page}");
    }
}

#[test]
fn running_and_waiting_are_summed_over_label_sets_and_usage_is_the_highest() {
    let reading = read(
        "vllm:num_requests_running{model_name=\"a\"} 2.0\nvllm:num_requests_running{model_name=\"b\"} 3.0\n\
         vllm:num_requests_waiting{engine=\"0\"} 1\nvllm:num_requests_waiting{engine=\"1\"} 1\n\
         vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.9\n",
    );
    assert_eq!((reading.running, reading.queued, reading.kv_usage), (Some(5.0), Some(2.0), Some(0.9)));
}

#[test]
fn old_and_new_names_on_one_page_are_not_added_up() {
    let reading = read(
        "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.4\n\
         vllm:gpu_prefix_cache_hits_total 10\nvllm:prefix_cache_hits_total 20\n\
         vllm:gpu_prefix_cache_queries_total 40\nvllm:prefix_cache_queries_total 80\n",
    );
    assert_eq!(reading.kv_usage, Some(0.4));
    assert_eq!((reading.prefix_hits, reading.prefix_queries), (Some(20.0), Some(80.0)));
    assert_eq!(reading.prefix_hit_rate, Some(0.25));
}

#[test]
fn what_is_no_number_is_unknown() {
    for value in ["NaN", "", " ", "+Inf", "-1", "abc", "1e", "0x10", "{}", "# 1"] {
        let reading = read(&format!("vllm:num_requests_waiting {value}\nvllm:num_requests_running 1\n"));
        assert_eq!((reading.queued, reading.running), (None, Some(1.0)), "{value:?}");
    }
    assert_eq!(read("vllm:kv_cache_usage_perc 37.5").kv_usage, None, "a percentage is not a share");
    assert_eq!(read("vllm:kv_cache_usage_perc 1.000001").kv_usage, Some(1.0));
    assert_eq!(
        read("vllm:prefix_cache_hits_total 0\nvllm:prefix_cache_queries_total 0").prefix_hit_rate,
        None
    );
}

#[test]
fn labels_may_hold_braces_quotes_and_backslashes() {
    for labels in
        [r#"{a="}"}"#, r#"{a="\"}"}"#, r#"{a="\\"}"#, r#"{a="x{y",b="z"}"#, "{}", r#"{ a = "b" , }"#]
    {
        assert_eq!(
            read(&format!("vllm:num_requests_waiting{labels} 5 1700000000")).queued,
            Some(5.0),
            "{labels}"
        );
    }
    for broken in [r#"{a="b"#, r#"{a="b\"}"#, "["] {
        assert_eq!(read(&format!("vllm:num_requests_waiting{broken} 5")).queued, None, "{broken}");
    }
}

#[test]
fn names_are_compared_whole() {
    let reading =
        read("vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 9\nxvllm:num_requests_waiting 9\n");
    assert_eq!(reading, EngineReading::default());
}

#[test]
fn acceptance_is_accepted_over_proposed_tokens() {
    let reading =
        read("vllm:spec_decode_num_accepted_tokens_total 30\nvllm:spec_decode_num_draft_tokens_total 40\n");
    assert_eq!(reading.acceptance, Some(0.75));
}

#[test]
fn the_page_of_a_real_engine_is_read() {
    let reading = read(CAPTURED);
    assert_eq!((reading.queued, reading.running, reading.kv_usage), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!((reading.prefix_hits, reading.prefix_queries), (Some(736.0), Some(1525.0)));
    assert_eq!(reading.prefix_hit_rate, Some(736.0 / 1525.0));
    assert_eq!((reading.kv_blocks, reading.kv_bytes), (Some(60.0), Some(1_073_741_824.0)));
}

#[test]
fn a_line_without_end_is_skipped_and_costs_no_memory() {
    let mut scanner = Scanner::default();
    for _ in 0..1_000 {
        scanner.feed(&[b'x'; 4096]);
        assert!(scanner.lines.capacity() <= 2 * LINE_BYTES_MAX);
    }
    scanner.feed(b"\nvllm:num_requests_waiting 2\n");
    assert_eq!(scanner.finish().queued, Some(2.0));
}

/// The slow and obvious way, for well-formed pages without escapes in labels.
fn naive(page: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
            let value: f64 = rest.strip_prefix(' ')?.split(' ').next()?.parse().ok()?;
            (value.is_finite() && value >= 0.0).then_some(value)
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("vllm:num_requests_waiting"),
        Just("vllm:num_requests_running"),
        Just("vllm:prefix_cache_hits_total"),
        Just("# HELP vllm:num_requests_running"),
        Just("other_metric"),
    ];
    let labels = prop_oneof![Just(""), Just("{a=\"b\"}"), Just("{a=\"b\",c=\"d e\"}")];
    let value = prop_oneof![
        (0u32..1000).prop_map(|v| v.to_string()),
        (0.0f64..1e9).prop_map(|v| v.to_string()),
        Just("NaN".to_owned()),
        Just("-3".to_owned()),
        Just("12 1700000000000".to_owned()),
        Just(String::new()),
    ];
    (name, labels, value).prop_map(|(name, labels, value)| format!("{name}{labels} {value}"))
}

proptest! {
    #[test]
    fn agrees_with_the_naive_reading_however_the_page_is_cut(
        lines in prop::collection::vec(line(), 0..40),
        cuts in prop::collection::vec(1usize..50, 1..20),
    ) {
        let page = lines.join("\n");
        let mut scanner = Scanner::default();
        let (mut rest, mut cut) = (page.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cut.next().expect("endless")).min(rest.len()));
            scanner.feed(piece);
            rest = after;
        }
        let reading = scanner.finish();
        prop_assert_eq!(reading.queued, naive(&page, "vllm:num_requests_waiting").map(|v| v as f32));
        prop_assert_eq!(reading.running, naive(&page, "vllm:num_requests_running").map(|v| v as f32));
        prop_assert_eq!(reading.prefix_hits, naive(&page, "vllm:prefix_cache_hits_total"));
    }

    #[test]
    fn random_bytes_never_panic_and_never_give_a_number_out_of_range(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut scanner = Scanner::default();
        scanner.feed(&bytes);
        let reading = scanner.finish();
        prop_assert!(reading.kv_usage.is_none_or(|share| (0.0..=1.0).contains(&share)));
    }

    #[test]
    fn a_mutilated_real_page_never_panics(at in 0usize..60_000, byte in any::<u8>(), end in 0usize..60_000) {
        let mut page = CAPTURED.as_bytes().to_vec();
        let at = at % page.len();
        page[at] = byte;
        page.truncate(end % page.len());
        let mut scanner = Scanner::default();
        scanner.feed(&page);
        let reading = scanner.finish();
        for value in [reading.queued, reading.running].into_iter().flatten() {
            prop_assert!(value.is_finite() && value >= 0.0);
        }
    }
}
