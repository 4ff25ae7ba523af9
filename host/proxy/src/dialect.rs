//! Which operation a method and path mean: the whole OpenAI surface, and what other surfaces are told for now.
//!
//! Paths only. What a body says is read by [`crate::intake::scan`] and [`crate::multipart`]; what is answered on failure
//! is [`crate::respond`]'s.

use domain::failure::FailureKind;
use domain::request::{KINDS_MAX, RequestKind};
use http::Method;

pub mod query;

/// What a client is told that asks for the realtime API.
pub const REALTIME: &str = "the realtime API needs a WebSocket, and this gateway relays requests and answers only; \
    use /v1/chat/completions with \"stream\": true";

/// What a client is told that asks for another protocol on its connection.
pub const UPGRADE: &str =
    "this gateway relays requests and answers, and upgrades no connection, to a WebSocket or otherwise";

/// Where single models are.
pub const MODELS: &str = "/v1/models/";

/// Label of the paths that gateways list.
const FURTHER: &str = "further";

#[cfg(test)]
mod tests;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Goes to an engine; the model is in a JSON body (or, without a body, in the query: [`JsonKind::is_bodyless`]).
    Json(JsonKind),
    /// Goes to an engine; the model is in a multipart form.
    Multipart(MultipartKind),
    /// Answered here, by [`crate::local`].
    Local(LocalPage),
    /// Goes to an engine; the model is in the query, or always the same, and a body (if `true`, there may be one) is not
    /// looked at. Only paths that a gateway lists are so.
    Opaque(bool),
    /// Goes to the one engine that `?id=` names.
    EngineControl(Control),
    /// Known, and not served by this version. The text is for the client.
    NotImplemented(&'static str),
}

/// Operations with a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonKind {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
    /// `/v1/responses/input_tokens`
    ResponsesInputTokens,
    /// `/v1/messages/count_tokens`
    MessagesCountTokens,
    /// `/v1/moderations`
    Moderations,
    /// `/pooling`
    Pooling,
    /// `/classify`
    Classify,
    /// `/v1/rerank`, `/v2/rerank`, `/rerank`
    Rerank,
    /// `/v1/score`, `/score`
    Score,
    /// `/tokenize`
    Tokenize,
    /// `/detokenize`
    Detokenize,
    /// `/v1/audio/speech`
    AudioSpeech,
    /// `/v1/audio/translations`; a form by content type, see [`Operation::for_content_type`].
    AudioTranslations,
    /// `GET /v1/audio/voices?model=`
    AudioVoices,
    /// `/v1/images/generations`
    ImagesGenerations,
    /// A path that a gateway lists.
    Further,
}

/// Operations with a multipart body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MultipartKind {
    /// `/v1/audio/transcriptions`
    AudioTranscriptions,
    /// `/v1/audio/translations`
    AudioTranslations,
    /// `/v1/images/edits`
    ImagesEdits,
    /// A path that a gateway lists.
    Further,
}

/// Pages that the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalPage {
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/<id>`
    Model,
    /// `GET /engines`
    Engines,
    /// `GET /version`
    Version,
    /// `GET /health`
    Health,
    /// `GET /metrics`
    Metrics,
}

/// Controls of one engine. Off unless the gateway is started with `--engine-control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// `POST /sleep?id=`
    Sleep,
    /// `POST /wake_up?id=`
    WakeUp,
    /// `GET /is_sleeping?id=`
    IsSleeping,
}

