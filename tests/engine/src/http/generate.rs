//! Answers that are generated token by token.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::StatusCode;

use super::answer::{Answer, error};
use super::body::Source;
use super::driver::Ticket;
use super::prompt::{Request, tokenize};
use super::render::{Api, Finish, Rendering, Usage};
use super::{Canned, Mode, Shared};
use crate::core::{EventKind, Rejected, Work};

/// Answers a generating API.
pub(super) async fn generate(
    shared: &Arc<Shared>,
    api: Api,
    body: &[u8],
    request_id: Option<&str>,
) -> Answer {
    if let Mode::Canned(canned) = &shared.config.mode {
        return canned_answer(canned, body);
    }
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(problem) => return error(StatusCode::BAD_REQUEST, &format!("Invalid JSON: {problem}"), None),
    };
    if let Err(answer) = super::answer::check(shared, &request) {
        return answer;
    }
    if !request.has_prompt() {
        return error(StatusCode::BAD_REQUEST, "Either `messages`, `prompt` or `input` must be given", None);
    }
    let job = match Job::start(shared, api, &request, request_id) {
        Ok(job) => job,
        Err(answer) => return answer,
    };
    match request.is_stream() {
        true => Answer::stream(Source::Stream(Box::pin(job.events()))),
        false => Answer::json(StatusCode::OK, job.whole().await),
    }
}

struct Job {
    tokens: Tokens,
    rendering: Rendering,
    usage: Usage,
    finish: Finish,
    /// Tokens in all.
    total: u32,
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Token,
    End,
    Nothing,
}

/// Where tokens come from.
enum Tokens {
    Core { ticket: Ticket, admitted: bool },
    Timer { sent: u32, first: Duration, interval: Duration },
}

enum Progress {
    Cached(u32),
    Token(u32),
    Lost,
}

impl Tokens {
    async fn next(&mut self) -> Progress {
        match self {
            Self::Core { ticket, admitted } => loop {
                match ticket.next().await {
                    // After a preemption it is admitted again and finds its own blocks; that is no saving.
                    Some(EventKind::Admitted { cached_tokens }) => {
                        if !std::mem::replace(admitted, true) {
                            return Progress::Cached(cached_tokens);
                        }
                    }
                    Some(EventKind::Token { n }) => return Progress::Token(n),
                    Some(EventKind::Preempted) => {}
                    Some(EventKind::Finished) | None => return Progress::Lost,
                }
            },
            Self::Timer { sent, first, interval } => {
                let pause = if *sent == 0 { *first } else { *interval };
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                *sent += 1;
                Progress::Token(*sent)
            }
        }
    }
}

impl Job {
    fn start(
        shared: &Arc<Shared>,
        api: Api,
        request: &Request,
        request_id: Option<&str>,
    ) -> Result<Self, Answer> {
        let config = &shared.config;
        let model = request.model.clone().unwrap_or_else(|| config.models[0].clone());
        let prompt = tokenize(&request.text(), config.bytes_per_token, shared.block_tokens(), &model);
        let total = request.output_limit().unwrap_or(config.output_tokens).max(1);
        let too_long = || {
            let message = format!(
                "This model's maximum context length is {} tokens. However, you requested {} tokens ({} in the messages, \
                 {total} in the completion). Please reduce the length of the messages or completion.",
                config.max_model_len,
                u64::from(prompt.tokens) + u64::from(total),
                prompt.tokens,
            );
            error(StatusCode::BAD_REQUEST, &message, None)
        };
        if u64::from(prompt.tokens) + u64::from(total) > u64::from(config.max_model_len) {
            return Err(too_long());
        }
        let usage = Usage { prompt_tokens: prompt.tokens, cached_tokens: 0, output_tokens: total };
        let tokens = match (&config.mode, &shared.simulator) {
            (_, Some(simulator)) => {
                let prompt_tokens = prompt.tokens;
                let work = Work { blocks: prompt.blocks.into(), prompt_tokens, output_tokens: total };
                match simulator.submit(work) {
                    Ok(ticket) => Tokens::Core { ticket, admitted: false },
                    Err(Rejected::TooLong) => {
                        let message = "The request needs more KV cache than this engine has";
                        return Err(error(StatusCode::BAD_REQUEST, message, None));
                    }
                    Err(Rejected::QueueFull) => {
                        let message = "The waiting queue is full";
                        return Err(error(StatusCode::SERVICE_UNAVAILABLE, message, None));
                    }
                }
            }
            (Mode::Flat { first, interval }, None) => {
                Tokens::Timer { sent: 0, first: *first, interval: *interval }
            }
            (_, None) => Tokens::Timer { sent: 0, first: Duration::ZERO, interval: Duration::ZERO },
        };
        let finish = if request.output_limit().is_some() { Finish::Length } else { Finish::Stop };
        let rendering = rendering(shared, api, model, request_id, request.wants_usage());
        Ok(Self { tokens, rendering, usage, finish, total, next: Next::Token })
    }

