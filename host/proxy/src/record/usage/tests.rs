use super::*;

fn usage(prompt_tokens: u64, cached_tokens: impl Into<Option<u64>>, completion_tokens: u64) -> Option<Usage> {
    let cached_tokens = cached_tokens.into();
    Some(Usage { prompt_tokens, cached_tokens, completion_tokens })
}

fn watched(shape: Shape, body: &[u8], chunk: usize) -> UsageWatch {
    let mut watch = UsageWatch::new(shape);
    body.chunks(chunk).for_each(|chunk| watch.feed(chunk));
    watch
}

#[test]
fn usage_of_every_api_is_read_however_it_is_cut() {
    let table = [
        (
            r#"{"id":"1","usage":{"prompt_tokens":5,"total_tokens":9,"completion_tokens":4}}"#,
            usage(5, None, 4),
        ),
        (
            r#"{"usage" : { "prompt_tokens" : 5 , "prompt_tokens_details":{"cached_tokens":3}} , "x":null}"#,
            usage(5, 3, 0),
        ),
        (r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}"#, usage(5, None, 0)),
        (r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}}"#, usage(5, 0, 0)),
        (
            r#"{"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":1}}"#,
            usage(7, 2, 1),
        ),
        (r#"{"usage":{"input_tokens":7,"cache_read_input_tokens":6,"output_tokens":1}}"#, usage(13, 6, 1)),
        (r#"{"usage":{"prompt_tokens":5}, "error":"\"usage\": {"}"#, usage(5, None, 0)),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":{}}"#, None),
        (r#"{"choices":["\"usage\":{\"prompt_tokens\":5}"]}"#, None),
        ("", None),
    ];
    for (body, expected) in table {
        for chunk in [1, 7, 4096] {
            assert_eq!(watched(Shape::Json, body.as_bytes(), chunk).usage(), expected, "{body} by {chunk}");
        }
    }
}

#[test]
fn the_last_event_with_usage_counts_and_events_are_counted() {
    let mut body = String::new();
    for _ in 0..100 {
        body += "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}\n\n";
    }
    body += "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":100}}\n\ndata: [DONE]\n\n";
    for chunk in [1, 2, 3, 61, 5000] {
        let watch = watched(Shape::Events, body.as_bytes(), chunk);
        assert_eq!((watch.usage(), watch.events()), (usage(9, None, 100), 102), "by {chunk}");
    }
    let crlf = body.replace('\n', "\r\n");
    for chunk in [1, 2, 3, 61] {
        assert_eq!(watched(Shape::Events, crlf.as_bytes(), chunk).events(), 102, "CRLF by {chunk}");
    }
    let named = "event: a\ndata: 1\n\n\n: comment\n\ndata: half";
    assert_eq!(watched(Shape::Events, named.as_bytes(), 4).events(), 2, "blank lines are no events");
}

