//! The proxies: the gateway, and nginx and haproxy with the configuration published in `tests/bench/peers`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::load::Connection;
use super::process::Process;

/// Longest wait for a proxy to answer.
const READY_MAX: Duration = Duration::from_secs(30);

const NGINX_CONF: &str = include_str!("../../peers/nginx.conf");
const HAPROXY_CFG: &str = include_str!("../../peers/haproxy.cfg");

/// The chain that the bars are about.
pub(crate) const CHAIN: &str =
    "policies: [{name: session-affinity}, {name: prefix-hash}, {name: load-aware}]";

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Peer {
    /// How tables call it.
    pub(crate) name: &'static str,
    /// Name and version.
    pub(crate) version: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) process: Process,
    /// Its manifests, configuration and logs.
    pub(crate) directory: tempfile::TempDir,
}

/// Whether a proxy writes a line per request, to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// No.
    Off,
    /// Yes.
    On,
}

/// How to start a gateway.
#[derive(Debug)]
pub(crate) struct GatewayOptions {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// Manifests, one file.
    pub(crate) manifest: String,
    /// Files of the policy directory.
    pub(crate) policies: Vec<(String, Vec<u8>)>,
    /// Workers.
    pub(crate) workers: usize,
    /// The only core it may use.
    pub(crate) core: Option<usize>,
    /// More flags.
    pub(crate) flags: Vec<String>,
}

/// Starts the gateway and waits until it is ready.
pub(crate) async fn gateway(options: &GatewayOptions) -> anyhow::Result<Peer> {
    let directory = tempfile::tempdir()?;
    let (manifests, policies) = (directory.path().join("manifests"), directory.path().join("policies"));
    std::fs::create_dir(&manifests)?;
    std::fs::create_dir(&policies)?;
    std::fs::write(manifests.join("manifests.yaml"), &options.manifest)?;
    for (name, bytes) in &options.policies {
        std::fs::write(policies.join(name), bytes)?;
    }
    let (address, metrics, probes) = (free_address()?, free_address()?, free_address()?);
    let mut args: Vec<String> =
        ["serve", "--drain-delay", "0s", "--drain-timeout", "1s"].map(String::from).into();
    for (flag, value) in [
        ("--manifests", manifests.display().to_string()),
        ("--policy-dir", policies.display().to_string()),
        ("--listen", address.to_string()),
        ("--metrics-bind-address", metrics.to_string()),
        ("--health-probe-bind-address", probes.to_string()),
        ("--workers", options.workers.to_string()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args.extend(options.flags.iter().cloned());
    let log = directory.path().join("log");
    let binary = options
        .binary
        .canonicalize()
        .with_context(|| format!("{} is missing: `make build` builds it", options.binary.display()))?;
    let mut process = Process::start(&binary, &args, options.core, &log)?;
    ready(&mut process, probes, "/readyz", &log).await?;
    let version = first_line(&binary, "--version");
    Ok(Peer { name: "gateway", version, address, process, directory })
}

/// The gateway's manifests: model `m` at `engines`, decided by `chain` (lines of the gateway's `spec`).
pub(crate) fn manifest(engines: &[SocketAddr], chain: &str) -> String {
    let urls: Vec<String> = engines.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: bench}}\nspec:\n  \
         {chain}\n  routes: [{{model: m, inferenceServiceRef: engines}}]\n---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: engines}}\nspec:\n  \
         modelName: m\n  backendRef: {{kind: Static, urls: [{}]}}\n",
        urls.join(", ")
    )
}

/// Starts nginx on `core` and waits until it answers.
pub(crate) async fn nginx(engines: &[SocketAddr], core: usize, log: AccessLog) -> anyhow::Result<Peer> {
    let binary = which("nginx")
        .context("nginx is missing: install it (Debian, Ubuntu: apt-get install nginx-light)")?;
    let directory = tempfile::tempdir()?;
    let address = free_address()?;
    let mut servers = String::new();
    for engine in engines {
        let _ = write!(servers, "server {engine} max_fails=0; ");
    }
    let access_log = match log {
        AccessLog::Off => "off".to_owned(),
        AccessLog::On => format!("{} main", directory.path().join("access.log").display()),
    };
    let text = NGINX_CONF
        .replace("@DIRECTORY@", &directory.path().display().to_string())
        .replace("@LISTEN@", &address.to_string())
        .replace("@SERVERS@", &servers)
        .replace("@ACCESS_LOG@", &access_log);
    let (file, log) = (directory.path().join("nginx.conf"), directory.path().join("log"));
    std::fs::write(&file, text)?;
    let args = [
        "-c".to_owned(),
        file.display().to_string(),
        "-p".to_owned(),
        directory.path().display().to_string(),
    ];
    let mut process = Process::start(&binary, &args, Some(core), &log)?;
    ready(&mut process, address, "/v1/models", &log).await?;
    Ok(Peer { name: "nginx", version: first_line(&binary, "-v"), address, process, directory })
}

/// Starts haproxy on `core`, if it is installed, and waits until it answers.
pub(crate) async fn haproxy(engines: &[SocketAddr], core: usize) -> anyhow::Result<Option<Peer>> {
    let Some(binary) = which("haproxy") else { return Ok(None) };
    let directory = tempfile::tempdir()?;
    let address = free_address()?;
    let mut servers = String::new();
    for (index, engine) in engines.iter().enumerate() {
        let _ = writeln!(servers, "    server e{index} {engine}");
    }
    let text = HAPROXY_CFG.replace("@LISTEN@", &address.to_string()).replace("@SERVERS@", &servers);
    let (file, log) = (directory.path().join("haproxy.cfg"), directory.path().join("log"));
    std::fs::write(&file, text)?;
    let args = ["-f".to_owned(), file.display().to_string(), "-db".to_owned()];
    let mut process = Process::start(&binary, &args, Some(core), &log)?;
    ready(&mut process, address, "/v1/models", &log).await?;
    Ok(Some(Peer { name: "haproxy", version: first_line(&binary, "-v"), address, process, directory }))
}

/// Asks `path` until the answer is 200.
async fn ready(process: &mut Process, address: SocketAddr, path: &str, log: &Path) -> anyhow::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let start = Instant::now();
    while start.elapsed() < READY_MAX {
        if let Ok(mut connection) = Connection::open(address).await
            && let Ok(answer) = connection.exchange(request.as_bytes()).await
            && answer.is_ok()
        {
            return Ok(());
        }
        anyhow::ensure!(process.is_running(), "ended at once: {}", std::fs::read_to_string(log)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("not ready within {READY_MAX:?}: {}", std::fs::read_to_string(log)?)
}

/// An address that nobody listens on at the moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where `program` is installed. Debian keeps servers out of the path of ordinary users.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// What a program says of its version, on whichever output.
fn first_line(binary: &Path, flag: &str) -> String {
    let output = std::process::Command::new(binary).arg(flag).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}
