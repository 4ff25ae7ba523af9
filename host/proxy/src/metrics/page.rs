//! The metrics page as text: rendered on a thread of its own, when asked for.
//!
//! A page of many endpoints is megabytes long and takes tens of milliseconds. Rendered by a worker, it would stop the
//! requests of that worker; rendered for each asker, a few askers would take whole cores. So one thread renders, askers
//! that come together share a page, and the thread rests after each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;

/// Rest after a page, in units of the time that the page took: rendering takes at most a fifth of one core.
const REST_FACTOR: u32 = 4;
/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(1);
/// Niceness of the thread: requests go first.
const NICENESS: i32 = 5;

/// The metrics page. Cloning shares it; the thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct MetricsPage {
    /// Room for one: a second asker needs no second bell.
    bell: SyncSender<()>,
    begun: Arc<AtomicU64>,
    shown: watch::Receiver<Shown>,
}

/// The last page.
#[derive(Clone, Debug, Default)]
struct Shown {
    /// Counts pages from 1.
    number: u64,
    text: Bytes,
}

impl MetricsPage {
    /// `Content-Type` of the page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Starts the thread that renders what `registry` holds.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(registry: Registry) -> io::Result<Self> {
        Self::start_with(move || TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default())
            .map(|(page, _)| page)
    }

    fn start_with(render: impl Fn() -> String + Send + 'static) -> io::Result<(Self, JoinHandle<()>)> {
        let (bell, rung) = sync_channel(1);
        let (show, shown) = watch::channel(Shown::default());
        let begun = Arc::<AtomicU64>::default();
        let count = Arc::clone(&begun);
        let run = move || run(&rung, &show, &count, render);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(run)?;
        Ok((Self { bell, begun, shown }, thread))
    }

    /// A page that was begun after this call; askers that wait at the same time share it. `None`: the thread has ended.
    ///
    /// Cancelling costs nothing; the page may be rendered all the same.
    pub async fn render(&self) -> Option<Bytes> {
        let wanted = self.begun.load(SeqCst) + 1;
        // Full: it is rung already, and not yet heard.
        let _ = self.bell.try_send(());
        let mut shown = self.shown.clone();
        let page = shown.wait_for(|shown| shown.number >= wanted).await.ok()?;
        Some(page.text.clone())
    }
}

fn run(rung: &Receiver<()>, show: &watch::Sender<Shown>, begun: &AtomicU64, render: impl Fn() -> String) {
    // On Linux this is the thread's own. Where it is refused, it runs at ordinary priority.
    let _ = rustix::process::nice(NICENESS);
    while rung.recv().is_ok() {
        // Counted before it is begun: an asker that comes from here on waits for the next one.
        let number = begun.fetch_add(1, SeqCst) + 1;
        let start = Instant::now();
        let text = Bytes::from(render());
        let rest = start.elapsed() * REST_FACTOR;
        show.send_replace(Shown { number, text });
        std::thread::sleep(rest.min(REST_MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// C7: many askers at one time are served by few pages, and each page is newer than the question.
    #[tokio::test]
    async fn askers_share_a_page_that_was_begun_after_they_asked() {
        let (go, gate) = std::sync::mpsc::channel();
        let (told, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let gate = Mutex::new(gate);
        let pages = AtomicU64::new(0);
        let render = move || {
            let page = pages.fetch_add(1, SeqCst) + 1;
            let _ = told.send(page);
            let _ = gate.lock().expect("one thread").recv();
            page.to_string()
        };
        let (page, thread) = MetricsPage::start_with(render).expect("a thread");
        let mut first = Box::pin(page.render());
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(begins.recv().await, Some(1));
        // These ask while the first page is being rendered: it may lack what they want to see.
        let mut late: Vec<_> = (0..64).map(|_| Box::pin(page.render())).collect();
        for asker in &mut late {
            assert!(futures::poll!(asker).is_pending());
        }
        go.send(()).expect("it renders");
        assert_eq!(first.await.as_deref(), Some(&b"1"[..]));
        go.send(()).expect("it renders");
        for asker in late {
            assert_eq!(asker.await.as_deref(), Some(&b"2"[..]));
        }
        drop(page);
        drop(go);
        thread.join().expect("the thread ends with the last asker");
        assert_eq!(begins.recv().await, Some(2));
        assert_eq!(begins.recv().await, None, "two pages for 65 askers");
    }
}
