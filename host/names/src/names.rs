//! The names of the process: who waits for which look-up, and connections by name.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::ask::{Asker, Settings};
use crate::connect::{Tried, race};
use crate::entry::{Answer, Entry, Known, NoAnswer};

/// Names that are kept; beyond, those that nothing waits for are forgotten, the longest unused first.
pub const NAMES_MAX: usize = 4_096;
/// How long a connection waits for a newer answer while it has an old one.
const REFRESH_WAIT: Duration = Duration::from_millis(500);
/// What `localhost` and names below it mean (RFC 6761), without asking. Local engines often listen on IPv4 only.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Where names lead, for the whole process. Clones share everything. The default asks as the system is configured.
#[derive(Clone, Debug, Default)]
pub struct Names {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    asker: Arc<Asker>,
    known: Mutex<HashMap<Box<str>, Arc<Name>>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { asker: Arc::new(Asker::new(Settings::default())), known: Mutex::default() }
    }
}

/// One name.
#[derive(Debug)]
struct Name {
    host: Box<str>,
    asker: Arc<Asker>,
    shared: Mutex<Shared>,
    /// Rung with every result of a look-up.
    settled: Notify,
    /// The entry's version, to be seen without a lock.
    version: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    entry: Entry,
    /// Callers that wait for an answer.
    waiting: usize,
    /// The look-up under way.
    asking: Option<AbortHandle>,
    used: Instant,
}

/// How a connection was found: by which name, to which of its addresses.
#[derive(Debug)]
pub struct Route {
    name: Arc<Name>,
    address: IpAddr,
    version: u64,
}

impl Route {
    /// Whether the name still leads to the address of this connection. Costs one atomic load while nothing changes.
    pub fn is_current(&mut self) -> bool {
        let version = self.name.version.load(Relaxed);
        if version == self.version {
            return true;
        }
        self.version = version;
        !self.name.lock().entry.has_left(self.address)
    }

    /// Has the name looked up again if its answer has become old: for names whose connections are in use.
    pub fn refresh(&self) {
        let mut shared = self.name.lock();
        self.name.ask_if_due(&mut shared, Instant::now());
    }
}

impl Names {
    /// Asks as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self { inner: Arc::new(Inner { asker: Arc::new(Asker::new(settings)), known: Mutex::default() }) }
    }

    /// Every address of a host, which may be an address itself: that, and `localhost`, waits for nothing.
    ///
    /// Callers that wait for one name share one look-up. When the last of them gives up, it ends.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let with_port = |addresses: &[IpAddr]| addresses.iter().map(|ip| (*ip, port).into()).collect();
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(with_port(&[ip]));
        }
        if is_localhost(host) {
            return Ok(with_port(&LOCALHOST));
        }
        Ok(with_port(&self.get(host)?.addresses().await?))
    }

    /// Connects to a host. With a name, also says how it was found; an address and `localhost` stay what they are.
    ///
    /// All addresses of a name are tried, staggered: see [`crate::STAGGER`]. Those that do not connect are tried last for
    /// [`crate::SLOW_FOR`]. The caller bounds the time by dropping this.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<(TcpStream, Option<Route>)> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok((TcpStream::connect((ip, port)).await?, None));
        }
        if is_localhost(host) {
            let addresses = LOCALHOST.map(|ip| SocketAddr::new(ip, port));
            return Ok((race(&addresses, &mut Tried::default()).await?, None));
        }
        let name = self.get(host)?;
        let addresses = name.addresses().await?;
        let order = name.lock().entry.order(&addresses, Instant::now());
        let order: Vec<SocketAddr> = order.into_iter().map(|ip| (ip, port).into()).collect();
        let mut course = Course { name: &name, tried: Tried::default() };
        let stream = race(&order, &mut course.tried).await?;
        let address = stream.peer_addr()?.ip();
        let version = name.version.load(Relaxed);
        drop(course);
        Ok((stream, Some(Route { name, address, version })))
    }

    /// Whether a look-up of this name is under way.
    #[cfg(test)]
    pub(crate) fn is_asking(&self, host: &str) -> bool {
        self.get(host).is_ok_and(|name| name.lock().asking.is_some())
    }

    fn get(&self, host: &str) -> io::Result<Arc<Name>> {
        let mut known = self.inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(host) {
            return Ok(Arc::clone(name));
        }
        if known.len() >= NAMES_MAX {
            forget_oldest(&mut known)?;
        }
        let name = Arc::new(Name {
            host: host.into(),
            asker: Arc::clone(&self.inner.asker),
            shared: Mutex::new(Shared {
                entry: Entry::default(),
                waiting: 0,
                asking: None,
                used: Instant::now(),
            }),
            settled: Notify::new(),
            version: AtomicU64::new(0),
        });
        known.insert(host.into(), Arc::clone(&name));
        Ok(name)
    }
}

