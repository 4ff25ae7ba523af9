//! Answers that generate no tokens: embeddings, reranking, scores, tokens, audio and images. Values are functions of the
//! input's hash, so that equal input gives equal output on every engine.

use http::{StatusCode, header};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::Shared;
use super::answer::{Answer, Call, check, error};
use super::body::Source;
use super::multipart;
use super::prompt::{Request, push_text};

/// Length of an embedding.
const EMBEDDING_LEN: usize = 8;

/// Answers a JSON endpoint.
pub(super) fn post(shared: &Shared, call: &Call<'_>) -> Answer {
    let request: Request = match serde_json::from_slice(call.body) {
        Ok(request) => request,
        Err(problem) => return error(StatusCode::BAD_REQUEST, &format!("Invalid JSON: {problem}"), None),
    };
    if let Err(answer) = check(shared, &request) {
        return answer;
    }
    let model = request.model.clone().unwrap_or_else(|| shared.config.models[0].clone());
    let body = match call.path {
        "/v1/embeddings" => embeddings(shared, &request, &model),
        "/v1/rerank" | "/rerank" | "/v2/rerank" => rerank(&request, &model),
        "/v1/score" | "/score" => scores(shared, &request, &model),
        "/tokenize" => tokenize(shared, &request),
        "/detokenize" => detokenize(&request),
        "/v1/audio/speech" => {
            let sound = xxh3_64(&request.text()).to_le_bytes().repeat(32);
            return Answer::new(StatusCode::OK, "audio/mpeg", Source::Whole(sound.into()));
        }
        "/v1/images/generations" => json!({"created": shared.created, "data": [{"b64_json": "aW1hZ2U="}]}),
        // Counts, classes, vectors: what matters here is who was asked.
        _ => json!({"model": model, "input_tokens": tokens_of(shared, call.body.len()), "data": []}),
    };
    match body {
        Value::Null => error(StatusCode::BAD_REQUEST, "A required field is missing", None),
        body => Answer::json(StatusCode::OK, body.to_string()),
    }
}

/// Answers a multipart endpoint by telling what arrived.
pub(super) fn form(shared: &Shared, call: &Call<'_>) -> Answer {
    let kind =
        call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(parts) = multipart::boundary(kind).and_then(|boundary| multipart::parts(call.body, boundary))
    else {
        return error(StatusCode::BAD_REQUEST, "Expected a multipart form", None);
    };
    let model =
        parts.iter().find(|part| part.name == "model").and_then(|part| std::str::from_utf8(part.bytes).ok());
    let request = Request::of_model(model);
    if let Err(answer) = check(shared, &request) {
        return answer;
    }
    let received: Vec<Value> = parts.iter().map(describe).collect();
    let body = match call.path {
        "/v1/images/edits" => {
            json!({"created": shared.created, "data": [{"b64_json": "aW1hZ2U="}], "received": received})
        }
        _ => json!({"text": "the gate opens", "received": received}),
    };
    Answer::json(StatusCode::OK, body.to_string())
}

fn describe(part: &multipart::Part<'_>) -> Value {
    json!({
        "name": part.name, "filename": part.filename, "content_type": part.content_type, "bytes": part.bytes.len(),
        "xxh3": format!("{:016x}", xxh3_64(part.bytes)),
        "value": part.filename.is_none().then(|| String::from_utf8_lossy(part.bytes)),
    })
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    push_text(&mut text, value);
    text
}

fn tokens_of(shared: &Shared, bytes: usize) -> usize {
    ((bytes as f64 / shared.config.bytes_per_token).ceil() as usize).max(1)
}

/// From 0 to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn embeddings(shared: &Shared, request: &Request, model: &str) -> Value {
    let Some(input) = &request.input else { return Value::Null };
    let inputs = match input {
        // A list of numbers is one prompt of token ids.
        Value::Array(items) if !items.iter().all(Value::is_number) => items.iter().map(bytes_of).collect(),
        one => vec![bytes_of(one)],
    };
    let tokens: usize = inputs.iter().map(|text| tokens_of(shared, text.len())).sum();
    let embed = |text: &Vec<u8>| -> Vec<f64> {
        (0..EMBEDDING_LEN as u64).map(|i| 2.0 * unit(xxh3_64(text).wrapping_mul(2 * i + 1)) - 1.0).collect()
    };
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"index": index, "object": "embedding", "embedding": embed(text)}))
        .collect();
    json!({"id": "embd-0", "object": "list", "created": shared.created, "model": model, "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}})
}

fn rerank(request: &Request, model: &str) -> Value {
    let (Some(query), Some(documents)) = (&request.query, &request.documents) else { return Value::Null };
    let query = bytes_of(query);
    let mut ranked: Vec<(f64, usize)> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| (unit(xxh3_64(&[query.clone(), bytes_of(document)].concat())), index))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.truncate(request.top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = ranked
        .iter()
        .map(|(score, index)| {
            let text = String::from_utf8_lossy(&bytes_of(&documents[*index])).into_owned();
            json!({"index": index, "document": {"text": text}, "relevance_score": score})
        })
        .collect();
    json!({"id": "rerank-0", "model": model, "usage": {"total_tokens": documents.len()}, "results": results})
}

fn scores(shared: &Shared, request: &Request, model: &str) -> Value {
    let (Some(one), Some(two)) = (&request.text_1, &request.text_2) else { return Value::Null };
    let one = bytes_of(one);
    let others = match two {
        Value::Array(items) => items.clone(),
        single => vec![single.clone()],
    };
    let data: Vec<Value> = others
        .iter()
        .enumerate()
        .map(|(index, other)| {
            let score = unit(xxh3_64(&[one.clone(), bytes_of(other)].concat()));
            json!({"index": index, "object": "score", "score": score})
        })
        .collect();
    json!({"id": "score-0", "object": "list", "created": shared.created, "model": model, "data": data,
        "usage": {"prompt_tokens": others.len(), "total_tokens": others.len()}})
}

/// Four bytes are a token, whatever the prompt costs, so that `/detokenize` can undo it.
fn tokenize(shared: &Shared, request: &Request) -> Value {
    let mut text = request.text();
    text.resize(text.len().div_ceil(4) * 4, 0);
    let tokens: Vec<u32> =
        text.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    json!({"count": tokens.len(), "max_model_len": shared.config.max_model_len, "tokens": tokens, "token_strs": null})
}

fn detokenize(request: &Request) -> Value {
    let Some(tokens) = &request.tokens else { return Value::Null };
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    json!({"prompt": String::from_utf8_lossy(&bytes).trim_end_matches('\0')})
}
