//! Plays a workload as clients would: each request at its time, none before what it continues has been answered, every
//! answer streamed and read to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use engine::workload::Workload;
use harness::client::{self, Connection};
use harness::gateway::Gateway;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::fleet::{AGENT_MODEL, CHAT_MODEL, Phase, gateway};
use crate::say;

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// The part of the trace that each chain decides.
const PHASES: [Phase; 3] = [Phase::Stateful, Phase::RoundRobin, Phase::Stateful];

/// What came of one request.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    /// Which third of the trace it belongs to.
    pub(crate) phase: usize,
    /// The policy that decided, as the gateway said.
    pub(crate) policy: String,
    /// From sending to the first event.
    pub(crate) first_event: Duration,
    /// Prompt tokens, and how many of them the engine had cached, as the engine said.
    pub(crate) prompt_tokens: u64,
    /// See `prompt_tokens`.
    pub(crate) cached_tokens: u64,
    /// Why it was lost, if it was.
    pub(crate) error: Option<String>,
}

impl Played {
    /// Not answered whole with 200.
    pub(crate) fn is_lost(&self) -> bool {
        self.error.is_some()
    }
}

/// A workload on its way.
#[derive(Debug)]
pub(crate) struct Load {
    workload: Workload,
    scale: u32,
    address: SocketAddr,
    /// One per request; closed when it has ended, which is what its follow-ups wait for.
    ended: Vec<Semaphore>,
    done: AtomicUsize,
    lost: AtomicUsize,
    idle: std::sync::Mutex<Vec<Connection>>,
}

impl Load {
    /// Nothing is sent yet.
    pub(crate) fn new(workload: Workload, scale: u32, address: SocketAddr) -> Arc<Self> {
        let ended = workload.requests.iter().map(|_| Semaphore::new(0)).collect();
        let (done, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { workload, scale, address, ended, done, lost, idle: std::sync::Mutex::default() })
    }

    /// Sends everything, and edits the gateway's manifest at each third.
    pub(crate) async fn play(self: &Arc<Self>, process: &Gateway) -> Vec<Played> {
        let start = Instant::now();
        let third = self.workload.span() / 3;
        let mut tasks = Vec::with_capacity(self.workload.requests.len());
        for index in 0..self.workload.requests.len() {
            let load = Arc::clone(self);
            tasks.push(tokio::spawn(async move { load.one(index, start, third).await }));
        }
        let all = async {
            let mut played = Vec::with_capacity(tasks.len());
            for task in tasks {
                played.push(task.await.expect("a request's task does not panic"));
            }
            played
        };
        tokio::pin!(all);
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        let mut phase = 0;
        loop {
            tokio::select! {
                played = &mut all => return played,
                _ = progress.tick() => self.show(start, phase),
                () = tokio::time::sleep_until(start + third * (phase as u32 + 1)), if phase + 1 < PHASES.len() => {
                    phase += 1;
                    let from = process.log_len();
                    let edited = Instant::now();
                    process.write("gateway.yaml", &gateway(PHASES[phase]));
                    process.published_after(from).await;
                    say(format_args!(
                        "        gateway.yaml edited: {} in force after {:.0} ms; requests in flight meanwhile: {}",
                        PHASES[phase].policies(), edited.elapsed().as_secs_f64() * 1e3, process.metric_sum("wicketgate_requests_in_flight").await,
                    ));
                }
            }
        }
    }

    fn show(&self, start: Instant, phase: usize) {
        say(format_args!(
            "{:5.0} s  {:5} of {} requests answered, {} lost; policies: {}",
            start.elapsed().as_secs_f64(),
            self.done.load(Relaxed),
            self.workload.requests.len(),
            self.lost.load(Relaxed),
            PHASES[phase].policies()
        ));
    }

    async fn one(&self, index: usize, start: Instant, third: Duration) -> Played {
        let request = &self.workload.requests[index];
        tokio::time::sleep_until(start + request.arrival).await;
        if let Some(earlier) = request.follows {
            // Waits until the earlier one closes its semaphore; there are no permits to be had.
            let _ = self.ended[earlier].acquire().await;
        }
        let phase =
            ((start.elapsed().as_secs_f64() / third.as_secs_f64().max(1e-9)) as usize).min(PHASES.len() - 1);
        let mut played = Played {
            phase,
            policy: String::new(),
            first_event: Duration::ZERO,
            prompt_tokens: 0,
            cached_tokens: 0,
            error: None,
        };
        if let Err(error) = self.exchange(index, &mut played).await {
            played.error = Some(error.to_string());
            self.lost.fetch_add(1, Relaxed);
        }
        self.done.fetch_add(1, Relaxed);
        self.ended[index].close();
        played
    }

    async fn exchange(&self, index: usize, played: &mut Played) -> anyhow::Result<()> {
        let request = &self.workload.requests[index];
        let model = if request.session % 10 == 9 { AGENT_MODEL } else { CHAT_MODEL };
        let body = self.workload.chat_body(request, self.scale, (model, true));
        let session = format!("session-{}", request.session);
        let kept = self.idle.lock().expect("idle connections").pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.address).await,
        };
        let head = [("x-session-id", session.as_str())];
        let sent = Instant::now();
        let response = connection
            .send(client::request(self.address, Method::POST, "/v1/chat/completions", &head, body))
            .await?;
        anyhow::ensure!(response.status().is_success(), "status {}", response.status());
        if let Some(policy) = response.headers().get("x-wicketgate-policy") {
            played.policy = policy.to_str()?.to_owned();
        }
        let mut body = response.into_body();
        let mut tail = Bytes::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if played.first_event.is_zero() {
                    played.first_event = sent.elapsed();
                }
                tail = if tail.len() < 2_048 { [tail, data].concat().into() } else { data };
            }
        }
        let text = String::from_utf8_lossy(&tail);
        anyhow::ensure!(text.ends_with("data: [DONE]\n\n"), "the stream was cut");
        let usage = text
            .lines()
            .rev()
            .filter_map(|line| line.strip_prefix("data: "))
            .find(|line| line.contains("\"usage\""));
        let usage: Value = serde_json::from_str(usage.unwrap_or("null"))?;
        played.prompt_tokens = usage["usage"]["prompt_tokens"].as_u64().unwrap_or_default();
        played.cached_tokens =
            usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_default();
        self.idle.lock().expect("idle connections").push(connection);
        Ok(())
    }
}
