//! Several engines at once, short request bodies, and waits that end.

use std::future::Future;
use std::time::Duration;

use engine::http::{Config, Engine, EngineHandle};
use serde_json::{Value, json};

use crate::gateway::PATIENCE;

/// Starts `count` engines alike, in the order of their URLs: that of a pool.
pub async fn engines(count: usize, config: &Config) -> Vec<EngineHandle> {
    let mut engines = Vec::with_capacity(count);
    for _ in 0..count {
        engines.push(Engine::start(config.clone()).await.expect("an engine starts"));
    }
    engines.sort_by_key(EngineHandle::url);
    engines
}

/// Starts one engine that serves `model`.
pub async fn engine(model: &str) -> EngineHandle {
    Engine::start(Config::model(model)).await.expect("an engine starts")
}

/// Their URLs.
pub fn urls(engines: &[EngineHandle]) -> Vec<String> {
    engines.iter().map(EngineHandle::url).collect()
}

/// Ends what should have ended long ago: panics when `future` takes longer than [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Asks again and again until `wanted` gives something: for what tells nobody when it changes, such as a page.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut wanted: impl FnMut() -> F) -> T {
    let poll = async {
        loop {
            if let Some(value) = wanted().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(what, poll).await
}

/// A chat of one message.
pub fn chat(model: &str, content: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

/// The same, streamed.
pub fn chat_stream(model: &str, content: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}], "stream": true})
}
