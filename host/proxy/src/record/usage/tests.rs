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
        (r#"{"usage":{"input_tokens":7,"cache_read_input_tokens":6,"output_tokens":1}}"#, usage(7, 6, 1)),
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

#[test]
fn the_tail_is_bounded_and_holds_the_end() {
    let mut body = "x".repeat(1 << 20);
    body += r#""usage":{"prompt_tokens":5}}"#;
    for chunk in [1, 100, 4095, 4096, 9000, 1 << 21] {
        let watch = watched(Shape::Json, body.as_bytes(), chunk);
        assert_eq!(watch.usage(), usage(5, None, 0), "by {chunk}");
        assert!(watch.tail.len() <= 2 * TAIL_BYTES_MAX, "by {chunk}");
    }
    let watch = watched(Shape::Other, body.as_bytes(), 100);
    assert_eq!((watch.usage(), watch.tail.capacity()), (None, 0));
}

#[test]
fn shapes_follow_content_type_and_coding() {
    let table = [
        (&[("content-type", "application/json; charset=utf-8")][..], Shape::Json),
        (&[("content-type", "Text/Event-Stream")], Shape::Events),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], Shape::Other),
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
