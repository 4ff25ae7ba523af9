use super::*;

#[test]
fn every_path_of_the_surface_is_classified() {
    let table = [
        ("POST /v1/chat/completions", "chat_completions"),
        ("POST /v1/completions", "completions"),
        ("POST /v1/embeddings", "embeddings"),
        ("POST /v1/responses", "responses"),
        ("POST /v1/messages", "messages"),
        ("POST /v1/rerank", "rerank"),
        ("POST /rerank", "rerank"),
        ("POST /v2/rerank", "rerank"),
        ("POST /v1/responses/input_tokens", "responses_input_tokens"),
        ("POST /v1/messages/count_tokens", "messages_count_tokens"),
        ("POST /v1/moderations", "moderations"),
        ("POST /pooling", "pooling"),
        ("POST /classify", "classify"),
        ("GET /v1/models/org/name:tag", "model"),
        ("HEAD /v1/models/a%2Fb", "model"),
        ("GET /v1/realtime", "not_implemented"),
        ("POST /v1/realtime/sessions", "not_implemented"),
        ("POST /v1/score", "score"),
        ("POST /score", "score"),
        ("POST /tokenize", "tokenize"),
        ("POST /detokenize", "detokenize"),
        ("POST /v1/audio/speech", "audio_speech"),
        ("POST /v1/audio/translations", "audio_translations"),
        ("GET /v1/audio/voices", "audio_voices"),
        ("POST /v1/images/generations", "images_generations"),
        ("POST /v1/audio/transcriptions", "audio_transcriptions"),
        ("POST /v1/images/edits", "images_edits"),
        ("GET /v1/models", "models"),
        ("HEAD /v1/models", "models"),
        ("GET /engines", "engines"),
        ("GET /version", "version"),
        ("GET /health", "health"),
        ("GET /metrics", "metrics"),
        ("POST /sleep", "sleep"),
        ("POST /wake_up", "wake_up"),
        ("GET /is_sleeping", "is_sleeping"),
        ("POST /v1/files", "not_implemented"),
        ("GET /v1/files/file-1", "not_implemented"),
        ("GET /v1/files/file-1/content", "not_implemented"),
        ("POST /v1/batches", "not_implemented"),
        ("GET /v1/batches", "not_implemented"),
        ("DELETE /v1/batches/batch_1", "not_implemented"),
        ("POST /api/chat", "not_implemented"),
        ("DELETE /api/delete", "not_implemented"),
        ("GET /router/status", "not_implemented"),
        ("GET /health/ready", "not_implemented"),
    ];
    for (request, label) in table {
        let (method, path) = request.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(classify(&method, path).map(Operation::label), Ok(label), "{request}");
    }
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let table = [
        ("GET /v1/chat/completions", FailureKind::MethodNotAllowed),
        ("POST /v1/models", FailureKind::MethodNotAllowed),
        ("DELETE /v1/models/a", FailureKind::MethodNotAllowed),
        ("GET /pooling", FailureKind::MethodNotAllowed),
        ("GET /v1/models/", FailureKind::PathUnknown),
        ("POST /v1/messages/count", FailureKind::PathUnknown),
        ("POST /health", FailureKind::MethodNotAllowed),
        ("GET /sleep", FailureKind::MethodNotAllowed),
        ("DELETE /v1/files/a", FailureKind::MethodNotAllowed),
        ("GET /", FailureKind::PathUnknown),
        ("GET /v1/chat/completions/", FailureKind::PathUnknown),
        ("GET /v1/files/a/b", FailureKind::PathUnknown),
        ("GET /v1/files/", FailureKind::PathUnknown),
        ("GET /v1/files//content", FailureKind::PathUnknown),
        ("GET /v1/batches/a/b", FailureKind::PathUnknown),
        ("GET /api/", FailureKind::PathUnknown),
        ("POST /V1/chat/completions", FailureKind::PathUnknown),
    ];
    for (request, expected) in table {
        let (method, path) = request.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(classify(&method, path), Err(expected), "{request}");
    }
    assert_eq!(allowed("/v1/models"), Some("GET, HEAD"));
    assert_eq!(allowed("/nowhere"), None);
}

#[test]
fn translations_are_a_form_when_the_content_type_says_so() {
    let json = Operation::Json(JsonKind::AudioTranslations);
    let form = Operation::Multipart(MultipartKind::AudioTranslations);
    assert_eq!(json.for_content_type(Some(b"Multipart/Form-Data; boundary=x")), form);
    assert_eq!(json.for_content_type(Some(b"application/json")), json);
    assert_eq!(json.for_content_type(None), json);
    let chat = Operation::Json(JsonKind::ChatCompletions);
    assert_eq!(chat.for_content_type(Some(b"multipart/form-data; boundary=x")), chat);
}

#[test]
fn a_gateway_prefix_is_split_off() {
    let table = [
        ("/gateways/prod/chat/v1/models", Some(("prod", "chat", "/v1/models"))),
        ("/gateways/prod/chat/", Some(("prod", "chat", "/"))),
        ("/gateways/prod/chat", Some(("prod", "chat", "/"))),
        ("/gateways/prod", None),
        ("/gateways//chat/v1/models", None),
        ("/gateways/prod//v1/models", None),
        ("/v1/models", None),
    ];
    for (path, expected) in table {
        assert_eq!(gateway_prefix(path), expected, "{path}");
    }
}

#[test]
fn the_root_path_is_optional_and_ends_at_a_slash() {
    let table = [
        ("/x/v1/models", "/x", "/v1/models"),
        ("/v1/models", "/x", "/v1/models"),
        ("/xy/v1/models", "/x", "/xy/v1/models"),
        ("/x", "/x", "/"),
        ("/v1/models", "", "/v1/models"),
    ];
    for (path, root, expected) in table {
        assert_eq!(below_root(path, root), expected, "{path} below {root}");
    }
}

/// B8: the list by which manifests are checked has no path that is not served.
#[test]
fn paths_that_manifests_need_not_list_are_known() {
    for path in domain::surface::SERVED {
        assert!(is_known(path), "{path}");
    }
}
