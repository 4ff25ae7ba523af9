//! Looks at GPU exporters: DCGM exporter pages, or a Prometheus server that has scraped them.
//!
//! One task asks every exporter once an interval and writes what the GPUs of an endpoint do into the endpoint's own cells.
//! What was not said, makes no sense, or is older than three intervals is unknown there, never zero: policies decide by
//! something else then. Nothing of it is near the request path.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::endpoint::{EngineAuth, EngineTls};
use domain::published::Published;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::ProbeError;
use super::client::{Names, trust};
use crate::clock::Clock;
use crate::metrics::GpuMetrics;
use crate::publish::Report;
use crate::start::stopped;

mod ask;
mod exporter;
mod page;
mod query;
mod rows;

pub use exporter::Exporter;

use ask::{Access, Kind, Look};
pub(super) use page::labels;
pub(crate) use rows::Gpu;
use rows::Rows;

/// Largest file of a token or of a CA bundle, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A reading is used for so many intervals.
const INTERVALS_MAX: u64 = 3;
/// What Prometheus has may be so old all the same, as it scrapes at a pace of its own: three times half a minute,
/// milliseconds.
const SCRAPED_AGE_MAX_MS: u64 = 90_000;
/// Most exporters that may be named.
pub const EXPORTERS_MAX: usize = 64;

/// Which exporters to ask.
#[derive(Clone, Debug)]
pub struct GpuSettings {
    /// The exporters (`--gpu-metrics-endpoint`), at most [`EXPORTERS_MAX`]. None: nobody is asked. Default: none.
    pub exporters: Vec<Exporter>,
    /// Between two readings of each (`--gpu-metrics-interval`). Default 5 s, at least 10 ms. What is older than three of
    /// them is unknown.
    pub interval: Duration,
    /// File of a bearer token to show (`--gpu-metrics-token-file`), read before each round, as tokens rotate. Default: none.
    pub token_file: Option<PathBuf>,
    /// PEM bundle to trust where an exporter speaks TLS (`--gpu-metrics-ca-file`). Default: the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self { exporters: Vec::new(), interval: Duration::from_secs(5), token_file: None, ca_file: None }
    }
}

/// The task. [`GpuObserver::run`] ends when told to, and takes its questions with it.
#[derive(Debug)]
pub(crate) struct GpuObserver {
    /// Where the snapshot in force stands.
    pub(crate) published: Published,
    /// Says when it has changed.
    pub(crate) reports: watch::Receiver<Report>,
    /// The gateway's clock.
    pub(crate) clock: Clock,
    /// Whom to ask, and how often.
    pub(crate) settings: GpuSettings,
    /// Shows what was read.
    pub(crate) metrics: GpuMetrics,
    /// Where names lead.
    pub(crate) names: Names,
}

/// An exporter, and what it said.
#[derive(Debug)]
struct Watched {
    exporter: Exporter,
    kind: Option<Kind>,
    /// By page; Prometheus has one.
    readings: HashMap<Option<SocketAddr>, Reading>,
    failing: bool,
}

/// What one page said last.
#[derive(Debug)]
struct Reading {
    gpus: Vec<Gpu>,
    read_ms: u64,
}

/// TLS settings, and the bundle that they were made of.
#[derive(Debug, Default)]
struct Trusted(Option<(Option<Vec<u8>>, Arc<ClientConfig>)>);

/// What is kept between rounds for asking.
#[derive(Debug, Default)]
struct Means {
    trusted: Trusted,
}

impl GpuObserver {
    /// Whether there is anybody to ask.
    pub(crate) fn is_needed(&self) -> bool {
        !self.settings.exporters.is_empty()
    }