impl Operation {
    /// Stable word for metrics labels, log fields and spans.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Json(kind) => kind.label(),
            Self::Multipart(kind) => kind.label(),
            Self::Local(page) => page.label(),
            Self::Opaque(_) => FURTHER,
            Self::EngineControl(control) => control.label(),
            Self::NotImplemented(_) => "not_implemented",
        }
    }

    /// The kind by which engines are known to answer such requests, or not.
    pub(crate) const fn kind(self) -> RequestKind {
        RequestKind::new(match self {
            // Paths that gateways list share the last number with what never asks an engine.
            Self::Json(JsonKind::Further) | Self::Multipart(MultipartKind::Further) | Self::Opaque(_) => {
                KINDS_MAX - 1
            }
            Self::Json(kind) => kind as usize,
            // From the end of the numbers: there are few of them.
            Self::Multipart(kind) => KINDS_MAX - 2 - kind as usize,
            Self::Local(_) | Self::EngineControl(_) | Self::NotImplemented(_) => KINDS_MAX - 1,
        })
    }

    /// The same operation once the request's content type is known: translations come as JSON or as a form.
    #[must_use]
    pub fn for_content_type(self, content_type: Option<&[u8]>) -> Self {
        const FORM: &[u8] = b"multipart/form-data";
        let is_form = content_type
            .and_then(|value| value.get(..FORM.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(FORM));
        match self {
            Self::Json(JsonKind::AudioTranslations) if is_form => {
                Self::Multipart(MultipartKind::AudioTranslations)
            }
            Self::Json(JsonKind::Further) if is_form => Self::Multipart(MultipartKind::Further),
            other => other,
        }
    }
}

impl JsonKind {
    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::AudioSpeech => "audio_speech",
            Self::AudioTranslations => "audio_translations",
            Self::AudioVoices => "audio_voices",
            Self::ImagesGenerations => "images_generations",
            Self::ResponsesInputTokens => "responses_input_tokens",
            Self::MessagesCountTokens => "messages_count_tokens",
            Self::Moderations => "moderations",
            Self::Pooling => "pooling",
            Self::Classify => "classify",
            Self::Further => FURTHER,
        }
    }

    /// Has no body: the model is the query's `model`, and goes on to the engine in the query.
    pub const fn is_bodyless(self) -> bool {
        matches!(self, Self::AudioVoices)
    }
}

impl MultipartKind {
    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AudioTranscriptions => "audio_transcriptions",
            Self::AudioTranslations => "audio_translations",
            Self::ImagesEdits => "images_edits",
            Self::Further => FURTHER,
        }
    }

    /// Whether the form must have a part named `file`.
    pub const fn needs_file(self) -> bool {
        !matches!(self, Self::ImagesEdits | Self::Further)
    }
}

impl LocalPage {
    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Model => "model",
            Self::Engines => "engines",
            Self::Version => "version",
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }
}

impl Control {
    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::WakeUp => "wake_up",
            Self::IsSleeping => "is_sleeping",
        }
    }
}

/// A place in the surface: the methods it knows, and what the request then is.
struct Place {
    allow: &'static str,
    operation: Operation,
}

const fn post(operation: Operation) -> Option<Place> {
    Some(Place { allow: "POST", operation })
}

const fn get(operation: Operation) -> Option<Place> {
    Some(Place { allow: "GET, HEAD", operation })
}

const fn missing(allow: &'static str, what: &'static str) -> Option<Place> {
    Some(Place { allow, operation: Operation::NotImplemented(what) })
}

/// What `method` on `path` means. The path is without query, gateway prefix and root path.
///
/// Fails with `PathUnknown` or, where the path exists, `MethodNotAllowed` ([`allowed`] has the methods).
pub fn classify(method: &Method, path: &str) -> Result<Operation, FailureKind> {
    let place = place(path).ok_or(FailureKind::PathUnknown)?;
    let known = place.allow.is_empty() || place.allow.split(", ").any(|allowed| allowed == method.as_str());
    if known { Ok(place.operation) } else { Err(FailureKind::MethodNotAllowed) }
}

/// The methods that `path` knows, as an `Allow` header; `None` where the path is unknown.
pub fn allowed(path: &str) -> Option<&'static str> {
    place(path).map(|place| place.allow)
}

