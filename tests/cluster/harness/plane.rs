//! A control plane: etcd, kube-apiserver and kube-controller-manager as child processes.
//!
//! [`shared`] is the one of the whole suite. A test that ends the API server or fills the store starts its own with
//! [`Plane::start`].

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::place::TOOL_PATIENCE;
use crate::{inside, kubelet};

/// Longest wait for the control plane, on a machine that builds something beside it.
const START_MAX: Duration = Duration::from_secs(300);

/// Where the API server listens on its address.
pub const PORT: u16 = 6443;

/// The controllers that the tests need. All of them would also taint nodes that have no kubelet.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    serviceaccount-token-controller,root-ca-certificate-publisher-controller,deployment-controller,\
    replicaset-controller,statefulset-controller,endpointslice-controller,job-controller,disruption-controller,\
    clusterrole-aggregation-controller";

/// What is written down of requests: everything that no administrator did.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ['system:masters']}
- {level: None, users: ['system:apiserver', 'system:anonymous']}
- {level: Metadata}
";

/// A running control plane.
#[derive(Debug)]
pub struct Plane {
    address: Ipv4Addr,
    directory: PathBuf,
    processes: Mutex<Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    etcd: Option<Child>,
    server: Option<Child>,
    manager: Option<Child>,
}

/// The control plane of the suite, started by the first test that asks for it, with our definitions installed and a
/// pretended kubelet. It ends with the namespace.
pub fn shared() -> &'static Plane {
    static SHARED: OnceLock<Plane> = OnceLock::new();
    SHARED.get_or_init(|| {
        inside::assert_inside();
        let plane = Plane::start("shared", inside::API_SERVER);
        plane.install_definitions();
        kubelet::start(plane.kubeconfig());
        plane
    })
}

impl Plane {
    /// Starts a control plane on an address of its own and waits until it serves. Blocks for some seconds.
    pub fn start(name: &str, address: Ipv4Addr) -> Self {
        inside::assert_inside();
        let directory = inside::scratch().join(name);
        std::fs::create_dir_all(&directory).expect("a folder for the control plane");
        let plane = Self { address, directory, processes: Mutex::default() };
        plane.write_files();
        plane.start_etcd();
        plane.start_server();
        plane.start_manager();
        plane
    }

