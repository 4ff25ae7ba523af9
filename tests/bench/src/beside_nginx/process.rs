//! A child process: started on its own core, measured through `/proc`, ended with its owner.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// How long a process may take to end after SIGTERM before it is killed.
const END_MAX: Duration = Duration::from_secs(3);

/// A running program. Dropping it ends it and whatever it forked.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program args`, on `core` only if one is given. Standard error goes to `log`.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        core: Option<usize>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let log = std::fs::File::create(log)?;
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        Ok(Self { child })
    }

    /// Processor time that the process and its children have used, µs, all threads.
    ///
    /// From `schedstat` (nanoseconds); where the kernel keeps none, from `stat` (ticks of 10 ms).
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.pids().into_iter().map(|pid| scheduled_micros(pid).unwrap_or_else(|| ticked_micros(pid))).sum()
    }

    /// Resident memory of the process and its children, bytes. Pages that they share count for each.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let of = |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        self.pids().into_iter().map(of).sum()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process and its children, for a profiler.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let start = std::time::Instant::now();
        while self.is_running() && start.elapsed() < END_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts every thread of this process onto `core`. Later threads inherit it.
pub(crate) fn pin_self(core: usize) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let status = Command::new("taskset")
        .args(["-acp", &core.to_string(), &pid])
        .stdout(Stdio::null())
        .status()
        .context("taskset is missing: install util-linux")?;
    anyhow::ensure!(status.success(), "cannot move to core {core}: this needs two cores");
    Ok(())
}

fn scheduled_micros(pid: u32) -> Option<f64> {
    let mut nanos = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (nanos > 0).then_some(nanos as f64 / 1e3)
}

fn ticked_micros(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; the fields count from behind it.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks =
        |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * 10_000.0
}