fn place(path: &str) -> Option<Place> {
    use JsonKind as J;
    use LocalPage as L;
    use Operation::{EngineControl, Json, Local, Multipart};
    match path {
        "/v1/chat/completions" => post(Json(J::ChatCompletions)),
        "/v1/completions" => post(Json(J::Completions)),
        "/v1/embeddings" => post(Json(J::Embeddings)),
        "/v1/responses" => post(Json(J::Responses)),
        "/v1/messages" => post(Json(J::Messages)),
        "/v1/responses/input_tokens" => post(Json(J::ResponsesInputTokens)),
        "/v1/messages/count_tokens" => post(Json(J::MessagesCountTokens)),
        "/v1/moderations" => post(Json(J::Moderations)),
        "/pooling" => post(Json(J::Pooling)),
        "/classify" => post(Json(J::Classify)),
        "/v1/rerank" | "/v2/rerank" | "/rerank" => post(Json(J::Rerank)),
        "/v1/score" | "/score" => post(Json(J::Score)),
        "/tokenize" => post(Json(J::Tokenize)),
        "/detokenize" => post(Json(J::Detokenize)),
        "/v1/audio/speech" => post(Json(J::AudioSpeech)),
        "/v1/audio/translations" => post(Json(J::AudioTranslations)),
        "/v1/audio/voices" => Some(Place { allow: "GET", operation: Json(J::AudioVoices) }),
        "/v1/images/generations" => post(Json(J::ImagesGenerations)),
        "/v1/audio/transcriptions" => post(Multipart(MultipartKind::AudioTranscriptions)),
        "/v1/images/edits" => post(Multipart(MultipartKind::ImagesEdits)),
        "/v1/models" => get(Local(L::Models)),
        "/engines" => get(Local(L::Engines)),
        "/version" => get(Local(L::Version)),
        "/health" => get(Local(L::Health)),
        "/metrics" => get(Local(L::Metrics)),
        "/sleep" => post(EngineControl(Control::Sleep)),
        "/wake_up" => post(EngineControl(Control::WakeUp)),
        "/is_sleeping" => Some(Place { allow: "GET", operation: EngineControl(Control::IsSleeping) }),
        _ if path.strip_prefix(MODELS).is_some_and(|id| !id.is_empty()) => get(Local(L::Model)),
        _ => unserved(path),
    }
}

/// Whether every gateway serves this path, answers it itself, or refuses it on purpose.
pub fn is_known(path: &str) -> bool {
    place(path).is_some()
}

/// Paths that are known and not served yet: files, batches, and System B's own.
fn unserved(path: &str) -> Option<Place> {
    const FILES: &str = "the files API";
    const BATCHES: &str = "the batch API";
    const OLLAMA: &str = "the Ollama API";
    const ROUTER: &str = "the router status API";
    let one_below = |prefix: &str| {
        let rest = path.strip_prefix(prefix)?;
        (!rest.is_empty()).then_some(rest)
    };
    match path {
        "/v1/files" => return missing("POST", FILES),
        "/v1/batches" => return missing("GET, POST", BATCHES),
        "/health/ready" => return missing("GET", ROUTER),
        "/v1/realtime" => return missing("", REALTIME),
        _ => {}
    }
    if let Some(rest) = one_below("/v1/files/") {
        let id = rest.strip_suffix("/content").unwrap_or(rest);
        return if id.is_empty() || id.contains('/') { None } else { missing("GET", FILES) };
    }
    if let Some(rest) = one_below("/v1/batches/") {
        return if rest.contains('/') { None } else { missing("GET, DELETE", BATCHES) };
    }
    if one_below("/v1/realtime/").is_some() {
        return missing("", REALTIME);
    }
    if one_below("/api/").is_some() {
        return missing("", OLLAMA);
    }
    one_below("/router/").and_then(|_| missing("", ROUTER))
}

/// Splits `/gateways/<namespace>/<name>/<rest>`; the rest starts with `/`. `None`: the path has no such prefix.
pub fn gateway_prefix(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/gateways/")?;
    let (namespace, rest) = rest.split_once('/')?;
    let (name, rest) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    (!namespace.is_empty() && !name.is_empty()).then_some((namespace, name, rest))
}

/// The path below the configured root path. Paths outside it are answered too, as the old router did.
///
/// `root` is empty, or starts with `/` and does not end with one.
pub fn below_root<'a>(path: &'a str, root: &str) -> &'a str {
    match path.strip_prefix(root) {
        Some("") if !root.is_empty() => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}
