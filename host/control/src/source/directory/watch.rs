//! The thread that looks at a directory whenever something may have changed in it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::Directory;
use super::files::is_manifest;
use super::settle::Settle;
use crate::source::Burst;
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
        let thread = std::thread::Builder::new().name("directory".to_owned()).spawn(work)?;
        Ok(Self { news, thread })
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
    let mut watch = DirectoryWatch::new(move |heard| {
        // A full queue means that the thread has more than one reason to look already.
        let _ = ear.try_send(News::Heard(heard));
    });
    let mut settle = Settle::default();
    loop {
        // Watch first, look then: what changes in between is heard.
        watch.watch(directory.directories());
        if let Some(burst) = directory.look()
            && bursts.blocking_send(burst).is_err()
        {
            return;
        }
        // A directory that has just appeared is watched from here on; what was written into it before that is seen by
        // the next look, so have one soon.
        if watch.watch(directory.directories()) {
            settle.hear(Heard::Anything, Instant::now(), |_| false);
        }
        let poll = Instant::now() + POLL_INTERVAL;
        loop {
            let left = settle.due().unwrap_or(poll).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match news.recv_timeout(left) {
                Ok(News::Heard(heard)) => settle.hear(heard, Instant::now(), is_manifest_path),
                Ok(News::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
            }
        }
        settle.done();
    }
}

fn is_manifest_path(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_manifest)
}
