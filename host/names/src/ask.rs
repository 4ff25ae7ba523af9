//! Asking name servers: the thread that does it, and whom it asks.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::future::{Either, select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::entry::{Answer, FRESH_MAX, NoAnswer};
use crate::files::{Configuration, hosts};
use crate::message::{Kind, Query, Reply, UDP_BYTES_MAX};

/// Look-ups under way at a time; further names wait for a place.
pub const LOOKUPS_MAX: usize = 512;
/// Longest time of one look-up, over all name servers and search domains.
pub const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Longest wait for one name server before the next one is asked.
const SERVER_MAX: Duration = Duration::from_secs(1);
/// How often each name server is asked.
const ROUNDS: usize = 2;
/// When one family has answered, the other one has so much longer (RFC 8305, section 3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// Files that say where names lead.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often they are looked at, at most.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// Whom to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A name server to ask in place of those in `/etc/resolv.conf`; then there are no search domains either.
    pub name_server: Option<SocketAddr>,
}

/// Asks name servers, on a thread of its own that begins with the first question.
#[derive(Debug)]
pub(crate) struct Asker {
    settings: Settings,
    places: Semaphore,
    loaded: Mutex<Option<Loaded>>,
    /// Place of the name server that answered last: it is asked first.
    well: AtomicUsize,
    running: OnceLock<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    stop: Arc<Notify>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// What the files say.
#[derive(Debug)]
struct Loaded {
    files: Arc<Files>,
    written: [Option<SystemTime>; 2],
    looked: Instant,
}

#[derive(Debug)]
struct Files {
    configuration: Configuration,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl Asker {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            places: Semaphore::new(LOOKUPS_MAX),
            loaded: Mutex::default(),
            well: AtomicUsize::new(0),
            running: OnceLock::new(),
        }
    }

    /// Where look-ups run. `None`: the thread cannot be started.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        let running = self.running.get_or_init(|| match start() {
            Ok(running) => Some(running),
            Err(error) => {
                tracing::error!(%error, "names cannot be looked up: no thread for it");
                None
            }
        });
        running.as_ref().map(|running| &running.handle)
    }

    /// Looks a name up. Takes at most [`LOOKUP_MAX`], after a place is free.
    pub(crate) async fn look_up(&self, host: &str) -> Result<Answer, NoAnswer> {
        let _place = self.places.acquire().await.map_err(|_| NoAnswer::Unanswered)?;
        let files = self.files();
        let plain = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if let Some(addresses) = files.hosts.get(&plain) {
            return Ok(Answer { addresses: addresses.clone(), time_to_live: FRESH_MAX });
        }
        let asking = self.search(&files.configuration, host);
        timeout(LOOKUP_MAX, asking).await.unwrap_or(Err(NoAnswer::Unanswered))
    }

    /// What the files say now: they are read again if they have changed.
    fn files(&self) -> Arc<Files> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*loaded
            && loaded.looked.elapsed() < FILES_INTERVAL
        {
            return Arc::clone(&loaded.files);
        }
        let written = FILES.map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
        let now = Instant::now();
        if let Some(loaded) = &mut *loaded
            && loaded.written == written
        {
            loaded.looked = now;
            return Arc::clone(&loaded.files);
        }
        let [resolv_conf, hosts_file] = FILES.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let configuration = match self.settings.name_server {
            Some(server) => Configuration::asking(server),
            None => Configuration::read(&resolv_conf),
        };
        let files = Arc::new(Files { configuration, hosts: hosts(&hosts_file) });
        *loaded = Some(Loaded { files: Arc::clone(&files), written, looked: now });
        files
    }

    /// Tries the names that `host` may mean, until one has addresses.
    async fn search(&self, configuration: &Configuration, host: &str) -> Result<Answer, NoAnswer> {
        let mut result = NoAnswer::Gone;
        for name in configuration.candidates(host) {
            match self.both_families(&configuration.servers, &name).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Gone) => {}
                // The next candidate may be answered; but that this one does not exist was not said.
                Err(NoAnswer::Unanswered) => result = NoAnswer::Unanswered,
            }
        }
        Err(result)
    }

    /// Asks for addresses of both families at a time. One that is not answered does not hold up the other.
    async fn both_families(&self, servers: &[SocketAddr], name: &str) -> Result<Answer, NoAnswer> {
        let six = Box::pin(self.one_family(servers, name, Kind::Aaaa));
        let four = Box::pin(self.one_family(servers, name, Kind::A));
        let (first, other) = match select(six, four).await {
            Either::Left((found, other)) | Either::Right((found, other)) => (found, other),
        };
        let second = match &first {
            Ok(_) => timeout(OTHER_FAMILY, other).await.unwrap_or(Err(NoAnswer::Unanswered)),
            Err(_) => other.await,
        };
        match (first, second) {
            (Ok(mut answer), Ok(more)) => {
                answer.addresses.extend(more.addresses);
                answer.time_to_live = answer.time_to_live.min(more.time_to_live);
                Ok(answer)
            }
            (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
            (Err(NoAnswer::Gone), Err(NoAnswer::Gone)) => Err(NoAnswer::Gone),
            (Err(_), Err(_)) => Err(NoAnswer::Unanswered),
        }
    }

    async fn one_family(&self, servers: &[SocketAddr], name: &str, kind: Kind) -> Result<Answer, NoAnswer> {
        let first = self.well.load(Relaxed);
        for turn in 0..servers.len() * ROUNDS {
            let place = (first + turn) % servers.len();
            // A name that cannot be asked for does not exist.
            let query = Query::new(fastrand::u16(..), name, kind).ok_or(NoAnswer::Gone)?;
            let reply = timeout(SERVER_MAX, ask(servers[place], &query)).await;
            match reply {
                Ok(Ok(Reply::Addresses(answer))) => {
                    self.well.store(place, Relaxed);
                    return Ok(answer);
                }
                Ok(Ok(Reply::None)) => {
                    self.well.store(place, Relaxed);
                    return Err(NoAnswer::Gone);
                }
                Ok(Ok(reply)) => tracing::debug!(name, server = %servers[place], ?reply, "no answer"),
                Ok(Err(error)) => tracing::debug!(name, server = %servers[place], %error, "no answer"),
                Err(_) => tracing::debug!(name, server = %servers[place], "no answer in time"),
            }
        }
        Err(NoAnswer::Unanswered)
    }
}

/// Asks one name server once: over UDP, from a port of its own, and over TCP if the answer does not fit.
async fn ask(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, so that only this server's packets are seen, and its refusal is.
    socket.connect(server).await?;
    socket.send(&query.packet).await?;
    let mut packet = [0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut packet).await?;
        match query.read(&packet[..length]) {
            Some(Reply::Truncated) => return ask_over_tcp(server, query).await,
            Some(reply) => return Ok(reply),
            // A forgery, or an answer that came late.
            None => {}
        }
    }
}

async fn ask_over_tcp(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &query.packet].concat()).await?;
    let mut packet = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut packet).await?;
    query.read(&packet).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn start() -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    std::thread::Builder::new().name("names".into()).spawn(move || {
        runtime.block_on(stopped.notified());
        runtime.shutdown_background();
    })?;
    Ok(Running { handle, stop })
}
