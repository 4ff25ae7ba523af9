//! Which path is answered by what.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::body::Source;
use super::prompt::Request;
use super::render::Api;
use super::wire::lock;
use super::{Shared, generate, metrics, score};

/// An answer before faults.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) source: Source,
}

impl Answer {
    pub(super) fn new(status: StatusCode, content_type: &'static str, source: Source) -> Self {
        Self { status, content_type, source }
    }

    pub(super) fn json(status: StatusCode, body: String) -> Self {
        Self::new(status, "application/json", Source::Whole(body.into()))
    }

    pub(super) fn stream(source: Source) -> Self {
        Self::new(StatusCode::OK, "text/event-stream; charset=utf-8", source)
    }

    fn empty(status: StatusCode) -> Self {
        Self::new(status, "application/json", Source::Whole(Bytes::new()))
    }
}

/// A request as the engine's endpoints see it.
pub(super) struct Call<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
}

/// Whether a request is about the engine rather than for it: kept out of the counts and safe from the script.
pub(super) fn is_probe(method: &Method, path: &str) -> bool {
    let control =
        ["/sleep", "/wake_up", "/reset_prefix_cache", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"];
    method == Method::GET && path != "/v1/audio/voices" || control.contains(&path)
}

/// An error in vLLM's shape.
pub(super) fn error(status: StatusCode, message: &str, param: Option<&str>) -> Answer {
    let kind = match status.as_u16() {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        501 => "NotImplementedError",
        503 => "ServiceUnavailableError",
        _ => "InternalServerError",
    };
    let body = json!({"error": {"message": message, "type": kind, "param": param, "code": status.as_u16()}});
    Answer::json(status, body.to_string())
}

/// What every endpoint that takes a model checks first.
pub(super) fn check(shared: &Shared, request: &Request) -> Result<(), Answer> {
    if shared.sleeping.load(Ordering::Relaxed) {
        return Err(error(StatusCode::SERVICE_UNAVAILABLE, "The engine is sleeping", None));
    }
    let Some(model) = request.model.as_deref().filter(|_| shared.config.check_model) else { return Ok(()) };
    let serves =
        shared.config.models.iter().any(|m| m == model) || lock(&shared.adapters).iter().any(|a| a == model);
    match serves {
        true => Ok(()),
        false => {
            Err(error(StatusCode::NOT_FOUND, &format!("The model `{model}` does not exist."), Some("model")))
        }
    }
}

/// Answers one request.
pub(super) async fn answer(shared: &Arc<Shared>, call: Call<'_>) -> Answer {
    if let Some(key) = &shared.config.api_key {
        let given = call.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if call.path.starts_with("/v1") && given.and_then(|value| value.strip_prefix("Bearer ")) != Some(key)
        {
            return Answer::json(StatusCode::UNAUTHORIZED, json!({"error": "Unauthorized"}).to_string());
        }
    }
    if call.method == Method::GET {
        return get(shared, &call);
    }
    if call.method != Method::POST {
        return Answer::json(
            StatusCode::METHOD_NOT_ALLOWED,
            json!({"detail": "Method Not Allowed"}).to_string(),
        );
    }
    let api = match call.path {
        "/v1/chat/completions" => Api::Chat,
        "/v1/completions" => Api::Completions,
        "/v1/responses" => Api::Responses,
        "/v1/messages" => Api::Messages,
        _ => return post(shared, &call),
    };
    let request_id = call.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    generate::generate(shared, api, call.body, request_id).await
}

fn get(shared: &Shared, call: &Call<'_>) -> Answer {
    match call.path {
        "/v1/models" => Answer::json(StatusCode::OK, models(shared).to_string()),
        "/metrics" => match metrics::page(shared) {
            Some(page) => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                Answer::new(StatusCode::OK, kind, Source::Whole(page.into()))
            }
            None => not_found(),
        },
        "/health" | "/ping" => Answer::empty(match shared.healthy.load(Ordering::Relaxed) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        }),
        "/version" => Answer::json(StatusCode::OK, json!({"version": shared.config.version}).to_string()),
        "/is_sleeping" => {
            let sleeping = shared.sleeping.load(Ordering::Relaxed);
            Answer::json(StatusCode::OK, json!({"is_sleeping": sleeping}).to_string())
        }
        "/v1/audio/voices" => Answer::json(StatusCode::OK, json!({"voices": ["wicket"]}).to_string()),
        _ => not_found(),
    }
}

fn post(shared: &Shared, call: &Call<'_>) -> Answer {
    match call.path {
        "/v1/embeddings"
        | "/v1/rerank"
        | "/rerank"
        | "/v2/rerank"
        | "/v1/score"
        | "/score"
        | "/tokenize"
        | "/detokenize"
        | "/v1/audio/speech"
        | "/v1/images/generations"
        | "/v1/messages/count_tokens"
        | "/v1/responses/input_tokens"
        | "/v1/moderations"
        | "/pooling"
        | "/classify" => score::post(shared, call),
        "/v1/audio/transcriptions" | "/v1/audio/translations" | "/v1/images/edits" => {
            score::form(shared, call)
        }
        "/sleep" => {
            shared.sleeping.store(true, Ordering::Relaxed);
            Answer::empty(StatusCode::OK)
        }
        "/wake_up" => {
            // vLLM wakes parts of itself by `tags`; asleep as a whole is all there is here.
            let _ = call.query;
            shared.sleeping.store(false, Ordering::Relaxed);
            Answer::empty(StatusCode::OK)
        }
        "/reset_prefix_cache" => {
            if let Some(simulator) = &shared.simulator {
                simulator.reset_prefix_cache();
            }
            Answer::empty(StatusCode::OK)
        }
        "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" => adapter(shared, call),
        _ => not_found(),
    }
}

fn adapter(shared: &Shared, call: &Call<'_>) -> Answer {
    let body: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let Some(name) = body["lora_name"].as_str().filter(|name| !name.is_empty()) else {
        return error(StatusCode::BAD_REQUEST, "`lora_name` must be set", None);
    };
    let mut adapters = lock(&shared.adapters);
    let known = adapters.iter().position(|adapter| adapter == name);
    let done = match (call.path, known) {
        ("/v1/load_lora_adapter", None) => {
            adapters.push(name.to_owned());
            "added"
        }
        ("/v1/load_lora_adapter", Some(_)) => {
            let message = format!("The lora adapter '{name}' has already been loaded.");
            return error(StatusCode::BAD_REQUEST, &message, None);
        }
        (_, Some(at)) => {
            adapters.remove(at);
            "removed"
        }
        (_, None) => {
            let message = format!("The lora adapter '{name}' cannot be found.");
            return error(StatusCode::NOT_FOUND, &message, None);
        }
    };
    let text = format!("Success: LoRA adapter '{name}' {done} successfully.");
    Answer::new(StatusCode::OK, "text/plain; charset=utf-8", Source::Whole(text.into()))
}

fn models(shared: &Shared) -> Value {
    let card = |id: &str, root: &str, parent: Option<&str>| {
        json!({
            "id": id, "object": "model", "created": shared.created, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": shared.config.max_model_len,
            "permission": [{"id": "modelperm-0", "object": "model_permission", "allow_sampling": true}],
        })
    };
    let base = &shared.config.models[0];
    let mut data: Vec<Value> = shared.config.models.iter().map(|model| card(model, base, None)).collect();
    data.extend(lock(&shared.adapters).iter().map(|adapter| card(adapter, adapter, Some(base))));
    json!({"object": "list", "data": data})
}

fn not_found() -> Answer {
    Answer::json(StatusCode::NOT_FOUND, json!({"detail": "Not Found"}).to_string())
}