    /// Observes until `stop` turns true (or its sender is gone).
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut all: Vec<Watched> = self.settings.exporters.drain(..).map(watched).collect();
        all.iter().for_each(|watched| self.metrics.watch(watched.exporter.url()));
        let mut means = Means::default();
        let mut tick = interval(self.settings.interval.max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = self.reports.changed() => match changed {
                    // Endpoints that are new should not wait for the next round.
                    Ok(()) => self.apply(&all),
                    Err(_) => return,
                },
                _ = tick.tick() => tokio::select! {
                    () = stopped(&mut stop) => return,
                    () = self.round(&mut all, &mut means) => {}
                },
            }
        }
    }

    /// Asks everybody at once, and takes over what they said.
    async fn round(&self, all: &mut [Watched], means: &mut Means) {
        let access = self.access(all, means).await;
        let mut looks: JoinSet<(usize, Result<Look, ProbeError>)> = JoinSet::new();
        for (index, watched) in all.iter().enumerate() {
            let (exporter, kind, access) = (watched.exporter.clone(), watched.kind, access.clone());
            looks.spawn(async move { (index, Box::pin(ask::look(&exporter, kind, &access)).await) });
        }
        // A look cannot be cancelled while we run, and a panic in one is a bug that the tests would show.
        while let Some(Ok((index, look))) = looks.join_next().await {
            self.take(&mut all[index], look);
        }
        let (now_ms, interval_ms) = (self.clock.now_ms(), self.interval_ms());
        for watched in all.iter_mut() {
            watched.readings.retain(|_, reading| now_ms < reading.read_ms + INTERVALS_MAX * interval_ms);
        }
        self.show(all);
        self.apply(all);
    }

    /// How to ask this time: a fresh token, the bundle of now.
    async fn access(&self, all: &[Watched], means: &mut Means) -> Access {
        let auth = match &self.settings.token_file {
            None => None,
            Some(file) => match read_small(file).await {
                Ok(token) => bearer(String::from_utf8_lossy(&token).trim()),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "the token for GPU exporters cannot be read");
                    None
                }
            },
        };
        let needs_tls = all.iter().any(|watched| watched.exporter.target().tls);
        let tls = if needs_tls { means.trusted.config(self.settings.ca_file.as_ref()).await } else { None };
        let limit = (self.settings.interval * 3 / 4).clamp(Duration::from_secs(1), Duration::from_secs(5));
        Access { auth, tls, names: self.names.clone(), limit }
    }

    fn take(&self, watched: &mut Watched, look: Result<Look, ProbeError>) {
        let url = watched.exporter.url();
        watched.kind = None;
        let failure = match look {
            Ok(look) => {
                // Who tells of no GPU is found out anew each time: something else may stand there now, and a slow Prometheus has a
                // page, too. One of many pages that fails says nothing about the others.
                let is_it =
                    look.pages.iter().any(|(_, page)| page.as_ref().is_ok_and(|gpus| !gpus.is_empty()));
                watched.kind = is_it.then_some(look.kind);
                let mut failure = None;
                for (place, page) in look.pages {
                    match page {
                        Ok(gpus) => {
                            let reading = Reading { gpus, read_ms: self.clock.now_ms() };
                            watched.readings.insert(place, reading);
                            self.metrics.read(url);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                failure
            }
            Err(error) => Some(error),
        };
        match &failure {
            Some(error) => {
                self.metrics.failed(url);
                if !watched.failing {
                    tracing::warn!(exporter = url, %error, "a GPU exporter gives no numbers");
                }
            }
            None if watched.failing => tracing::info!(exporter = url, "a GPU exporter gives numbers again"),
            None => {}
        }
        watched.failing = failure.is_some();
    }

    /// What counts now, of all exporters.
    fn fresh<'a>(&self, all: &'a [Watched]) -> impl Iterator<Item = &'a Gpu> + use<'a> {
        let (now_ms, interval_ms) = (self.clock.now_ms(), self.interval_ms());
        let scraped_max_ms = SCRAPED_AGE_MAX_MS.max(INTERVALS_MAX * interval_ms);
        let readings = all.iter().flat_map(|watched| watched.readings.values());
        readings.flat_map(move |reading| {
            let since_ms = now_ms.saturating_sub(reading.read_ms);
            reading.gpus.iter().filter(move |gpu| gpu.age_ms.saturating_add(since_ms) <= scraped_max_ms)
        })
    }

    fn show(&self, all: &[Watched]) {
        self.metrics.show(self.fresh(all));
    }

    /// Writes into the cells of every endpoint what its GPUs do.
    fn apply(&self, all: &[Watched]) {
        let rows = Rows::new(self.fresh(all));
        for endpoint in &self.published.load_full().endpoints {
            let usage = rows.of(&endpoint.spec);
            endpoint.state.store_gpu(usage.util, usage.memory);
        }
    }

    fn interval_ms(&self) -> u64 {
        u64::try_from(self.settings.interval.as_millis()).unwrap_or(u64::MAX / 8).max(10)
    }
}

impl Trusted {
    /// Settings that believe the bundle, or the system's roots; `None` where they cannot be used, which is logged.
    async fn config(&mut self, ca_file: Option<&PathBuf>) -> Option<Arc<ClientConfig>> {
        let pem = match ca_file {
            None => None,
            Some(file) => match read_small(file).await {
                Ok(pem) => Some(pem),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "the CA bundle for GPU exporters cannot be read");
                    return None;
                }
            },
        };
        if let Some((known, config)) = &self.0
            && *known == pem
        {
            return Some(Arc::clone(config));
        }
        let config = match &pem {
            None => trust::system_roots(),
            Some(pem) => trust::client_config(&EngineTls {
                ca_pem: Some(pem.as_slice().into()),
                insecure_skip_verify: false,
                names: Vec::new(),
            }),
        }?;
        self.0 = Some((pem, Arc::clone(&config)));
        Some(config)
    }
}

/// A token or a bundle: a regular file, off this thread, as a file system may be slow.
async fn read_small(file: &Path) -> io::Result<Vec<u8>> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || files::read(&file, FILE_BYTES_MAX)).await.map_err(io::Error::other)?
}

fn watched(exporter: Exporter) -> Watched {
    Watched { exporter, kind: None, readings: HashMap::new(), failing: false }
}

fn bearer(token: &str) -> Option<Arc<EngineAuth>> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(Arc::new(EngineAuth { header: AUTHORIZATION, value, forward_client: false }))
}

#[cfg(test)]
mod tests;
