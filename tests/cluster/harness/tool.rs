//! kubectl and Helm, as people use them.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::inside;

/// What a tool said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error: warnings, and why it failed.
    pub err: String,
}

impl Said {
    /// The same, if it succeeded.
    ///
    /// # Panics
    /// With both outputs if it did not.
    pub fn ok(self) -> Self {
        assert!(self.success, "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

/// Runs one of the tools (`kubectl`, `helm`, `helm3`, `kustomize`, `promtool`) with a kubeconfig and `input` on standard input.
pub async fn run(tool: &str, kubeconfig: &Path, args: &[&str], input: &str) -> Said {
    let home = inside::scratch().join("home");
    let mut child = Command::new(inside::program(tool))
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", &home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}; tests/cluster/binaries.sh builds it"));
    let mut stdin = child.stdin.take().expect("piped");
    let text = input.to_owned();
    let write = tokio::spawn(async move {
        // A tool that does not read its input closes it: no failure of ours.
        let _ = stdin.write_all(text.as_bytes()).await;
    });
    let output = child.wait_with_output().await.expect("waited");
    write.await.expect("written");
    Said {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
