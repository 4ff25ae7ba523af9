//! What the host keeps beside each instance: the bounds on its memory, and its one import, `log`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Severity of a policy's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// One request's detail.
    Debug,
    /// A change worth knowing of.
    Info,
    /// For the operator's list.
    Warn,
    /// Something is broken.
    Error,
}

/// A line that a policy wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How bad it is.
    pub level: LogLevel,
    /// The text, cut at 1 KiB.
    pub message: String,
}

/// The log of one policy, shared by its instances: bounded per second, counted in full.
#[derive(Debug)]
pub(crate) struct PolicyLog {
    /// Name for people.
    pub(crate) policy: Box<str>,
    started: Instant,
    second: AtomicU64,
    written: AtomicU64,
    suppressed: AtomicU64,
    /// Keeps lines instead of writing them, for who tries a policy.
    kept: Option<Mutex<Vec<LogLine>>>,
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
            kept: None,
        }
    }

    /// A log that keeps its lines, for [`Self::take`].
    pub(crate) fn keeping(policy: &str) -> Self {
        Self { kept: Some(Mutex::new(Vec::new())), ..Self::new(policy) }
    }

    /// The lines kept since the last time.
    pub(crate) fn take(&self) -> Vec<LogLine> {
        let Some(kept) = &self.kept else {
            return Vec::new();
        };
        std::mem::take(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, line: LogLine) {
        if let Some(kept) = &self.kept {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        } else if self.admit() {
            let policy = &*self.policy;
            let message = line.message.escape_debug();
            match line.level {
                LogLevel::Debug => tracing::debug!(policy, "{message}"),
                LogLevel::Info => tracing::info!(policy, "{message}"),
                LogLevel::Warn => tracing::warn!(policy, "{message}"),
                LogLevel::Error => tracing::error!(policy, "{message}"),
            }
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

    /// Memory that the guest may have over all its memories, bytes.
    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max
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
    fn log(&mut self, level: host::Level, mut message: String) -> wasmtime::Result<()> {
        self.lines += 1;
        if self.lines > LOG_LINES_PER_CALL_MAX {
            return Err(LogFlood.into());
        }
        let level = match level {
            host::Level::Debug => LogLevel::Debug,
            host::Level::Info => LogLevel::Info,
            host::Level::Warn => LogLevel::Warn,
            host::Level::Error => LogLevel::Error,
        };
        message.truncate(message.floor_char_boundary(LOG_LINE_BYTES_MAX));
        self.log.write(LogLine { level, message });
        Ok(())
    }
}

impl types::Host for HostState {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_policy_is_cut_off_for_the_rest_of_the_second() {
        let log = PolicyLog::new("chatty");
        let admitted = (0..1_000).filter(|_| log.admit()).count() as u64;
        // Another second may begin meanwhile.
        assert!((LOG_LINES_PER_SECOND_MAX..=2 * LOG_LINES_PER_SECOND_MAX).contains(&admitted), "{admitted}");
    }

    #[test]
    fn memory_is_granted_up_to_the_limit_and_little_within_a_pick() {
        let mut state = HostState::new(Arc::new(PolicyLog::new("hungry")), 8 << 20);
        state.begin_setup();
        assert!(state.memory_growing(0, 4 << 20, None).unwrap());
        state.begin_pick();
        assert!(state.memory_growing(4 << 20, 5 << 20, None).unwrap());
        assert!(!state.memory_growing(5 << 20, (5 << 20) + 1, None).unwrap());
        assert!(state.memory_refused());
        state.begin_pick();
        assert!(!state.memory_refused(), "each call for itself");
        assert!(state.memory_growing(5 << 20, 6 << 20, None).unwrap());
        state.begin_setup();
        assert!(!state.memory_growing(6 << 20, (8 << 20) + 1, None).unwrap());
        assert!(!state.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).unwrap());
    }
}
