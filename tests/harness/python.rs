//! Real servers and clients from the Python package registry, in the environment that `make python` sets up.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::gateway::root;

/// The interpreter with the pinned packages: `WICKETGATE_PYTHON`, else the one that `make python` set up.
pub fn interpreter() -> PathBuf {
    let path = std::env::var_os("WICKETGATE_PYTHON")
        .map_or_else(|| root().join(".cache/venv/bin/python"), PathBuf::from);
    assert!(path.exists(), "{} is missing: `make python` sets it up", path.display());
    path
}

/// llama.cpp's own HTTP server over a tiny random model.
#[derive(Debug)]
pub struct LlamaCpp {
    _child: Child,
    _stdin: ChildStdin,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    _directory: tempfile::TempDir,
}

impl LlamaCpp {
    /// Starts it and waits until it listens.
    pub async fn start(model: &str, extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(interpreter())
            .arg(root().join("tests/real/llamacpp_server.py"))
            .arg(directory.path().join("model.gguf"))
            .arg(model)
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let url = loop {
            let line = lines.next_line().await.expect("readable").expect("llama.cpp listens before it ends");
            if let Some(url) = line.strip_prefix("listening ") {
                break url.to_string();
            }
        };
        // Keep reading, so that the server never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { _child: child, _stdin: stdin, url, _directory: directory }
    }
}

/// Runs one case of `tests/real/openai_client.py` and fails with what it said.
pub async fn openai_case(base_url: &str, model: &str, case: &str) {
    let output = Command::new(interpreter())
        .arg(root().join("tests/real/openai_client.py"))
        .args([base_url, model, case])
        .output()
        .await
        .expect("python starts");
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
}
