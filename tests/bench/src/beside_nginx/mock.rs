//! A mock engine that costs next to nothing: many listeners, canned answers, streams by the clock.
//!
//! It reads as little of a request as it can: the length of its body, and of the body's first bytes whether to stream and how
//! many chunks. `/metrics` and `/v1/models` answer as an engine's would, so that gateways that look there see one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::wire;

/// Time between two chunks of a stream.
pub(crate) const CHUNK_INTERVAL: Duration = Duration::from_millis(50);

/// One event of a stream, in its frame of the chunked encoding.
const CHUNK: &str = "aa\r\ndata: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n\r\n";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    transfer-encoding: chunked\r\n\r\n";
const STREAM_END: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
const ANSWER: &str = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Sixteen words of an answer, no more, \
    because the answer is not what is measured here at all.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\
    \"usage\":{\"prompt_tokens\":256,\"completion_tokens\":16,\"total_tokens\":272}}";
const MODELS: &str = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1700000000,\
    \"owned_by\":\"vllm\"}]}";
const METRICS: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} 4\n\
    # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 0\n\
    # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.31\n\
    # TYPE vllm:prefix_cache_queries_total counter\nvllm:prefix_cache_queries_total{model_name=\"m\"} 1000\n\
    # TYPE vllm:prefix_cache_hits_total counter\nvllm:prefix_cache_hits_total{model_name=\"m\"} 400\n";

/// Starts `count` engines on the current runtime, each on an address of its own. They end with the runtime.
pub(crate) async fn start(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    }
    Ok(addresses)
}

/// One connection. Ends when the client does.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut start = 0;
    loop {
        let mut filled = start;
        let head = loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            if let Some(head) = wire::head_end(&buffer[..filled]) {
                break head;
            }
            if filled == buffer.len() {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        };
        let body = wire::content_length(&buffer[..head]).unwrap_or(0);
        // What decides is at the front of the body; a client that sends only the head first is waited for.
        while filled - head < body.min(PEEK) {
            filled += read_some(&mut stream, &mut buffer[filled..]).await?;
        }
        let work = Work::of(&buffer[..head], &buffer[head..filled.min(head + PEEK)]);
        let mut left = (head + body).saturating_sub(filled);
        while left > 0 {
            let most = left.min(buffer.len());
            left -= read_some(&mut stream, &mut buffer[..most]).await?;
        }
        work.answer(&mut stream).await?;
        start = 0;
    }
}

/// How much of a body is looked at, bytes.
const PEEK: usize = 64;

async fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// What a request asks for.
#[derive(Debug)]
enum Work {
    Whole(&'static str),
    Stream { chunks: usize },
    NotFound,
}

impl Work {
    fn of(head: &[u8], body: &[u8]) -> Self {
        if head.starts_with(b"POST") {
            return match wire::number_after(body, b"\"stream\":true,\"max_tokens\":") {
                Some(chunks) => Self::Stream { chunks },
                None => Self::Whole(ANSWER),
            };
        }
        match head.split(|byte| *byte == b' ').nth(1) {
            Some(b"/metrics") => Self::Whole(METRICS),
            Some(b"/v1/models") => Self::Whole(MODELS),
            _ => Self::NotFound,
        }
    }

    async fn answer(self, stream: &mut TcpStream) -> std::io::Result<()> {
        match self {
            Self::Whole(body) => {
                let content_type = if body == METRICS { "text/plain" } else { "application/json" };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + body).as_bytes()).await
            }
            Self::NotFound => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await,
            Self::Stream { chunks } => {
                stream.write_all([STREAM_HEAD, CHUNK].concat().as_bytes()).await?;
                let mut clock = tokio::time::interval(CHUNK_INTERVAL);
                clock.tick().await;
                for _ in 1..chunks {
                    clock.tick().await;
                    stream.write_all(CHUNK.as_bytes()).await?;
                }
                stream.write_all(STREAM_END.as_bytes()).await
            }
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_of_a_chunk_says_its_length() {
        for framed in [CHUNK, &STREAM_END[..STREAM_END.len() - 5]] {
            let (length, rest) = framed.split_once("\r\n").unwrap();
            assert_eq!(usize::from_str_radix(length, 16).unwrap(), rest.len() - 2);
        }
    }
}