    /// Waits for the last token; dropping the future aborts.
    async fn whole(mut self) -> String {
        loop {
            match self.tokens.next().await {
                Progress::Cached(tokens) => self.usage.cached_tokens = tokens,
                Progress::Token(n) if n < self.total => {}
                Progress::Token(_) | Progress::Lost => return self.rendering.whole(self.finish, self.usage),
            }
        }
    }

    /// One piece per token, and one for what follows the last; dropping the stream aborts.
    fn events(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut job| async move {
            job.piece().await.map(|piece| (Bytes::from(piece), job))
        })
    }

    async fn piece(&mut self) -> Option<String> {
        match self.next {
            Next::Nothing => return None,
            Next::End => {
                self.next = Next::Nothing;
                return Some(self.rendering.end(self.finish, self.usage));
            }
            Next::Token => {}
        }
        loop {
            match self.tokens.next().await {
                Progress::Cached(tokens) => self.usage.cached_tokens = tokens,
                Progress::Lost => return None,
                Progress::Token(n) => {
                    if n == self.total {
                        self.next = Next::End;
                    }
                    let begin = if n == 1 { self.rendering.begin(self.usage) } else { String::new() };
                    return Some(begin + &self.rendering.token(n));
                }
            }
        }
    }
}

fn rendering(
    shared: &Shared,
    api: Api,
    model: String,
    request_id: Option<&str>,
    include_usage: bool,
) -> Rendering {
    let prefix = match api {
        Api::Chat => "chatcmpl",
        Api::Completions => "cmpl",
        Api::Responses => "resp",
        Api::Messages => "msg",
    };
    let id = match request_id {
        Some(id) => format!("{prefix}-{id}"),
        None => format!("{prefix}-{:016x}", shared.next_id.fetch_add(1, Ordering::Relaxed)),
    };
    Rendering { api, id, model, engine: shared.name.clone(), created: shared.created, include_usage }
}

/// The same bytes for everyone. Looks for `"stream": true` only near both ends of the body: clients write the short
/// fields before or after the messages, and a long prompt should cost the bench nothing here.
fn canned_answer(canned: &Canned, body: &[u8]) -> Answer {
    const NEAR: usize = 256;
    let head = &body[..body.len().min(NEAR)];
    let tail = &body[body.len().saturating_sub(NEAR)..];
    let asks = |part: &[u8]| {
        [b"\"stream\":true".as_slice(), b"\"stream\": true"]
            .iter()
            .any(|w| part.windows(w.len()).any(|p| p == *w))
    };
    if !asks(head) && !asks(tail) {
        return Answer::new(StatusCode::OK, "application/json", Source::Whole(canned.reply.clone()));
    }
    let pieces = futures::stream::unfold((canned.clone(), 0), |(canned, sent)| async move {
        if sent > canned.chunks {
            return None;
        }
        if sent > 0 && !canned.interval.is_zero() {
            tokio::time::sleep(canned.interval).await;
        }
        let piece = if sent == canned.chunks {
            Bytes::from_static(b"data: [DONE]\n\n")
        } else {
            canned.chunk.clone()
        };
        Some((piece, (canned, sent + 1)))
    });
    Answer::stream(Source::Stream(Box::pin(pieces)))
}
