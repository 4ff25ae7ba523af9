//! Asks one exporter, once it is known what it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::endpoint::{EngineAuth, Target};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::page::PageScanner;
use super::rows::Gpu;
use super::{Exporter, query};
use crate::observe::client::{self, Names, ProbeError, Question, get, get_whole};

/// Largest page or answer that is read, bytes. Pages are scanned as they stream; Prometheus' answers are held.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Most addresses of one name that are asked: one exporter per node behind a headless service.
const PAGES_MAX: usize = 256;
/// Pages of one exporter asked at a time.
const PAGES_AT_ONCE: usize = 16;

/// What an exporter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text page; one per address of its name.
    Page,
    /// A Prometheus server, or what speaks its API.
    Prometheus,
}

/// How to ask.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) auth: Option<Arc<EngineAuth>>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) names: Names,
    /// Longest time for one answer.
    pub(super) limit: Duration,
}

/// What one address said.
type Page = (Option<SocketAddr>, Result<Vec<Gpu>, ProbeError>);

/// What came of asking.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) kind: Kind,
    /// By address; `None` is wherever the name leads.
    pub(super) pages: Vec<Page>,
}

/// Asks as the kind demands; an exporter of unknown kind is taken for Prometheus if it answers like one, and for pages if not:
/// behind one name may be many exporters, of which the one that was asked may be away.
pub(super) async fn look(
    exporter: &Exporter,
    kind: Option<Kind>,
    access: &Access,
) -> Result<Look, ProbeError> {
    if kind != Some(Kind::Page) {
        match timed(access.limit, Box::pin(ask_api(exporter, access))).await {
            Ok(gpus) => return Ok(Look { kind: Kind::Prometheus, pages: vec![(None, Ok(gpus))] }),
            Err(error) if kind.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    let pages = pages(exporter, access).await?;
    Ok(Look { kind: Kind::Page, pages })
}

async fn timed<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    timeout(limit, asked).await.unwrap_or(Err(ProbeError::Timeout))
}

/// The three families, and how old Prometheus' samples are. A server that cannot tell the age is believed.
async fn ask_api(exporter: &Exporter, access: &Access) -> Result<Vec<Gpu>, ProbeError> {
    let ask = async |query: &str| {
        let path = format!("{}/api/v1/query?query={query}", exporter.api_base());
        get_whole(&question(exporter, access, &path, "application/json")).await
    };
    let (values, times) = tokio::join!(ask(query::VALUES), ask(query::TIMES));
    let gpus = query::read(&values?, times.ok().as_deref()).ok_or(ProbeError::Content)?;
    Ok(gpus)
}

async fn pages(
    exporter: &Exporter,
    access: &Access,
) -> Result<Vec<(Option<SocketAddr>, Result<Vec<Gpu>, ProbeError>)>, ProbeError> {
    let mut left = timed(access.limit, addresses(exporter.target(), &access.names)).await?;
    let is_one = left.len() == 1;
    let mut running = JoinSet::new();
    let mut pages = Vec::with_capacity(left.len());
    loop {
        while running.len() < PAGES_AT_ONCE
            && let Some(address) = left.pop()
        {
            let (exporter, access) = (exporter.clone(), access.clone());
            running.spawn(async move {
                let read = timed(access.limit, page(&exporter, &access, address, is_one)).await;
                (address, read)
            });
        }
        match running.join_next().await {
            Some(Ok(read)) => pages.push(read),
            Some(Err(_)) => {}
            None => return Ok(pages),
        }
    }
}

/// Every address of the name, of one family; `None` alone where the name means this machine.
async fn addresses(target: &Target, names: &Names) -> Result<Vec<Option<SocketAddr>>, ProbeError> {
    let mut all = names.addresses(&target.host, target.port).await.map_err(ProbeError::Connect)?;
    if all.iter().all(|address| address.ip().is_loopback()) {
        return Ok(vec![None]);
    }
    if all.iter().any(SocketAddr::is_ipv4) {
        // A machine that has both kinds is one machine.
        all.retain(SocketAddr::is_ipv4);
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(PAGES_MAX);
    Ok(all.into_iter().map(Some).collect())
}

async fn page(
    exporter: &Exporter,
    access: &Access,
    address: Option<SocketAddr>,
    is_one: bool,
) -> Result<Vec<Gpu>, ProbeError> {
    let mut question = question(exporter, access, exporter.page_path(), "text/plain");
    question.address = address;
    let mut scanner = PageScanner::new(machine(exporter.target(), address.map(|to| to.ip()), is_one));
    get(&question, |piece| scanner.feed(piece)).await?;
    Ok(scanner.finish())
}

/// Names of the machine that an exporter's address means.
fn machine(target: &Target, address: Option<IpAddr>, is_one: bool) -> Vec<Box<str>> {
    match address {
        None => ["127.0.0.1", "localhost", "::1"].map(Box::from).to_vec(),
        Some(address) => {
            let mut names = vec![address.to_string().into_boxed_str()];
            if is_one {
                names.push((&*target.host).into());
            }
            names
        }
    }
}

fn question(exporter: &Exporter, access: &Access, path: &str, accept: &'static str) -> Question {
    // The path is whole already.
    let target = Target { base_path: "".into(), ..exporter.target().clone() };
    Question {
        target,
        address: None,
        auth: access.auth.clone(),
        access: client::Access { tls: access.tls.clone(), names: access.names.clone() },
        port: None,
        path: path.into(),
        accept,
        bytes_max: ANSWER_BYTES_MAX,
    }
}
