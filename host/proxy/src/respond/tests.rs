use super::*;

fn kinds() -> Vec<(FailureKind, u16, &'static str)> {
    use FailureKind as K;
    let model = || "X".into();
    vec![
        (K::BodyNotJson, 400, r#"{"error":"Invalid request: request body must be valid JSON."}"#),
        (K::BodyNotObject, 400, r#"{"error":"Invalid request: request body must be a JSON object."}"#),
        (K::ModelMissing, 400, r#"{"error":"Invalid request: missing 'model' in request body."}"#),
        (
            K::ModelRepeated { max: 16 },
            400,
            r#"{"error":"Invalid request: more than 16 keys 'model' in request body."}"#,
        ),
        (
            K::ModelUnknown { model: model() },
            404,
            r#"{"error":"Model 'X' not found. Available models can be listed at /v1/models."}"#,
        ),
        (
            K::ModelUnavailable { model: model() },
            503,
            r#"{"error":"Model 'X' is temporarily unavailable. Please try again later."}"#,
        ),
        (K::EngineIdMissing, 400, r#"{"error":"Invalid request: missing target Engine Id."}"#),
        (K::EngineIdUnknown { id: model() }, 400, r#"{"error":"Engine with Id X not found."}"#),
        (K::Multipart(MultipartFault::Unreadable), 400, r#"{"error":"Invalid multipart/form-data request"}"#),
        (
            K::Multipart(MultipartFault::FileMissing),
            400,
            r#"{"error":"Invalid request: missing 'file' in form data."}"#,
        ),
        (
            K::Multipart(MultipartFault::ModelMissing),
            400,
            r#"{"error":"Invalid request: missing 'model' in form data."}"#,
        ),
        (K::PathUnknown, 404, r#"{"detail":"Not Found"}"#),
        (K::MethodNotAllowed, 405, r#"{"detail":"Method Not Allowed"}"#),
        (
            K::BodyTooLarge { limit_bytes: 5 },
            413,
            r#"{"error":"Invalid request: request body is larger than 5 bytes."}"#,
        ),
        (
            K::BodyEncoded,
            415,
            r#"{"error":"Invalid request: a compressed request body (Content-Encoding) is not accepted."}"#,
        ),
        (K::BodyTimeout, 408, r#"{"error":"The request body did not arrive in time."}"#),
        (K::ClientGone, 400, r#"{"error":"The request broke off."}"#),
        (K::NotImplemented { what: "the files API" }, 501, r#"{"error":"Not implemented: the files API."}"#),
        (
            K::Forbidden { what: ENGINE_CONTROL_OFF },
            403,
            r#"{"error":"Engine control is off. Start the gateway with --engine-control to allow it."}"#,
        ),
        (
            K::Guarded { reason: "promptGuard".into() },
            503,
            r#"{"error":"Model is guarded by a filter that cannot be enforced: promptGuard"}"#,
        ),
        (
            K::Overloaded { retry_after: Duration::from_secs(2) },
            429,
            r#"{"error":"The gateway is at its limit of requests. Please try again later."}"#,
        ),
        (
            K::BodyMemory,
            503,
            r#"{"error":"The gateway is out of memory for request bodies. Please try again later."}"#,
        ),
        (
            K::Shortage,
            503,
            r#"{"error":"The gateway has no file descriptor left for a connection. Please try again later."}"#,
        ),
        (
            K::Refused { status: 429, reason: "tenant \"t\" is over".into(), retry_after: None },
            429,
            r#"{"error":"tenant \"t\" is over"}"#,
        ),
        (
            K::Refused { status: 503, reason: "".into(), retry_after: None },
            503,
            r#"{"error":"Refused by a routing policy."}"#,
        ),
        (
            K::PolicyRejected,
            503,
            r#"{"error":"A routing policy failed, and is set to reject requests then."}"#,
        ),
        (K::DeadlineExceeded, 504, r#"{"error":"No engine answered in time."}"#),
        (K::Connect, 503, r#"{"error":"No engine could be reached. Please try again later."}"#),
        (K::LostBeforeHead, 502, r#"{"error":"The engine closed the connection before it answered."}"#),
        (K::BadAnswer, 502, r#"{"error":"The engine's answer could not be understood."}"#),
        (K::Status { status: 500 }, 502, r#"{"error":"The engine answered with status 500."}"#),
        (K::LostMidway, 502, r#"{"error":"The engine's answer broke off."}"#),
        (K::Draining, 503, r#"{"error":"The gateway is shutting down. Please try again."}"#),
        (K::NotReady, 503, r#"{"error":"The gateway has no configuration yet. Please try again later."}"#),
    ]
}

fn answer(kind: FailureKind, change: impl FnOnce(&mut FailureContext<'_>)) -> Response<Bytes> {
    let mut context = FailureContext::new("id-1");
    change(&mut context);
    failure(&kind.into(), &context)
}

fn body(answer: &Response<Bytes>) -> &str {
    str::from_utf8(answer.body()).unwrap()
}

#[test]
fn every_failure_has_its_compatible_body_status_and_id() {
    for (kind, status, expected) in kinds() {
        let answer = answer(kind.clone(), |_| {});
        assert_eq!((answer.status().as_u16(), body(&answer)), (status, expected), "{kind:?}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json", "{kind:?}");
        assert_eq!(answer.headers()[X_REQUEST_ID], "id-1", "{kind:?}");
    }
}

#[test]
fn forms_have_texts_of_their_own_where_the_old_router_had() {
    use FailureKind as K;
    let table = [
        (K::ModelUnknown { model: "X".into() }, 404, r#"{"error":"No backend for model X"}"#),
        (
            K::ModelUnavailable { model: "X".into() },
            503,
            r#"{"error":"Model 'X' is temporarily unavailable. Please try again later."}"#,
        ),
        (K::Connect, 503, r#"{"error":"Failed to connect to backend: no engine could be reached."}"#),
    ];
    for (kind, status, expected) in table {
        let answer = answer(kind, |context| context.body = BodyKind::Form);
        assert_eq!((answer.status().as_u16(), body(&answer)), (status, expected));
    }
}

#[test]
fn the_text_dialect_answers_in_lines_of_text() {
    use FailureKind as K;
    let table = [
        (K::ModelUnknown { model: "qwen".into() }, 503, "model \"qwen\" not loaded on any pod\n"),
        (K::ModelUnavailable { model: "a\"b\n".into() }, 503, "model \"a\\\"b\\n\" not loaded on any pod\n"),
        (K::NotReady, 503, "no pods available\n"),
        (K::Connect, 503, "proxy error: connect failed\n"),
        (K::LostBeforeHead, 502, "proxy error: connection lost before the answer\n"),
        (K::BodyNotJson, 400, "Invalid request: request body must be valid JSON.\n"),
        (K::PathUnknown, 404, "Not Found\n"),
    ];
    for (kind, status, expected) in table {
        let answer = answer(kind, |context| context.dialect = Dialect::Text);
        assert_eq!((answer.status().as_u16(), body(&answer)), (status, expected));
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(answer.headers()[X_REQUEST_ID], "id-1");
    }
}

#[test]
fn the_openai_object_is_an_option() {
    use FailureKind as K;
    let table = [
        (
            K::ModelUnknown { model: "X".into() },
            r#"{"error":{"message":"Model 'X' not found. Available models can be listed at /v1/models.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#,
        ),
        (
            K::BodyNotJson,
            r#"{"error":{"message":"Invalid request: request body must be valid JSON.","type":"invalid_request_error","param":null,"code":"body_not_json"}}"#,
        ),
        (
            K::Overloaded { retry_after: Duration::ZERO },
            r#"{"error":{"message":"The gateway is at its limit of requests. Please try again later.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}"#,
        ),
        (
            K::DeadlineExceeded,
            r#"{"error":{"message":"No engine answered in time.","type":"server_error","param":null,"code":"deadline_exceeded"}}"#,
        ),
    ];
    for (kind, expected) in table {
        let answer = answer(kind, |context| context.format = ErrorFormat::OpenAi);
        assert_eq!(body(&answer), expected);
    }
    for (kind, status, _) in kinds() {
        let answer = answer(kind.clone(), |context| context.format = ErrorFormat::OpenAi);
        let object: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert!(object["error"]["message"].is_string() && object["error"]["type"].is_string(), "{kind:?}");
    }
}

#[test]
fn retry_after_is_whole_seconds_and_never_zero() {
    let overloaded = |millis| FailureKind::Overloaded { retry_after: Duration::from_millis(millis) };
    let refused = |after| FailureKind::Refused { status: 503, reason: "x".into(), retry_after: after };
    let table = [
        (overloaded(0), Some("1")),
        (overloaded(1_001), Some("2")),
        (overloaded(5_000), Some("5")),
        (refused(Some(Duration::from_secs(7))), Some("7")),
        (refused(None), None),
        (FailureKind::Draining, Some("1")),
        (FailureKind::PathUnknown, None),
    ];
    for (kind, expected) in table {
        let answer = answer(kind.clone(), |_| {});
        let after = answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
        assert_eq!(after, expected, "{kind:?}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let told = answer(FailureKind::MethodNotAllowed, |context| context.allow = Some("GET, HEAD"));
    assert_eq!(told.headers()[ALLOW], "GET, HEAD");
    assert!(
        !answer(FailureKind::PathUnknown, |context| context.allow = Some("GET"))
            .headers()
            .contains_key(ALLOW)
    );
}

#[test]
fn a_clients_text_is_escaped_and_cut() {
    let model = format!("{}\u{e9}\"\u{1}", "a".repeat(ECHO_BYTES_MAX - 1));
    let answer = answer(FailureKind::ModelUnknown { model: model.into() }, |_| {});
    assert!(answer.body().len() < ECHO_BYTES_MAX + 100);
    let object: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert!(object["error"].as_str().unwrap().contains("a…' not found"));
}