    /// `https://…` of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{PORT}", self.address)
    }
    /// Where the API server listens.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }
    /// The certificate that clients of the API server trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }
    /// What everybody but administrators asked for: one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// A client for the administrator, on the current runtime.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig()).await
    }

    /// Writes a kubeconfig for the bearer of `token`, who reaches the API server at `server` (a URL).
    pub fn kubeconfig_for(&self, path: &Path, server: &str, token: &str, namespace: &str) {
        std::fs::write(path, self.kubeconfig_text(server, token, namespace))
            .expect("a kubeconfig is written");
    }

    /// Kills the API server as a power cut would; the store stays.
    pub fn kill_server(&self) {
        let server = self.processes.lock().expect("processes").server.take();
        end(server.expect("the API server runs"));
    }

    /// Starts the API server over the store and waits until it serves.
    pub fn start_server(&self) {
        let certificates = self.directory.join("certificates");
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let file = |name: &str| self.directory.join(name);
        let host = self.address.to_string();
        let args = [
            format!("--etcd-servers=unix://{}", file("etcd.sock").display()),
            flag("cert-dir", &certificates),
            format!("--bind-address={host}"),
            format!("--advertise-address={host}"),
            format!("--secure-port={PORT}"),
            flag("token-auth-file", &file("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            flag("service-account-signing-key-file", &file("sa.key")),
            flag("service-account-key-file", &file("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            flag("audit-policy-file", &file("audit-policy.yaml")),
            flag("audit-log-path", &self.audit_log()),
            "--audit-log-mode=blocking".to_owned(),
        ];
        let server = self.spawn("kube-apiserver", &args);
        self.processes.lock().expect("processes").server = Some(server);
        self.wait_until_serving();
    }

    fn write_files(&self) {
        let write = |name: &str, text: &str| {
            std::fs::write(self.directory.join(name), text).expect("a file of the control plane");
        };
        write("tokens.csv", "admin,admin,admin,system:masters\nmanager,manager,manager,system:masters\n");
        write("audit-policy.yaml", AUDIT_POLICY);
        write("admin.kubeconfig", &self.kubeconfig_text(&self.url(), "admin", "default"));
        write("manager.kubeconfig", &self.kubeconfig_text(&self.url(), "manager", "default"));
        let key = self.directory.join("sa.key");
        let status = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(&key)
            .status()
            .expect("openssl runs");
        assert!(status.success(), "no key for ServiceAccounts");
    }

    fn kubeconfig_text(&self, server: &str, token: &str, namespace: &str) -> String {
        let certificate = self.certificate();
        let name = self.address;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: {server:?}, certificate-authority: {certificate:?}, tls-server-name: \"{name}\"}}}}]\n\
             users: [{{name: u, user: {{token: {token:?}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {namespace:?}}}}}]\n"
        )
    }

    fn start_etcd(&self) {
        let args = [
            format!("--data-dir={}", self.directory.join("etcd").display()),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls=unix://{}", self.directory.join("etcd.sock").display()),
            "--advertise-client-urls=http://127.0.0.1:0".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let etcd = self.spawn("etcd", &args);
        self.processes.lock().expect("processes").etcd = Some(etcd);
    }

    fn start_manager(&self) {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let args = [
            flag("kubeconfig", &self.directory.join("manager.kubeconfig")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            flag("service-account-private-key-file", &self.directory.join("sa.key")),
            flag("root-ca-file", &self.certificate()),
            format!("--controllers={CONTROLLERS}"),
        ];
        let manager = self.spawn("kube-controller-manager", &args);
        self.processes.lock().expect("processes").manager = Some(manager);
    }

    /// Starts one part; its log is beside its files, and in `target/cluster` after a failure.
    fn spawn(&self, part: &str, args: &[String]) -> Child {
        let log = File::options().create(true).append(true).open(self.log_of(part)).expect("a log file");
        let own = inside::program(part);
        let mut command = if own.exists() {
            Command::new(own)
        } else {
            let mut all = Command::new(inside::program("controlplane"));
            all.arg(part);
            all
        };
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap_or_else(|error| {
            panic!("{part}: {error}; tests/cluster/binaries.sh builds it, or set KUBEBUILDER_ASSETS")
        })
    }

    fn log_of(&self, part: &str) -> PathBuf {
        self.directory.join(format!("{part}.log"))
    }

    /// Waits for `/readyz` on a thread with a runtime of its own: the caller may be inside one.
    fn wait_until_serving(&self) {
        let (kubeconfig, certificate) = (self.kubeconfig(), self.certificate());
        let began = Instant::now();
        let waiting = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                while began.elapsed() < START_MAX {
                    // The server writes its certificate when it starts.
                    if certificate.exists() && is_ready(&kubeconfig).await {
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                false
            })
        });
        let ready = waiting.join().expect("waited");
        assert!(ready, "no API server within {START_MAX:?}:\n{}", self.log_tail("kube-apiserver"));
    }

    fn log_tail(&self, part: &str) -> String {
        let text = std::fs::read_to_string(self.log_of(part)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Installs our definitions as a person would, and waits until the API server serves them.
    pub fn install_definitions(&self) {
        let definitions = definitions();
        self.kubectl(&["apply", "--server-side", "-f", &definitions.to_string_lossy()]);
        self.kubectl(&["wait", "--for=condition=Established", TOOL_PATIENCE, "crd", "--all"]);
    }

    fn kubectl(&self, args: &[&str]) {
        let output = Command::new(inside::program("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args)
            .output()
            .expect("kubectl runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The certificate of the shared control plane.
pub fn shared_certificate() -> PathBuf {
    inside::scratch().join("shared/certificates/apiserver.crt")
}

/// A token of a ServiceAccount, good for an hour.
///
/// # Errors
/// When there is no such account.
pub async fn token(client: &Client, namespace: &str, account: &str) -> kube::Result<String> {
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"))
        .header("content-type", "application/json")
        .body(br#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":3600}}"#.to_vec())
        .expect("a request");
    let answer: serde_json::Value = client.request(request).await?;
    Ok(answer["status"]["token"].as_str().expect("a token").to_owned())
}

/// The folder with our definitions.
pub fn definitions() -> PathBuf {
    let generated = harness::gateway::root().join("crds");
    if generated.exists() { generated } else { printed() }
}

/// The same from the binary, for a checkout without generated files.
fn printed() -> PathBuf {
    let folder = inside::scratch().join("crds");
    let status = Command::new(harness::gateway::binary())
        .args(["crds", "--out"])
        .arg(&folder)
        .stdout(Stdio::null())
        .status()
        .expect("the binary runs");
    assert!(status.success(), "`wicketgate crds` failed");
    folder
}

/// A client with what a kubeconfig says.
pub async fn client(kubeconfig: &Path) -> Client {
    let text = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

async fn is_ready(kubeconfig: &Path) -> bool {
    let client = client(kubeconfig).await;
    let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

fn end(mut process: Child) {
    process.kill().expect("killed");
    process.wait().expect("waited for");
}

impl Drop for Plane {
    fn drop(&mut self) {
        let Processes { etcd, server, manager } =
            std::mem::take(&mut *self.processes.lock().expect("processes"));
        for process in [manager, server, etcd].into_iter().flatten() {
            end(process);
        }
    }
}