/// Forgets the name that was used longest ago among those that nothing waits for.
fn forget_oldest(known: &mut HashMap<Box<str>, Arc<Name>>) -> io::Result<()> {
    let used = |name: &Arc<Name>| {
        let shared = name.lock();
        (shared.waiting == 0).then_some(shared.used)
    };
    let oldest = known.iter().filter_map(|(host, name)| Some((used(name)?, host))).min();
    let host = oldest.map(|(_, host)| host.clone()).ok_or(io::ErrorKind::QuotaExceeded)?;
    known.remove(&host);
    Ok(())
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

impl Name {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn addresses(self: &Arc<Self>) -> io::Result<Arc<[IpAddr]>> {
        let _waiting = Waiting::begin(self);
        loop {
            let mut settled = pin!(self.settled.notified());
            // Before looking, so that a result in between is not missed.
            settled.as_mut().enable();
            let known = {
                let (mut shared, now) = (self.lock(), Instant::now());
                shared.used = now;
                self.ask_if_due(&mut shared, now);
                shared.entry.known(now)
            };
            match known {
                Known::Now(addresses) => return Ok(addresses),
                Known::Soon(addresses) => {
                    if tokio::time::timeout(REFRESH_WAIT, settled).await.is_err() {
                        return Ok(addresses);
                    }
                }
                Known::Unknown => settled.await,
                Known::Failed => return Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn ask_if_due(self: &Arc<Self>, shared: &mut Shared, now: Instant) {
        if shared.asking.is_some() || !shared.entry.is_due(now) {
            return;
        }
        let Some(handle) = self.asker.handle() else {
            return shared.entry.settle(Err(NoAnswer::Unanswered), now);
        };
        let name = Arc::clone(self);
        let task = handle.spawn(async move {
            let found = name.asker.look_up(&name.host).await;
            name.settle(found);
        });
        shared.asking = Some(task.abort_handle());
    }

    fn settle(&self, found: Result<Answer, NoAnswer>) {
        let mut shared = self.lock();
        shared.entry.settle(found, Instant::now());
        shared.asking = None;
        self.version.store(shared.entry.version(), Relaxed);
        drop(shared);
        self.settled.notify_waiters();
    }
}

/// A caller that waits for an answer. The last one to leave takes its look-up along; one that only renews goes on.
struct Waiting<'a>(&'a Name);

impl<'a> Waiting<'a> {
    fn begin(name: &'a Name) -> Self {
        name.lock().waiting += 1;
        Self(name)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        shared.waiting -= 1;
        if shared.waiting == 0
            && !shared.entry.has_answer()
            && let Some(asking) = shared.asking.take()
        {
            asking.abort();
        }
    }
}

/// A connection being made by name; notes which addresses were slow, also when it is dropped.
struct Course<'a> {
    name: &'a Name,
    tried: Tried,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        let (mut shared, now) = (self.name.lock(), Instant::now());
        for address in self.tried.slow() {
            shared.entry.set_slow(address.ip(), now);
        }
        if let Some(address) = self.tried.connected {
            shared.entry.set_well(address.ip());
        }
    }
}
