//! The image's root file system, assembled without a container engine.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::render::{path, run, text};

/// A root that `deploy/assemble.sh` makes and starts the binary in.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        // Not below a folder of root's own: the image's user must reach it.
        let folder = tempfile::Builder::new().prefix("image-").tempdir_in(path("target")).expect("a folder");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).expect("permissions");
        Self { folder }
    }
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }
    fn assemble(&self, args: &[&str]) -> Command {
        let mut command = Command::new(path("deploy/assemble.sh"));
        command.arg(self.path()).args(args).env("BINARY", harness::gateway::binary());
        command
    }
}

#[test]
fn the_binary_finds_its_libraries_and_policies_in_the_image() {
    let root = Root::new();
    let said = run(&mut root.assemble(&["policy", "list"])).expect("it starts");
    assert!(said.contains("prefix-hash"), "{said}");
    for file in [
        "usr/local/bin/wicketgate",
        "policies/prefix-hash.wasm",
        "policies/session-affinity.wasm",
        "etc/passwd",
    ] {
        assert!(root.path().join(file).is_file(), "{file}");
    }
    assert!(!root.path().join("policies/testing").exists(), "hostile test policies stay out of the image");
    assert!(!root.path().join("bin/sh").exists(), "there is no shell");
}

#[tokio::test]
async fn the_gateway_becomes_ready_in_the_image_as_its_user() {
    let root = Root::new();
    run(&mut root.assemble(&[])).expect("it is assembled");
    std::fs::create_dir(root.path().join("manifests")).expect("a folder");
    let manifest = "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {name: p}\n\
                    spec: {source: {file: prefix-hash.wasm}}\n";
    std::fs::write(root.path().join("manifests/p.yaml"), manifest).expect("a manifest");
    std::fs::remove_dir_all(root.path().join("proc")).expect("an empty folder");
    let (entry, user) = (entry_point(), user());
    // As the script does it, on the root that is there already.
    let mut command = if is_root() {
        let mut command = tokio::process::Command::new("chroot");
        command.arg(format!("--userspec={user}"));
        command
    } else {
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(format!("--root={}", root.path().display()));
        command
    };
    if is_root() {
        command.arg(root.path());
    }
    let nowhere = "127.0.0.1:0";
    command.arg(entry).args(["serve", "--manifests=/manifests", "--log-format=json", "--listen", nowhere]);
    command
        .env_clear()
        .env("METRICS_ADDR", nowhere)
        .env("HEALTH_PROBE_ADDR", nowhere)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = Vec::new();
    let mut probes: Option<SocketAddr> = None;
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            log.push(line);
            if value["message"] == "listening" {
                probes = value["probes"].as_str().and_then(|address| address.parse().ok());
            }
            if value["message"] == "ready" {
                return true;
            }
        }
        false
    };
    let ready = tokio::time::timeout(harness::gateway::PATIENCE, ready).await;
    assert_eq!(ready, Ok(true), "{log:#?}");
    let answer = harness::client::get(probes.expect("an address"), "/readyz").await;
    assert_eq!(answer.status, 200);
}

#[test]
fn the_dockerfile_says_what_the_chart_expects() {
    let dockerfile = text("deploy/Dockerfile");
    assert_eq!(user(), "65532:65532");
    assert!(dockerfile.contains("\nEXPOSE 8001 8081 9090\n"));
    let toolchain: String = text("rust-toolchain.toml");
    let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG RUST=")).expect("a version");
    assert!(toolchain.contains(version), "{version} is not of {toolchain}");
    for ignored in ["target", ".git", ".cache"] {
        assert!(text(".dockerignore").lines().any(|line| line == ignored), "{ignored} is not of the image");
    }
}

fn instruction(name: &str) -> String {
    let dockerfile = text("deploy/Dockerfile");
    let mut lines = dockerfile.lines().filter_map(|line| line.strip_prefix(name).map(str::trim));
    lines.next_back().unwrap_or_else(|| panic!("no {name}")).to_owned()
}

fn user() -> String {
    instruction("USER ")
}

fn entry_point() -> String {
    instruction("ENTRYPOINT ").trim_matches(['[', ']', '"']).to_owned()
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
