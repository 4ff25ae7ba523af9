//! Traffic in the background of a test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::client::Connection;
use harness::fleet::{chat, until};
use harness::gateway::Gateway;
use http::Method;
use tokio::task::JoinHandle;

/// Clients that send one request after the other until stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// `clients` of them, for `model`.
    pub(crate) fn start(gateway: &Gateway, model: &str, clients: usize) -> Self {
        Self::start_at(gateway.data, model, clients)
    }

    /// The same at an address.
    pub(crate) fn start_at(address: SocketAddr, model: &str, clients: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients)
            .map(|_| tokio::spawn(client(address, model.to_owned(), Arc::clone(&stop), Arc::clone(&sent))))
            .collect();
        Self { stop, sent, clients }
    }

    /// Stops it. Requests were answered to the last, and none of all has failed.
    pub(crate) async fn assert_no_failure(self) {
        let before = self.sent.load(Ordering::Relaxed);
        let more = before + 2 * self.clients.len() as u64;
        until("more requests", || async { (self.sent.load(Ordering::Relaxed) > more).then_some(()) }).await;
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.expect("the client ran"));
        }
        let sent = self.sent.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {sent}: {:?}", failures.len(), failures.first());
    }
}

/// Every tenth request is on a new connection, so that each worker gets some.
async fn client(
    address: SocketAddr,
    model: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let body = chat(&model, "hello").to_string();
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Connection::open(address).await;
        for _ in 0..10 {
            let answer = connection.call(Method::POST, "/v1/chat/completions", &[], body.clone()).await;
            sent.fetch_add(1, Ordering::Relaxed);
            if answer.status != 200 {
                failures.push(format!("{} {}", answer.status, answer.text()));
            }
        }
    }
    failures
}
