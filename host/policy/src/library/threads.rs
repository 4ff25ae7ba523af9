//! The threads of a library: one hands out compilations, one probes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use domain::policy::Digest;

use super::Shared;
use super::compile::{self, Outcome, Workshop};
use super::queue::{Queue, Tenant};
use super::tables::{Key, Tables};
use crate::ready::Compiled;

/// A compiled policy to be configured and probed.
pub(super) enum Probe {
    Policy(Tenant, Key, Arc<Compiled>),
    Stop,
}

/// The compiling thread's view of the library.
struct Client {
    shared: Arc<Shared>,
    prober: Sender<Probe>,
}

impl compile::Client for Client {
    fn is_wanted(&self, digest: Digest) -> bool {
        self.shared.tables().waiting.contains_key(&digest)
    }

    fn done(&self, digest: Digest, outcome: Outcome) {
        self.shared.compiled(digest, outcome, &self.prober);
    }

    fn next_retry(&self) -> Option<Instant> {
        self.shared.tables().setbacks.next()
    }

    fn ripen(&self, now: Instant) {
        let mut tables = self.shared.tables();
        let Tables { setbacks, components, .. } = &mut *tables;
        let is_news = setbacks.ripen(now, |digest| components.contains_key(digest));
        drop(tables);
        if is_news {
            self.shared.wake();
        }
    }
}

pub(super) fn spawn_compiler(
    shared: &Arc<Shared>,
    messages: Receiver<compile::Message>,
    (to_self, prober): (Sender<compile::Message>, Sender<Probe>),
    workshop: Workshop,
) -> std::io::Result<JoinHandle<()>> {
    let client = Client { shared: Arc::clone(shared), prober };
    let run = move || compile::supervise(&messages, &to_self, &workshop, &client);
    thread::Builder::new().name("policy-library".into()).spawn(run)
}

/// Probing has a thread of its own: a known component with a new configuration does not wait for another's compilation.
/// Tenants take turns, as a probe may take a second.
pub(super) fn spawn_prober(shared: &Arc<Shared>, probes: Receiver<Probe>) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let run = move || {
        let mut queue = Queue::default();
        // One is waited for; the others that have come meanwhile take their places in their tenants' lines.
        while let Ok(first) = probes.recv() {
            let mut next = Some(first);
            loop {
                for probe in next.take().into_iter().chain(probes.try_iter()) {
                    let Probe::Policy(tenant, key, compiled) = probe else { return };
                    queue.push(&tenant, (key, compiled));
                }
                let Some((_, (key, compiled))) = queue.next(|_| false) else { break };
                shared.probe(&key, &compiled);
            }
        }
    };
    thread::Builder::new().name("policy-probe".into()).spawn(run)
}
