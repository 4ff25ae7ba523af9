use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scanned(body: &str) -> Scan<'_> {
    scan(body.as_bytes(), Some("session_id")).unwrap()
}

#[test]
fn the_usual_fields_are_read_and_ranges_are_raw() {
    let body = r#" {"model":"m\u00e9","messages":[{"role":"user","content":"hi \"x\""}], "stream" : true,
        "stream_options":{"x":[1],"include_usage":true},"max_tokens":7,"tools":[{}],"user":"u","priority":-3,
        "session_id":"s"}
    "#;
    let scan = scanned(body);
    assert_eq!(scan.model.as_deref(), Some("mé"));
    assert_eq!(&body[scan.prompt.clone()], r#"[{"role":"user","content":"hi \"x\""}]"#);
    assert_eq!(&body[scan.tools.clone()], "[{}]");
    assert_eq!(&body[scan.model_spans[0].clone()], r#""m\u00e9""#);
    assert!(scan.stream && scan.include_usage);
    assert_eq!((scan.max_tokens, scan.priority), (Some(7), -3));
    assert_eq!((scan.user.as_deref(), scan.session.as_deref()), (Some("u"), Some("s")));
}

#[test]
fn of_a_repeated_key_the_last_counts_and_escaped_keys_are_decoded() {
    let table = [
        (r#"{"model":"a","model":"b"}"#, Some("b"), 2),
        (r#"{"model":"a","mod\u0065l":"b"}"#, Some("b"), 2),
        (r#"{"mod\u0065l":"b","model":"a"}"#, Some("a"), 2),
        (r#"{"model":"a","model":null}"#, None, 2),
        (r#"{"model":1}"#, None, 1),
        (r#"{"model":""}"#, None, 1),
        (r#"{"x":{"model":"a"}}"#, None, 0),
        (r#"{}"#, None, 0),
        ("{ \n}", None, 0),
    ];
    for (body, model, spans) in table {
        let scan = scanned(body);
        assert_eq!((scan.model.as_deref(), scan.model_spans.len()), (model, spans), "{body}");
    }
}

/// C9.
#[test]
fn a_body_may_name_its_model_a_bounded_number_of_times() {
    let body = |times: usize| format!("{{{}\"x\":1}}", r#""model":"m","#.repeat(times));
    assert_eq!(scanned(&body(MODELS_MAX)).model_spans.len(), MODELS_MAX);
    for times in [MODELS_MAX + 1, 1_000_000] {
        let refused = Err(FailureKind::ModelRepeated { max: MODELS_MAX });
        assert_eq!(scan(body(times).as_bytes(), None), refused, "{times}");
    }
}

#[test]
fn malformed_bodies_are_told_from_other_json() {
    let not_json = [
        "",
        " ",
        "{",
        "}",
        "{]",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":tru}",
        "{\"a\":nullx}",
        "{\"a\":NaN}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{} {}",
        "{}x",
        "[",
        "[}",
        "\"a",
        "'a'",
        "\u{feff}{}",
    ];
    for body in not_json {
        assert_eq!(scan(body.as_bytes(), None), Err(FailureKind::BodyNotJson), "{body:?}");
    }
    for body in ["[]", "[{\"model\":\"a\"}]", "1", "-0.5e+3", "\"a\"", " true ", "null"] {
        assert_eq!(scan(body.as_bytes(), None), Err(FailureKind::BodyNotObject), "{body:?}");
    }
    assert_eq!(scan(b"{\"a\":\"\xff\"}", None), Err(FailureKind::BodyNotJson), "not UTF-8");
    assert_eq!(
        scan(b"{\"a\":\"\xed\xa0\x80\"}", None),
        Err(FailureKind::BodyNotJson),
        "a surrogate in UTF-8"
    );
}

#[test]
fn nesting_is_bounded_and_ten_thousand_levels_harm_nobody() {
    let nested = |levels: usize, open: &str, close: &str| {
        format!("{{\"a\":{}1{}}}", open.repeat(levels - 1), close.repeat(levels - 1))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deepest = nested(NESTING_MAX, open, close);
        assert!(scan(deepest.as_bytes(), None).is_ok(), "{open}");
        assert!(
            serde_json::from_str::<Value>(&nested(NESTING_MAX - 1, open, close)).is_ok(),
            "no stricter than others"
        );
        for levels in [NESTING_MAX + 1, 10_000, 1_000_000] {
            let body = nested(levels, open, close);
            assert_eq!(scan(body.as_bytes(), None), Err(FailureKind::BodyNotJson), "{levels} of {open}");
        }
    }
    let bare = "[".repeat(10_000);
    assert_eq!(scan(bare.as_bytes(), None), Err(FailureKind::BodyNotJson));
}

#[test]
fn numbers_are_read_with_their_precedence_and_bounds() {
    let table = [
        (r#"{"max_tokens":5}"#, Some(5), 0),
        (r#"{"max_tokens":5,"max_completion_tokens":6}"#, Some(6), 0),
        (r#"{"max_output_tokens":4}"#, Some(4), 0),
        (r#"{"max_tokens":null,"max_output_tokens":4}"#, Some(4), 0),
        (r#"{"max_tokens":99999999999999999999}"#, Some(u32::MAX), 0),
        (r#"{"max_tokens":-1,"priority":1.5}"#, Some(0), 0),
        (r#"{"max_tokens":"5","priority":-99999999999999999999}"#, None, i32::MIN),
        (r#"{"max_tokens":5.0,"priority":3}"#, None, 3),
    ];
    for (body, max_tokens, priority) in table {
        let scan = scanned(body);
        assert_eq!((scan.max_tokens, scan.priority), (max_tokens, priority), "{body}");
    }
}

#[test]
fn a_session_is_written_as_python_would() {
    let table = [
        (r#""s 1""#, Some("s 1")),
        (r#""""#, Some("")),
        ("null", None),
        ("true", Some("True")),
        ("false", Some("False")),
        ("7", Some("7")),
        ("-0", Some("0")),
        ("123456789012345678901234567890", Some("123456789012345678901234567890")),
        ("1.0", Some("1.0")),
        ("1.50", Some("1.5")),
        ("-0.0", Some("-0.0")),
        ("1e3", Some("1000.0")),
        ("1e16", Some("1e+16")),
        ("123456789012345680.0", Some("1.2345678901234568e+17")),
        ("0.0001", Some("0.0001")),
        ("0.00001", Some("1e-05")),
        ("1e400", Some("inf")),
        ("[1, 2]", Some("[1, 2]")),
    ];
    for (value, expected) in table {
        let body = format!("{{\"session_id\":{value}}}");
        assert_eq!(scanned(&body).session.as_deref(), expected, "{value}");
    }
    assert_eq!(scan(br#"{"session_id":"s"}"#, None).unwrap().session, None, "no field is asked for");
    assert_eq!(
        scan(br#"{"user":"s"}"#, Some("user")).unwrap().session.as_deref(),
        Some("s"),
        "a known field too"
    );
}

#[test]
fn the_prompt_is_messages_before_prompt_before_input() {
    let table = [
        (r#"{"input":"i","prompt":"p","messages":[]}"#, "[]"),
        (r#"{"input":"i","prompt":[1,2]}"#, "[1,2]"),
        (r#"{"input":"i"}"#, "\"i\""),
        (r#"{"query":"q"}"#, ""),
    ];
    for (body, expected) in table {
        assert_eq!(&body[scanned(body).prompt], expected, "{body}");
    }
}

#[test]
fn only_the_model_is_replaced() {
    let body = r#"{ "b" : 12345678901234567890, "model": "alias" ,"a":1.50, "mod\u0065l":null, "model":"x"}"#;
    let scan = scanned(body);
    let new = Splice::json(scan.model_spans, "real \"m\"").apply(body.as_bytes());
    let expected = r#"{ "b" : 12345678901234567890, "model": "real \"m\"" ,"a":1.50, "mod\u0065l":"real \"m\"", "model":"real \"m\""}"#;
    assert_eq!(String::from_utf8(new).unwrap(), expected);
}

/// Nesting as the scanner counts it, where it is valid JSON.
fn accepts(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,90}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,8}|model|user", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_serde_json_writes_is_accepted(value in any_json(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        match scan(&body, None) {
            Ok(scan) => {
                let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
                prop_assert!(value.is_object());
                prop_assert_eq!(scan.model.as_deref().map(str::to_owned), text("model"));
                prop_assert_eq!(scan.user.as_deref().map(str::to_owned), text("user"));
            }
            Err(kind) => prop_assert_eq!((kind, value.is_object()), (FailureKind::BodyNotObject, false)),
        }
    }

    #[test]
    fn a_damaged_body_is_judged_as_serde_json_judges_it(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..3_u8,
    ) {
        let mut body = serde_json::to_vec(&value).unwrap();
        let at = at.index(body.len());
        match how {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            _ => { body.remove(at); }
        }
        let ours = !matches!(scan(&body, None), Err(FailureKind::BodyNotJson));
        prop_assert_eq!(ours, accepts(&body), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn strings_are_judged_and_decoded_as_serde_json_does(text in "(\\PC|\\\\u[0-9a-fD-F]{4}|\\\\[nrtbfx\"/]|\"){0,60}") {
        let body = format!("{{\"model\":\"{text}\"}}");
        let ours = scan(body.as_bytes(), None);
        prop_assert_eq!(ours.is_ok(), accepts(body.as_bytes()), "{}", body);
        if let (Ok(ours), Ok(theirs)) = (ours, serde_json::from_str::<Value>(&body)) {
            let theirs = theirs["model"].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            prop_assert_eq!(ours.model.as_deref().map(str::to_owned), theirs);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let ours = !matches!(scan(&body, Some("a")), Err(FailureKind::BodyNotJson));
        prop_assert_eq!(ours, accepts(&body));
    }
}
