//! Pods that are real: a container of the gateway's image runs the binary of this checkout, with the container's own
//! arguments, environment, probes and ServiceAccount, in a network namespace that has the pod's address.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{PHASE, READY};
use crate::{inside, plane};

/// A container whose image contains this name is the gateway.
pub const IMAGE: &str = "wicketgate";

/// How often readiness is asked for: a kubelet does it every ten seconds, tests have no time for that.
const PROBE_PERIOD: Duration = Duration::from_millis(100);

/// Longest wait for one answer to it. On a machine that is busy with other things a process that is ready is slow to say so,
/// and nobody may take that for another state; one that does not listen is refused at once.
const PROBE_MAX: Duration = Duration::from_secs(20);

/// The container of a pod that is run for real.
pub(super) fn container(pod: &Pod) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.image.as_ref().is_some_and(|image| image.contains(IMAGE)))
}

/// A pod's process.
#[derive(Debug)]
pub(super) struct Running {
    pid: u32,
    grace: Duration,
    /// Waits for the end of the process.
    ended: Option<JoinHandle<()>>,
    probing: JoinHandle<()>,
}

impl Running {
    /// Starts the process. It is not ready until its own probe says so.
    pub(super) async fn start(
        client: &Client,
        pod: &Pod,
        container: &Container,
        address: Ipv4Addr,
    ) -> kube::Result<Self> {
        let folder = inside::scratch().join("pods").join(pod.uid().unwrap_or_default());
        std::fs::create_dir_all(&folder).expect("a folder for the pod");
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        write_account(client, &folder, &pod.namespace().unwrap_or_default(), &account).await?;
        let mut child = spawn(&folder, pod, container, address);
        let pid = child.id().expect("it runs");
        let url = container.readiness_probe.as_ref().map(|probe| probe_address(probe, container, address));
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let probing = tokio::spawn(probe(api, pod.name_any(), url));
        let once = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never"));
        let (pods, name) =
            (Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default()), pod.name_any());
        let ended = tokio::spawn(async move {
            let status = child.wait().await;
            if once {
                let phase = if status.is_ok_and(|status| status.success()) { "Succeeded" } else { "Failed" };
                let patch = Patch::Merge(json!({"metadata": {"annotations": {PHASE: phase}}}));
                let _ = pods.patch(&name, &PatchParams::default(), &patch).await;
            }
        });
        let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = Duration::from_secs(grace.unsigned_abs());
        Ok(Self { pid, grace, ended: Some(ended), probing })
    }

    /// Asks the process to end and deletes the pod when it has. More calls do nothing.
    pub(super) fn terminate(&mut self, pods: Api<Pod>, name: String) {
        let Some(ended) = self.ended.take() else {
            return;
        };
        signal(self.pid, "TERM");
        let (grace, pid) = (self.grace, self.pid);
        tokio::spawn(async move {
            if tokio::time::timeout(grace, ended).await.is_err() {
                signal(pid, "KILL");
            }
            let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
        });
    }

    /// Ends it at once: the pod has gone without being asked.
    pub(super) fn kill(self) {
        self.probing.abort();
        signal(self.pid, "KILL");
    }
}

fn signal(pid: u32, name: &str) {
    let _ = std::process::Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Token, certificate and namespace, as a pod finds them.
async fn write_account(client: &Client, folder: &Path, namespace: &str, account: &str) -> kube::Result<()> {
    let token = plane::token(client, namespace, account).await?;
    let certificate = std::fs::read(plane::shared_certificate()).expect("the server's certificate");
    for (name, bytes) in [
        ("token", token.into_bytes()),
        ("ca.crt", certificate),
        ("namespace", namespace.to_owned().into_bytes()),
    ] {
        std::fs::write(folder.join(name), bytes).expect("the account is written");
    }
    Ok(())
}

fn spawn(folder: &Path, pod: &Pod, container: &Container, address: Ipv4Addr) -> Child {
    let script = harness::gateway::root().join("tests/cluster/pod.sh");
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(script);
    command.arg(address.to_string()).arg(folder).arg(binary());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut args: Vec<String> = container.args.clone().unwrap_or_default();
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, pod, address) {
            let named = format!("$({})", variable.name);
            args.iter_mut().for_each(|arg| *arg = arg.replace(&named, &value));
            command.env(&variable.name, value);
        }
    }
    command.args(args);
    command.env("KUBERNETES_SERVICE_HOST", inside::API_SERVER.to_string());
    command.env("KUBERNETES_SERVICE_PORT", plane::PORT.to_string());
    command.env("HOSTNAME", pod.name_any());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().expect("the pod's process starts")
}

fn binary() -> PathBuf {
    harness::gateway::binary()
}

/// Where a pod's log is.
pub fn log_of(uid: &str) -> PathBuf {
    inside::scratch().join("pods").join(uid).join("log")
}

/// A literal value, or one of the fields of the pod that charts use.
fn value_of(variable: &EnvVar, pod: &Pod, address: Ipv4Addr) -> Option<String> {
    if let Some(value) = &variable.value {
        return Some(value.clone());
    }
    let path = &variable.value_from.as_ref()?.field_ref.as_ref()?.field_path;
    let spec = pod.spec.as_ref()?;
    Some(match path.as_str() {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace()?,
        "metadata.uid" => pod.uid()?,
        "status.podIP" => address.to_string(),
        "spec.nodeName" => spec.node_name.clone()?,
        "spec.serviceAccountName" => spec.service_account_name.clone()?,
        other => panic!("{}: the field {other} is not known to this kubelet", variable.name),
    })
}

fn probe_address(probe: &Probe, container: &Container, address: Ipv4Addr) -> (std::net::SocketAddr, String) {
    let get = probe.http_get.as_ref().expect("readiness is an HTTP GET");
    let port = match &get.port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let mut named =
                ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            named.next().unwrap_or_else(|| panic!("the container has no port {name}"))
        }
    };
    let port = u16::try_from(port).expect("a port");
    ((address, port).into(), get.path.clone().unwrap_or_else(|| "/".to_owned()))
}

/// Asks again and again, and writes what changed into the pod's annotation.
async fn probe(pods: Api<Pod>, name: String, url: Option<(std::net::SocketAddr, String)>) {
    let mut known = None;
    loop {
        let ready = match &url {
            Some((address, path)) => is_ready(*address, path).await,
            None => true,
        };
        if known != Some(ready) {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {READY: ready.to_string()}}}));
            if pods.patch(&name, &PatchParams::default(), &patch).await.is_ok() {
                known = Some(ready);
            }
        }
        tokio::time::sleep(PROBE_PERIOD).await;
    }
}

async fn is_ready(address: std::net::SocketAddr, path: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(&head == b"HTTP/1.1 200")
    };
    matches!(tokio::time::timeout(PROBE_MAX, ask).await, Ok(Ok(true)))
}
