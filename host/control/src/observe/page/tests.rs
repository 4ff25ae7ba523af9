//! Tables, the captured page of a real engine, and random bytes beside a naive oracle.

use proptest::prelude::*;

use super::*;
use crate::observe::LINE_BYTES_MAX;

const CAPTURED: &str = include_str!("../../../tests/fixtures/vllm_0.32_metrics.txt");

fn read(page: &str) -> EngineReading {
    let mut scanner = Scanner::default();
    scanner.feed(page.as_bytes());
    scanner.finish().unwrap_or_default()
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

/// B2: the names of TGI, Triton, LMDeploy, NIM, MindIE and of vLLM inside Ray.
#[test]
fn further_engines_are_read_as_far_as_they_have_these_numbers() {
    let triton = "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 3\n\
                  nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 2\n\
                  nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 64\n\
                  nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\",version=\"1\"} 0.5\n\
                  nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\",version=\"1\"} 800\n\
                  nv_inference_pending_request_count{model=\"m\",version=\"1\"} 9\n";
    let ray = "ray_vllm_num_requests_running{WorkerId=\"a\",ReplicaId=\"r\"} 2\n\
               ray_vllm_num_requests_waiting{WorkerId=\"a\",ReplicaId=\"r\"} 3\n\
               ray_vllm_kv_cache_usage_perc{WorkerId=\"a\"} 0.5\n\
               ray_vllm_prefix_cache_hits{WorkerId=\"a\"} 1\nray_vllm_prefix_cache_hits_total{WorkerId=\"a\"} 1\n\
               ray_vllm_prefix_cache_queries_total{WorkerId=\"a\"} 4\nray_vllm_num_requests_waiting_by_reason 7\n";
    let three = |queued, running, kv_usage| (queued, running, kv_usage);
    let table = [
        (
            "tgi_queue_size 3\ntgi_batch_current_size 2\ntgi_batch_next_size_count 5\n",
            three(Some(3.), Some(2.), None),
        ),
        (triton, three(Some(3.), Some(2.), Some(0.5))),
        ("nv_inference_pending_request_count{model=\"a\"} 3\n", three(Some(3.), None, None)),
        (
            "lmdeploy:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3\n\
             lmdeploy:num_requests_running{engine=\"0\",model_name=\"m\"} 2\n\
             lmdeploy:gpu_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.5\n",
            three(Some(3.), Some(2.), Some(0.5)),
        ),
        (
            "num_requests_waiting 3\nnum_requests_running 2\ngpu_cache_usage_perc 0.5\n",
            three(Some(3.), Some(2.), Some(0.5)),
        ),
        (
            "num_requests_waiting 3\nnum_requests_running 2\nnpu_cache_usage_perc 0.5\n",
            three(Some(3.), Some(2.), Some(0.5)),
        ),
        (ray, three(Some(3.), Some(2.), Some(0.5))),
        (
            "ray_vllm:num_requests_running 2\nray_vllm:num_requests_waiting 3\nray_vllm:gpu_cache_usage_perc 0.5\n",
            three(Some(3.), Some(2.), Some(0.5)),
        ),
    ];
    for (page, expected) in table {
        let reading = read(page);
        assert_eq!((reading.queued, reading.running, reading.kv_usage), expected, "{page}");
    }
    assert_eq!(read(triton).kv_blocks, Some(800.0));
    assert_eq!(read(ray).prefix_hit_rate, Some(0.25), "a counter under two names is one counter");
    assert_eq!(
        read("npu_cache_usage_perc 30\nnpu_prefix_cache_hit_rate 0.2\n").kv_usage,
        None,
        "a percentage"
    );
}

/// B3: a total beside its parts, and copies of ranks, are not added up; replicas of data parallelism are.
#[test]
fn totals_and_copies_count_once_and_replicas_are_summed() {
    let queued = |lines: &[(&str, u32)]| {
        let page: String = lines
            .iter()
            .map(|(labels, value)| format!("sglang:num_queue_reqs{{{labels}}} {value}\n"))
            .collect();
        read(&page).queued
    };
    let table: [(&[(&str, u32)], f32); 9] = [
        (
            &[
                (r#"model_name="m",priority="""#, 7),
                (r#"model_name="m",priority="1""#, 4),
                (r#"model_name="m",priority="2""#, 3),
            ],
            7.0,
        ),
        (&[(r#"priority="1""#, 4), (r#"priority="2""#, 3)], 7.0),
        (&[("", 7), (r#"priority="1""#, 4), (r#"priority="1",model_name="m""#, 4)], 7.0),
        (
            &[
                (r#"tp_rank="0",pp_rank="0""#, 5),
                (r#"tp_rank="1",pp_rank="0""#, 5),
                (r#"tp_rank="0",pp_rank="1""#, 6),
            ],
            6.0,
        ),
        (&[(r#"dp_rank="0",tp_rank="0""#, 5), (r#"dp_rank="1",tp_rank="1""#, 2)], 7.0),
        (&[(r#"engine="0""#, 5), (r#"engine="1""#, 2)], 7.0),
        (
            &[
                (r#"dp_rank="0",tp_rank="0",priority="""#, 5),
                (r#"dp_rank="0",tp_rank="1",priority="""#, 5),
                (r#"dp_rank="0",tp_rank="0",priority="9""#, 5),
                (r#"dp_rank="1",tp_rank="2",priority="""#, 2),
                (r#"dp_rank="1",tp_rank="3",priority="0""#, 2),
            ],
            7.0,
        ),
        (&[(r#"priority="1""#, 4), (r#"priority="""#, 7)], 7.0),
        (&[(r#"model_name="a",tp_rank="0""#, 1), (r#"model_name="b",tp_rank="0""#, 2)], 3.0),
    ];
    for (lines, expected) in table {
        assert_eq!(queued(lines), Some(expected), "{lines:?}");
    }
    let many: Vec<String> = (0..129).map(|at| format!("worker=\"{at}\"")).collect();
    let lines: Vec<(&str, u32)> = many.iter().map(|labels| (&**labels, 1)).collect();
    assert_eq!(queued(&lines[..128]), Some(128.0));
    assert_eq!(queued(&lines), None, "what is not counted whole is unknown");
}

/// B2: a page without a known number says what it was.
#[test]
fn a_page_without_a_known_number_says_what_was_found() {
    let said = |page: &str| {
        let mut scanner = Scanner::default();
        page.as_bytes().chunks(3).for_each(|piece| scanner.feed(piece));
        scanner.finish().map_err(|unread| unread.to_string())
    };
    for (page, expected) in [
        ("", "an empty page"),
        (" \n\n", "an empty page"),
        ("\n<!doctype html><p>vllm:num_requests_waiting 3", "an HTML page"),
        ("{\"detail\":\"Not Found\"}", "JSON"),
        ("ok\n", "text without metrics"),
        (
            "python_info{a=\"b\"} 1\nhttp_requests_total 7\nx 1\n",
            "metrics such as http_requests_total, none of them known",
        ),
        ("# TYPE go_info gauge\ngo_info 1\n", "metrics such as go_info, none of them known"),
    ] {
        assert_eq!(said(page), Err(expected.to_owned()), "{page}");
    }
    assert!(said("vllm:num_requests_running 0\n").is_ok());
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
    assert_eq!(scanner.finish().expect("a number").queued, Some(2.0));
}

/// The slow and obvious way, for well-formed pages without escapes in labels: the highest of each set of labels, sets that
/// hold all of another one left out, the rest added up.
fn naive(page: &str, name: &str) -> Option<f64> {
    let mut by_labels: Vec<(Vec<&str>, f64)> = Vec::new();
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (labels, rest) =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).unwrap_or(("", rest));
        let value = rest.strip_prefix(' ').and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else { continue };
        let labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        match by_labels.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, highest)) => *highest = highest.max(value),
            None => by_labels.push((labels, value)),
        }
    }
    let holds =
        |all: &[&str], few: &[&str]| few.len() < all.len() && few.iter().all(|label| all.contains(label));
    let whole = by_labels.iter().filter(|(labels, _)| !by_labels.iter().any(|(few, _)| holds(labels, few)));
    whole.map(|(_, value)| *value).reduce(|sum, value| sum + value)
}

fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("vllm:num_requests_waiting"),
        Just("vllm:num_requests_running"),
        Just("vllm:prefix_cache_hits_total"),
        Just("# HELP vllm:num_requests_running"),
        Just("other_metric"),
    ];
    let labels = prop_oneof![Just(""), Just("{a=\"b\"}"), Just("{a=\"c\"}"), Just("{a=\"b\",c=\"d e\"}")];
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
        let reading = scanner.finish().unwrap_or_default();
        prop_assert_eq!(reading.queued, naive(&page, "vllm:num_requests_waiting").map(|v| v as f32));
        prop_assert_eq!(reading.running, naive(&page, "vllm:num_requests_running").map(|v| v as f32));
        prop_assert_eq!(reading.prefix_hits, naive(&page, "vllm:prefix_cache_hits_total"));
    }

    #[test]
    fn random_bytes_never_panic_and_never_give_a_number_out_of_range(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut scanner = Scanner::default();
        scanner.feed(&bytes);
        let reading = scanner.finish().unwrap_or_default();
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
        let reading = scanner.finish().unwrap_or_default();
        for value in [reading.queued, reading.running].into_iter().flatten() {
            prop_assert!(value.is_finite() && value >= 0.0);
        }
    }
}
