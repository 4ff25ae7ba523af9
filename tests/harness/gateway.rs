//! The real `wicketgate` binary as a child process, over a temporary directory of manifests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::client::{self, Answer};
use crate::fleet::{soon, until};

/// Longest wait for anything that must come; reaching it fails the test. It is no claim: a machine may be busy with much else,
/// and the gateway's control threads and its compiler are polite. What must come *soon* is in [`crate::bars`].
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Debug, Default)]
pub struct Options {
    /// The binary; absent, [`binary`].
    pub binary: Option<PathBuf>,
    /// Flags beside the ones that the harness sets (addresses on port 0, JSON logs, no drain delay).
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Files of the manifests directory before the start.
    pub files: Vec<(String, String)>,
    /// Files of the policy directory before the start.
    pub policies: Vec<(String, Vec<u8>)>,
    /// Serve from the cluster that the environment names, not from a directory.
    pub from_cluster: bool,
    /// Flags that the harness would set and leaves to their defaults.
    pub without: Vec<&'static str>,
}

impl Options {
    /// With one manifest file.
    pub fn manifest(text: impl Into<String>) -> Self {
        Self { files: vec![("manifests.yaml".into(), text.into())], ..Self::default() }
    }
    /// And these flags.
    #[must_use]
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(String::from));
        self
    }
}

/// A running gateway. Dropping it kills the process.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    directory: TempDir,
    lines: watch::Receiver<usize>,
    log: Arc<Mutex<Vec<Value>>>,
    /// Data plane, JSON dialect.
    pub data: SocketAddr,
    /// Data plane, text dialect (only with `--port`).
    pub text: Option<SocketAddr>,
    /// Data plane over TLS (only with `--listen-tls`).
    pub tls: Option<SocketAddr>,
    /// Metrics and admin pages.
    pub admin: SocketAddr,
    /// Probes.
    pub probes: SocketAddr,
}

/// The binary under test: `WICKETGATE_BIN`, else the debug build of this checkout.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("WICKETGATE_BIN")
        .map_or_else(|| root().join("target/debug/wicketgate"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: `make test` builds it (cargo build --bin wicketgate)",
        path.display()
    );
    path
}

/// Whether the binary under test is a release build, by the folder it is in.
pub fn is_optimised() -> bool {
    binary().parent().is_some_and(|folder| folder.ends_with("release"))
}

/// Top of the checkout.
pub fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// A component that the policy build wrote: `prefix-hash`, or `testing/hostile`.
pub fn component(name: &str) -> Vec<u8> {
    let path = root().join(format!("target/policies/{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `make policies` builds it", path.display()))
}

