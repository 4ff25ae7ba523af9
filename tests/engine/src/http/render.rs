//! How each API writes an answer: whole, or as a stream of server-sent events.

use serde_json::{Value, json};

/// A generating API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
    Responses,
    Messages,
}

/// What is known of an answer before its text.
#[derive(Debug, Clone)]
pub(super) struct Rendering {
    pub(super) api: Api,
    pub(super) id: String,
    pub(super) model: String,
    /// Name of the engine, sent as `system_fingerprint`.
    pub(super) engine: String,
    pub(super) created: u64,
    pub(super) include_usage: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) output_tokens: u32,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model had said everything.
    Stop,
    /// The client's limit was reached.
    Length,
}

const WORDS: [&str; 16] = [
    "the ", "gate ", "opens ", "and ", "water ", "runs ", "over ", "a ", "wheel ", "that ", "turns ",
    "slowly ", "while ", "it ", "is ", "metered ",
];

/// The `n`-th token of every answer, counted from one.
pub(super) fn word(n: u32) -> &'static str {
    WORDS[(n as usize).wrapping_sub(1) % WORDS.len()]
}

/// The text of an answer of `tokens` tokens.
pub(super) fn text(tokens: u32) -> String {
    (1..=tokens).map(word).collect()
}

impl Finish {
    fn openai(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::Stop => "end_turn",
            Self::Length => "max_tokens",
        }
    }
}

impl Usage {
    fn openai(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "completion_tokens": self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }

    fn responses(self) -> Value {
        json!({
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.output_tokens,
        })
    }

    fn anthropic(self) -> Value {
        json!({
            "input_tokens": self.prompt_tokens - self.cached_tokens,
            "cache_read_input_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
        })
    }
}

impl Rendering {
    /// The answer in one piece.
    pub(super) fn whole(&self, finish: Finish, usage: Usage) -> String {
        let text = text(usage.output_tokens);
        let body = match self.api {
            Api::Chat => self.openai(
                "chat.completion",
                self.choice(
                    finish,
                    json!({"message":
                {"role": "assistant", "content": text, "refusal": null, "tool_calls": []}}),
                ),
                Some(usage),
            ),
            Api::Completions => {
                self.openai("text_completion", self.choice(finish, json!({"text": text})), Some(usage))
            }
            Api::Responses => self.response(&text, "completed", Some(usage)),
            Api::Messages => json!({
                "id": self.id, "type": "message", "role": "assistant", "model": self.model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": finish.anthropic(), "stop_sequence": null, "usage": usage.anthropic(),
            }),
        };
        body.to_string()
    }

    /// Events before the first token; may be empty.
    pub(super) fn begin(&self, usage: Usage) -> String {
        match self.api {
            Api::Chat => data(&self.delta(json!({"role": "assistant", "content": ""}), None)),
            Api::Completions => String::new(),
            Api::Responses => {
                event("response.created", json!({"response": self.response("", "in_progress", None)}))
                    + &event(
                        "response.output_item.added",
                        json!({"output_index": 0, "item": self.item("", "in_progress")}),
                    )
                    + &event("response.content_part.added", self.part(""))
            }
            Api::Messages => {
                let mut usage = usage.anthropic();
                usage["output_tokens"] = json!(0);
                let message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
                    "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage});
                event("message_start", json!({"message": message}))
                    + &event(
                        "content_block_start",
                        json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
                    )
            }
        }
    }

    /// The event of one token.
    pub(super) fn token(&self, n: u32) -> String {
        let text = word(n);
        match self.api {
            Api::Chat => data(&self.delta(json!({"content": text}), None)),
            Api::Completions => data(&self.completion_chunk(text, None)),
            Api::Responses => {
                let mut part = self.part("");
                part["delta"] = json!(text);
                part.as_object_mut().map(|part| part.remove("part"));
                event("response.output_text.delta", part)
            }
            Api::Messages => event(
                "content_block_delta",
                json!({"index": 0, "delta": {"type": "text_delta", "text": text}}),
            ),
        }
    }

    /// Events after the last token.
    pub(super) fn end(&self, finish: Finish, usage: Usage) -> String {
        let with_usage = |last: Value, object: &str| {
            let mut events = data(&last);
            if self.include_usage {
                events += &data(&self.openai(object, json!([]), Some(usage)));
            }
            events + "data: [DONE]\n\n"
        };
        match self.api {
            Api::Chat => with_usage(self.delta(json!({}), Some(finish)), "chat.completion.chunk"),
            Api::Completions => with_usage(self.completion_chunk("", Some(finish)), "text_completion"),
            Api::Responses => {
                let text = text(usage.output_tokens);
                let response = self.response(&text, "completed", Some(usage));
                event(
                    "response.output_item.done",
                    json!({"output_index": 0, "item": self.item(&text, "completed")}),
                ) + &event("response.completed", json!({"response": response}))
            }
            Api::Messages => {
                let delta = json!({"stop_reason": finish.anthropic(), "stop_sequence": null});
                event("content_block_stop", json!({"index": 0}))
                    + &event(
                        "message_delta",
                        json!({"delta": delta, "usage": {"output_tokens": usage.output_tokens}}),
                    )
                    + &event("message_stop", json!({}))
            }
        }
    }

    fn openai(&self, object: &str, choices: Value, usage: Option<Usage>) -> Value {
        let mut body = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": self.engine,
        });
        body["choices"] = choices;
        if let Some(usage) = usage {
            body["usage"] = usage.openai();
        }
        body
    }

    fn choice(&self, finish: Finish, mut choice: Value) -> Value {
        choice["index"] = json!(0);
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = json!(finish.openai());
        json!([choice])
    }

    fn delta(&self, delta: Value, finish: Option<Finish>) -> Value {
        let mut choice = json!([{"index": 0, "logprobs": null, "finish_reason": finish.map(Finish::openai)}]);
        choice[0]["delta"] = delta;
        self.openai("chat.completion.chunk", choice, None)
    }

    fn completion_chunk(&self, text: &str, finish: Option<Finish>) -> Value {
        let choice = json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": finish.map(Finish::openai)}]);
        self.openai("text_completion", choice, None)
    }

    fn response(&self, text: &str, status: &str, usage: Option<Usage>) -> Value {
        let output = if status == "completed" { json!([self.item(text, status)]) } else { json!([]) };
        json!({
            "id": self.id, "object": "response", "created_at": self.created, "model": self.model, "status": status,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "parallel_tool_calls": true,
            "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
            "output": output, "usage": usage.map(Usage::responses),
        })
    }

    fn item(&self, text: &str, status: &str) -> Value {
        let content = match text {
            "" => json!([]),
            text => json!([{"type": "output_text", "text": text, "annotations": []}]),
        };
        json!({"id": "msg_0", "type": "message", "role": "assistant", "status": status, "content": content})
    }

    fn part(&self, text: &str) -> Value {
        json!({"item_id": "msg_0", "output_index": 0, "content_index": 0,
            "part": {"type": "output_text", "text": text, "annotations": []}})
    }
}

fn data(body: &Value) -> String {
    format!("data: {body}\n\n")
}

fn event(kind: &str, mut body: Value) -> String {
    body["type"] = Value::from(kind);
    format!("event: {kind}\ndata: {body}\n\n")
}
