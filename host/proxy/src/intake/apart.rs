//! Threads that read large bodies, so that no other request of a worker waits for that.
//!
//! A worker reads a body in one go. That takes microseconds for most, and a quarter of a second for 30 MB of the most awkward
//! JSON. Bodies above [`LARGE_BYTES`] are therefore read here. There are two lanes, so that long prompts do not wait behind
//! bodies a hundred times as long. A body goes there and back with the memory it holds: one whose client leaves meanwhile
//! counts until it is dropped.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use domain::failure::FailureKind;
use tokio::sync::oneshot;

use super::Body;

/// Bodies above this many bytes are read here. Below, a worker is held up for a millisecond at most.
pub(crate) const LARGE_BYTES: usize = 128 << 10;
/// Bodies above this many bytes have a lane of their own.
const HUGE_BYTES: usize = 2 << 20;
/// Bodies that wait in one lane; beyond them requests are turned away as if there were no memory.
const WAITING_MAX: usize = 1_024;
/// Workers for each thread of a lane.
const WORKERS_PER_THREAD: usize = 4;
/// Niceness of the threads: a third of a worker's weight, so that workers go first and saturated ones do not starve them.
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when it is dropped.
pub(crate) struct Apart {
    large: SyncSender<Job>,
    huge: SyncSender<Job>,
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apart").finish_non_exhaustive()
    }
}

impl Apart {
    /// Starts the threads for so many workers, and returns them to be joined.
    pub(crate) fn start(workers: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let mut threads = Vec::new();
        let mut lane = |name: &str| {
            let (jobs, waiting) = sync_channel(WAITING_MAX);
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..workers.div_ceil(WORKERS_PER_THREAD) {
                let waiting = Arc::clone(&waiting);
                let run = move || run(&waiting);
                threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
            }
            io::Result::Ok(jobs)
        };
        let apart = Self { large: lane("bodies-large")?, huge: lane("bodies-huge")? };
        Ok((apart, threads))
    }

    /// Does `work` with a body on another thread. Cancelling leaves the work undone, or its result unused.
    ///
    /// Fails with `BodyMemory` when too many bodies wait.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        mut body: Body,
        work: impl FnOnce(&mut Body) -> T + Send + 'static,
    ) -> Result<(Body, T), FailureKind> {
        let lane = if body.bytes().len() > HUGE_BYTES { &self.huge } else { &self.large };
        let (give, given) = oneshot::channel();
        let job = move || {
            if !give.is_closed() {
                let result = work(&mut body);
                // Its client left meanwhile.
                let _ = give.send((body, result));
            }
        };
        lane.try_send(Box::new(job)).map_err(|_| FailureKind::BodyMemory)?;
        // Dropped unanswered only when the process ends, or a thread has panicked.
        given.await.map_err(|_| FailureKind::Draining)
    }
}

fn run(waiting: &Mutex<Receiver<Job>>) {
    // On Linux this is the thread's own. Where it is refused, it runs at ordinary priority.
    let _ = rustix::process::nice(NICENESS);
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
    }
}
