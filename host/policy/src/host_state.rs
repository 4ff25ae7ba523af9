//! What the host keeps beside each instance: the bounds on its memory, and its one import, `log`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use wasmtime::ResourceLimiter;

use crate::bindings::wicketgate::routing::{host, types};
use crate::engine::{PICK_GROWTH_BYTES_MAX, TABLE_ELEMENTS_MAX};

/// Most lines of one call; one more is a fault.
pub(crate) const LOG_LINES_PER_CALL_MAX: u32 = 16;
/// A line is cut at this many bytes.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// Lines of one policy that reach the gateway's log, per second and over all its instances. The rest are counted.
pub(crate) const LOG_LINES_PER_SECOND_MAX: u64 = 20;

/// A policy wrote more than [`LOG_LINES_PER_CALL_MAX`] lines in one call.
#[derive(Debug, thiserror::Error)]
#[error("more than {LOG_LINES_PER_CALL_MAX} log lines in one call")]
pub(crate) struct LogFlood;

/// The log of one policy, shared by its instances: bounded per second, counted in full.
#[derive(Debug)]
pub(crate) struct PolicyLog {
    /// Name for people.
    pub(crate) policy: Box<str>,
    started: Instant,
    second: AtomicU64,
    written: AtomicU64,
    suppressed: AtomicU64,
}

/// The data of one store.
#[derive(Debug)]
pub(crate) struct HostState {
    log: Arc<PolicyLog>,
    lines: u32,
    /// Linear memory granted, bytes.
    memory_bytes_max: usize,
    /// Where memory may grow to within the current call, bytes.
    call_bytes_max: usize,
    memory_bytes: usize,
    memory_refused: bool,
}

impl PolicyLog {
    pub(crate) fn new(policy: &str) -> Self {
        Self {
            policy: policy.into(),
            started: Instant::now(),
            second: AtomicU64::new(0),
            written: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether one more line may go out now. Racing threads may let a few more through; nobody counts on the exact number.
    pub(crate) fn admit(&self) -> bool {
        // From 1, so that the first second is a new one too.
        let second = self.started.elapsed().as_secs() + 1;
        if self.second.swap(second, Relaxed) != second {
            self.written.store(0, Relaxed);
            let suppressed = self.suppressed.swap(0, Relaxed);
            if suppressed > 0 {
                tracing::warn!(policy = %self.policy, suppressed, "policy logs too much: lines left out");
            }
        }
        let admitted = self.written.fetch_add(1, Relaxed) < LOG_LINES_PER_SECOND_MAX;
        if !admitted {
            self.suppressed.fetch_add(1, Relaxed);
        }
        admitted
    }
}

impl HostState {
    pub(crate) fn new(log: Arc<PolicyLog>, memory_bytes_max: usize) -> Self {
        Self {
            log,
            lines: 0,
            memory_bytes_max,
            call_bytes_max: memory_bytes_max,
            memory_bytes: 0,
            memory_refused: false,
        }
    }

    /// Before `configure` and `sync`, which may use all the memory granted.
    pub(crate) fn begin_setup(&mut self) {
        self.lines = 0;
        self.memory_refused = false;
        self.call_bytes_max = self.memory_bytes_max;
    }

    /// Before `pick`, which may only grow a little.
    pub(crate) fn begin_pick(&mut self) {
        self.lines = 0;
        self.memory_refused = false;
        self.call_bytes_max =
            self.memory_bytes_max.min(self.memory_bytes.saturating_add(PICK_GROWTH_BYTES_MAX as usize));
    }

    /// Whether the guest asked for more memory than granted since the call began.
    pub(crate) fn memory_refused(&self) -> bool {
        self.memory_refused
    }
}

impl ResourceLimiter for HostState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component may have several memories: what counts is their sum.
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.call_bytes_max {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= TABLE_ELEMENTS_MAX;
        self.memory_refused |= !granted;
        Ok(granted)
    }
}

impl host::Host for HostState {
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        self.lines += 1;
        if self.lines > LOG_LINES_PER_CALL_MAX {
            return Err(LogFlood.into());
        }
        if !self.log.admit() {
            return Ok(());
        }
        let policy = &*self.log.policy;
        let message = &message[..message.floor_char_boundary(LOG_LINE_BYTES_MAX)];
        match level {
            host::Level::Debug => tracing::debug!(policy, "{}", message.escape_debug()),
            host::Level::Info => tracing::info!(policy, "{}", message.escape_debug()),
            host::Level::Warn => tracing::warn!(policy, "{}", message.escape_debug()),
            host::Level::Error => tracing::error!(policy, "{}", message.escape_debug()),
        }
        Ok(())
    }
}

impl types::Host for HostState {}