/// B5: `usage` is found wherever it stands among the members, however many follow, and nothing long is kept.
#[test]
fn usage_is_read_at_any_place_and_what_is_kept_is_bounded() {
    let long =
        format!(r#""x":"{}","n":[{}0]"#, "\\\"x\\\\".repeat(4_000), "1.5,{\"usage\":[]},".repeat(4_000));
    let counts = r#""usage":{"prompt_tokens":5,"completion_tokens":2}"#;
    let bodies = [
        format!("{{{long},{counts}}}"),
        format!("{{{counts},{long}}}"),
        format!("{{{long},{counts},{long}}}"),
    ];
    for body in &bodies {
        for (shape, text) in [
            (Shape::Json, body.clone()),
            (Shape::Lines, format!("{{}}\n{body}\n{{}}\n")),
            (Shape::Events, format!("data: {{}}\n\nevent: a\ndata: {body}\n\ndata: [DONE]\n\n")),
        ] {
            for chunk in [1, 100, 4_095, 4_096, 9_000, 1 << 21] {
                let mut watch = UsageWatch::new(shape);
                for chunk in text.as_bytes().chunks(chunk) {
                    watch.feed(chunk);
                    assert!(watch.kept.capacity() <= 4 * KEPT_BYTES_MAX, "{shape:?} by {chunk:?}");
                }
                assert_eq!(watch.usage(), usage(5, None, 2), "{shape:?} by {chunk}");
            }
        }
    }
    let watch = watched(Shape::Other, bodies[0].as_bytes(), 100);
    assert_eq!((watch.usage(), watch.kept.capacity()), (None, 0));
}

/// B5: a `usage` of something inside the answer is not the answer's, wherever it stands.
#[test]
fn a_nested_usage_does_not_win() {
    let nested = r#""choices":[{"usage":{"prompt_tokens":99},"message":{"usage":{"prompt_tokens":98}}}]"#;
    let deep = r#""tools":{"message":{"usage":{"prompt_tokens":97}}},"x":["usage",{"prompt_tokens":96}]"#;
    let text = r#""text":"\"usage\":{\"prompt_tokens\":95}","\"usage":{"prompt_tokens":94}"#;
    let counts = r#""usage":{"prompt_tokens":5,"usage":{"prompt_tokens":93}}"#;
    for other in [nested, deep, text] {
        for (body, expected) in [
            (format!("{{{counts},{other}}}"), usage(5, None, 0)),
            (format!("{{{other},{counts}}}"), usage(5, None, 0)),
            (format!("{{{other}}}"), None),
            (format!("[{{{counts}}}]"), None),
        ] {
            for (shape, text) in [
                (Shape::Json, body.clone()),
                (Shape::Json, format!("{body}{}", " ".repeat(KEPT_BYTES_MAX))),
                (Shape::Events, format!("data: {body}\n\ndata: [DONE]\n\n")),
            ] {
                for chunk in [1, 7, 1 << 20] {
                    assert_eq!(watched(shape, text.as_bytes(), chunk).usage(), expected, "{text} by {chunk}");
                }
            }
        }
    }
}

/// B5: each API's own way to tell its counts, in one piece and as the last line of a stream.
#[test]
fn counts_of_every_api_are_understood() {
    let table = [
        // vLLM, Jina, Voyage, llama.cpp: reranking, scores, embeddings.
        (r#"{"id":"r","model":"m","usage":{"total_tokens":56},"results":[{"index":0}]}"#, usage(56, None, 0)),
        (
            r#"{"usage":{"prompt_tokens":0,"total_tokens":56,"completion_tokens":0},"data":[]}"#,
            usage(56, None, 0),
        ),
        (
            r#"{"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0,"prompt_tokens_details":null}}"#,
            usage(9, None, 0),
        ),
        // Cohere.
        (r#"{"results":[],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1}}}"#, None),
        (
            r#"{"meta":{"tokens":{"input_tokens":12.0,"output_tokens":3},"billed_units":{"input_tokens":10}}}"#,
            usage(12, None, 3),
        ),
        (r#"{"usage":{"billed_units":{"input_tokens":10,"output_tokens":2}}}"#, usage(10, None, 2)),
        // Anthropic: neither what was read from a cache nor what was written to it is part of the input.
        (
            r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":4}}"#,
            usage(123, 100, 4),
        ),
        (
            r#"{"usage":{"input_tokens":0,"cache_read_input_tokens":100,"output_tokens":4}}"#,
            usage(100, 100, 4),
        ),
        // A proxy that adds Anthropic's names to OpenAI's.
        (
            r#"{"usage":{"prompt_tokens":120,"cache_read_input_tokens":100,"completion_tokens":4}}"#,
            usage(120, 100, 4),
        ),
        (
            r#"{"usage":{"input_tokens":120,"cache_read_input_tokens":100,"output_tokens":4,"total_tokens":124}}"#,
            usage(120, 100, 4),
        ),
        // DeepSeek, Moonshot, SGLang, Ollama.
        (
            r#"{"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}}"#,
            usage(9, 8, 0),
        ),
        (r#"{"usage":{"prompt_tokens":9,"cached_tokens":7}}"#, usage(9, 7, 0)),
        (
            r#"{"text":"x","meta_info":{"id":"1","prompt_tokens":9,"completion_tokens":2,"cached_tokens":4}}"#,
            usage(9, 4, 2),
        ),
        (r#"{"done":true,"prompt_eval_count":26,"eval_count" : 298}"#, usage(26, None, 298)),
        // Never more than there is.
        (r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":16}}}"#, usage(5, 5, 0)),
        (r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"7","total_tokens":1.5}}"#, None),
    ];
    for (body, expected) in table {
        for (shape, text) in [
            (Shape::Json, body.to_owned()),
            (Shape::Json, format!(r#"{{"pad":"{}",{}"#, "x".repeat(KEPT_BYTES_MAX), &body[1..])),
            (Shape::Lines, format!("{{\"done\":false}}\n{body}\n")),
            (Shape::Events, format!("data: {{}}\n\ndata:{body}\n\ndata: [DONE]\n\n")),
        ] {
            if shape == Shape::Events && !body.contains("usage") {
                continue;
            }
            for chunk in [1, 7, 1 << 20] {
                assert_eq!(watched(shape, text.as_bytes(), chunk).usage(), expected, "{text} by {chunk}");
            }
        }
    }
}

/// B5: a stream of the messages API tells the prompt at its start and what was generated at its end.
#[test]
fn the_messages_api_tells_its_counts_in_two_events() {
    let start = r#"event: message_start
data: {"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":25,"cache_read_input_tokens":100,"output_tokens":1}}}

event: ping
data: {"type":"ping"}

"#;
    let middle =
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n";
    let end = |counts: &str| {
        format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{counts}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        )
    };
    for (counts, expected) in [
        (r#"{"output_tokens":15}"#, usage(125, 100, 15)),
        (r#"{"input_tokens":0,"output_tokens":15}"#, usage(125, 100, 15)),
        (r#"{"input_tokens":26,"cache_read_input_tokens":100,"output_tokens":15}"#, usage(126, 100, 15)),
    ] {
        for length in [0, 1, 1_000] {
            let body = start.to_owned() + &middle.repeat(length) + &end(counts);
            for chunk in [1, 61, 5_000, 1 << 20] {
                let watch = watched(Shape::Events, body.as_bytes(), chunk);
                assert_eq!(watch.usage(), expected, "{counts}, {length} by {chunk}");
            }
        }
    }
    let cut = start.to_owned() + &middle.repeat(1_000);
    assert_eq!(watched(Shape::Events, cut.as_bytes(), 100).usage(), usage(125, 100, 1), "a client that left");
}

/// B5: a stream of the responses API tells its counts in its last event, inside the whole response.
#[test]
fn the_responses_api_tells_its_counts_inside_its_last_event() {
    for output in [10, 100_000] {
        let body = format!(
            "event: response.created\ndata: {{\"response\":{{\"usage\":null}}}}\n\nevent: response.completed\n\
             data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"text\":\"{0}\"}}],\"usage\":{{\
             \"input_tokens\":36,\"input_tokens_details\":{{\"cached_tokens\":16}},\"output_tokens\":87,\"total_tokens\":123}},\
             \"user\":null,\"metadata\":{{\"x\":\"{0}\"}}}},\"sequence_number\":9}}\n\n",
            "y".repeat(output)
        );
        for chunk in [1, 61, 5_000, 1 << 20] {
            assert_eq!(
                watched(Shape::Events, body.as_bytes(), chunk).usage(),
                usage(36, 16, 87),
                "{output} by {chunk}"
            );
        }
    }
}

#[test]
fn shapes_follow_content_type_and_coding() {
    let table = [
        (&[("content-type", "application/json; charset=utf-8")][..], Shape::Json),
        (&[("content-type", "Text/Event-Stream")], Shape::Events),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], Shape::Other),
        (&[("content-type", "application/x-ndjson")], Shape::Lines),
        (&[("content-type", "audio/wav")], Shape::Other),
        (&[], Shape::Other),
    ];
    for (headers, expected) in table {
        let map = headers
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        assert_eq!(Shape::of(&map), expected, "{headers:?}");
    }
}