impl Gateway {
    /// Starts the binary and waits until it listens. It may not be ready yet: see [`Self::ready`].
    pub async fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let manifests = directory.path().join("manifests");
        let policies = directory.path().join("policies");
        std::fs::create_dir(&manifests).expect("manifests directory");
        std::fs::create_dir(&policies).expect("policies directory");
        for (name, text) in &options.files {
            std::fs::write(manifests.join(name), text).expect("manifest written");
        }
        for (name, bytes) in &options.policies {
            std::fs::write(policies.join(name), bytes).expect("policy written");
        }
        let mut command = Command::new(options.binary.clone().unwrap_or_else(binary));
        command.arg("serve").arg("--policy-dir").arg(&policies);
        if !options.from_cluster {
            command.arg("--manifests").arg(&manifests);
        }
        for (flag, value) in [
            ("--listen", "127.0.0.1:0"),
            ("--metrics-bind-address", "127.0.0.1:0"),
            ("--health-probe-bind-address", "127.0.0.1:0"),
            ("--log-format", "json"),
            ("--drain-delay", "0s"),
            // Longer than any test has patience: who ends in time has drained, and not given up.
            ("--drain-timeout", "1h"),
        ] {
            if !options.args.iter().any(|arg| arg == flag) && !options.without.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(&options.args).envs(options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the gateway starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = watch::channel(0);
        let stderr = child.stderr.take().expect("standard error is piped");
        let sink = Arc::clone(&log);
        tokio::spawn(async move {
            let mut reader = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sink.lock().expect("log").push(value);
                sender.send_modify(|count| *count += 1);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self {
            child,
            directory,
            lines,
            log,
            data: nowhere,
            text: None,
            tls: None,
            admin: nowhere,
            probes: nowhere,
        };
        let listening = gateway.logged(|line| line["message"] == "listening").await;
        let address = |key: &str| listening[key].as_str().and_then(|text| text.parse().ok());
        gateway.data = address("data").expect("the data address");
        gateway.text = address("data_text");
        gateway.tls = address("data_tls");
        gateway.admin = address("admin").unwrap_or(nowhere);
        gateway.probes = address("probes").unwrap_or(nowhere);
        gateway
    }

    /// Starts the binary and waits until `/readyz` would say yes and every policy is in its place.
    pub async fn ready(options: Options) -> Self {
        let gateway = Self::start(options).await;
        gateway.settled().await;
        gateway
    }

    /// Waits until it is ready, and until no policy is being prepared any more: where compilers are slow, a gateway is ready
    /// without its policies.
    pub async fn settled(&self) {
        self.logged(|line| line["message"] == "ready").await;
        until("every policy is prepared or refused", || async {
            (!self.admin_page("/findings").await.text().contains("PolicyPreparing")).then_some(())
        })
        .await;
    }

    /// Waits for a log line and returns it. Looks at lines of the past too.
    pub async fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.logged_after(0, wanted).await
    }

    /// As [`Self::logged`], for lines from number `from` on (see [`Self::log_len`]).
    pub async fn logged_after(&self, from: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut lines = self.lines.clone();
        let search = async {
            loop {
                lines.borrow_and_update();
                let found =
                    self.log.lock().expect("log").iter().skip(from).find(|line| wanted(line)).cloned();
                if let Some(line) = found {
                    return line;
                }
                assert!(lines.changed().await.is_ok(), "the gateway ended:\n{}", self.log_text());
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(line) => line,
            Err(_) => panic!("no such log line within {PATIENCE:?}:\n{}", self.log_text()),
        }
    }

    /// How many lines were logged so far.
    pub fn log_len(&self) -> usize {
        self.log.lock().expect("log").len()
    }

    /// The log so far, for a failing test.
    pub fn log_text(&self) -> String {
        self.log.lock().expect("log").iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits for a `published` line after line number `from`. It may tell of something else than the change that one waits for,
    /// such as an engine's model list.
    pub async fn published_after(&self, from: usize) -> Value {
        self.logged_after(from, |line| line["message"] == "published").await
    }

    /// Writes a file of the manifests directory, atomically.
    pub fn write(&self, file: &str, text: &str) {
        let scratch = self.directory.path().join("scratch");
        std::fs::write(&scratch, text).expect("written");
        std::fs::rename(&scratch, self.manifests().join(file)).expect("renamed");
    }

    /// Writes a file of the policy directory, atomically.
    pub fn write_policy(&self, file: &str, bytes: &[u8]) {
        let scratch = self.directory.path().join("scratch-policy");
        std::fs::write(&scratch, bytes).expect("written");
        std::fs::rename(&scratch, self.policies().join(file)).expect("renamed");
    }

    /// The manifests directory.
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }
    /// The policy directory.
    pub fn policies(&self) -> PathBuf {
        self.directory.path().join("policies")
    }
    /// A scratch place that goes with the gateway.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }
    /// `http://…` of the data plane.
    pub fn url(&self) -> String {
        format!("http://{}", self.data)
    }
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the gateway runs")
    }

    /// GET on the data plane.
    pub async fn get(&self, path: &str) -> Answer {
        client::get(self.data, path).await
    }
    /// POST of JSON on the data plane.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        client::post(self.data, path, &[], body.to_string()).await
    }
    /// GET of an admin page.
    pub async fn admin_page(&self, path: &str) -> Answer {
        client::get(self.admin, path).await
    }
    /// The value of one sample of the metrics page; `None` if it is not there. `name` includes the labels as printed.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let page = self.admin_page("/metrics").await.text();
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
    /// Sum of all samples whose line starts with `prefix`.
    pub async fn metric_sum(&self, prefix: &str) -> f64 {
        let page = self.admin_page("/metrics").await.text();
        let samples = page.lines().filter(|line| line.starts_with(prefix));
        // Not `sum`: that of nothing is minus zero.
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value)
    }
    /// Polls the metrics page until `wanted` holds for the sum of all samples that start with `prefix`.
    pub async fn metric_until(&self, prefix: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        until(prefix, || async { Some(self.metric_sum(prefix).await).filter(|sum| wanted(*sum)) }).await
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGINT, as Ctrl-C at a terminal does.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status =
            std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the end of the process and returns its exit code.
    pub async fn exited(&mut self) -> Option<i32> {
        soon("the end of the gateway", self.child.wait()).await.expect("waited").code()
    }
}
