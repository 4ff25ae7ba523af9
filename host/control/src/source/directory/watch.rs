//! The thread that looks at a directory whenever something may have changed in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc::Sender;

use super::Directory;
use super::files::is_manifest;
use super::settle::Settle;
use crate::source::Burst;
use crate::threads;
use crate::watch::{DirectoryWatch, Heard, POLL_INTERVAL};

/// News that may wait for the thread; more than that are dropped, as it will look anyway.
const NEWS_MAX: usize = 1_024;

enum News {
    Heard(Heard),
    Stop,
}

/// A running watch. [`DirectorySource::stop`] ends it.
#[derive(Debug)]
pub(crate) struct DirectorySource {
    news: mpsc::SyncSender<News>,
    thread: JoinHandle<()>,
}

impl DirectorySource {
    /// Starts the thread `directory`: a first burst at once, then one for every settled change, until it is stopped or
    /// nobody takes bursts any more.
    ///
    /// # Errors
    /// If the system gives us no thread.
    pub(crate) fn start(root: PathBuf, bursts: Sender<Burst>) -> std::io::Result<Self> {
        let (news, heard) = mpsc::sync_channel(NEWS_MAX);
        let ear = news.clone();
        let work = move || run(Directory::new(root), &heard, ear, &bursts);
        let thread = threads::spawn("directory", work)?;
        Ok(Self { news, thread })
    }

    /// Whether the thread is gone, by a panic or because nobody takes bursts.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread. The receiver of bursts must be gone or still receive.
    pub(crate) fn stop(self) {
        // It may have ended by itself.
        let _ = self.news.send(News::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the directory thread panicked");
        }
    }
}

fn run(
    mut directory: Directory,
    news: &mpsc::Receiver<News>,
    ear: mpsc::SyncSender<News>,
    bursts: &Sender<Burst>,
) {
    let lost = Arc::new(AtomicBool::new(false));
    let mut watch = DirectoryWatch::new({
        let lost = Arc::clone(&lost);
        move |heard| {
            // A full queue means that the thread has more than one reason to look already.
            if ear.try_send(News::Heard(heard)).is_err() {
                lost.store(true, Ordering::Relaxed);
            }
        }
    });
    let mut settle = Settle::default();
    loop {
        // Watch first, look then: what changes in between is heard.
        watch.watch(directory.directories());
        let briefing = settle.begin(Instant::now(), SystemTime::now());
        if let Some(burst) = directory.look_with(Some(&briefing))
            && bursts.blocking_send(burst).is_err()
        {
            return;
        }
        if directory.has_unfinished() {
            settle.again(Instant::now());
        }
        // A directory that has just appeared is watched from here on; what was written into it before that is seen by
        // the next look, so have one soon.
        if watch.watch(directory.directories()) {
            settle.hear(Heard::Anything, Instant::now(), |_| false);
        }
        if !wait(&mut settle, news, &lost) {
            return;
        }
    }
}

/// Waits until a look is due. False: the thread is to stop.
fn wait(settle: &mut Settle, news: &mpsc::Receiver<News>, lost: &AtomicBool) -> bool {
    let poll = Instant::now() + POLL_INTERVAL;
    // What has arrived already is heard even if a look is due, as it may say that a file is being written right now; but
    // who never stops talking does not put the look off for ever.
    let mut patience = NEWS_MAX;
    loop {
        let left = settle.due().unwrap_or(poll).saturating_duration_since(Instant::now());
        if left.is_zero() {
            patience = patience.saturating_sub(1);
        }
        match news.recv_timeout(left) {
            Ok(News::Heard(heard)) => settle.hear(heard, Instant::now(), is_manifest_path),
            Ok(News::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Err(mpsc::RecvTimeoutError::Timeout) => patience = 0,
        }
        if patience == 0 {
            if lost.swap(false, Ordering::Relaxed) {
                settle.lost();
            }
            return true;
        }
    }
}

fn is_manifest_path(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_manifest)
}
