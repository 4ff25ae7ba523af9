//! Clients: raw sockets, requests rendered before, answers parsed no further than their framing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::prompts::Prompts;
use super::wire;

/// A keep-alive connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back: the head is valid until the next exchange.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Status line and headers.
    pub(crate) head: &'a [u8],
}

impl Answer<'_> {
    /// Whether the status is 200.
    pub(crate) fn is_ok(&self) -> bool {
        self.head.get(9..12) == Some(b"200")
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(target: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends `request` and reads the whole answer, which must have a length.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                return Err(std::io::Error::other("an answer longer than the buffer"));
            }
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
            let Some(head) = wire::head_end(&self.buffer[..filled]) else { continue };
            let Some(length) = wire::content_length(&self.buffer[..head]) else {
                return Err(std::io::Error::other("an answer without a length"));
            };
            if filled >= head + length {
                return Ok(Answer { head: &self.buffer[..head] });
            }
        }
    }
}

/// What a load has done so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers with status 200.
    pub(crate) answered: AtomicU64,
    /// Everything else.
    pub(crate) failed: AtomicU64,
    /// Events of streams.
    pub(crate) chunks: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    /// Ends the load at the next request.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }
    /// Whether it has been told to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// When a client sends.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// `rate` requests a second, spread evenly over `clients`.
    pub(crate) fn spread(rate: f64, clients: usize) -> Vec<Self> {
        let interval = Duration::from_secs_f64(clients as f64 / rate);
        let start = Instant::now();
        let first = |index| start + interval.mul_f64(index as f64 / clients as f64);
        (0..clients).map(|index| Self { next: first(index), interval }).collect()
    }

    /// Waits for the next turn. Returns when it was due: a client that is late counts its delay.
    pub(crate) async fn turn(&mut self) -> Instant {
        let due = self.next;
        self.next += self.interval;
        if Instant::now() > due {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        // The timer's grain is not the gateway's fault.
        Instant::now()
    }
}

/// Clients that send the next request when the last is answered, or at a rate.
#[derive(Debug)]
pub(crate) struct Closed {
    /// What they have done.
    pub(crate) tally: Arc<Tally>,
    clients: JoinSet<()>,
}

impl Closed {
    /// Starts `connections` clients on the current runtime, as fast as they are answered.
    pub(crate) fn start(target: SocketAddr, prompts: &Arc<Prompts>, connections: usize) -> Self {
        Self::begin(target, prompts, (0..connections).map(|_| None))
    }

    /// Starts clients that together send `rate` requests a second, if they are answered that fast.
    pub(crate) fn at_rate(target: SocketAddr, prompts: &Arc<Prompts>, connections: usize, rate: f64) -> Self {
        Self::begin(target, prompts, Pace::spread(rate, connections).into_iter().map(Some))
    }

    fn begin(target: SocketAddr, prompts: &Arc<Prompts>, paces: impl Iterator<Item = Option<Pace>>) -> Self {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        for pace in paces {
            clients.spawn(client(target, Arc::clone(prompts), Arc::clone(&tally), pace));
        }
        Self { tally, clients }
    }

    /// Lets the requests under way end.
    pub(crate) async fn finish(self) {
        self.tally.stop();
        self.clients.join_all().await;
    }
}

async fn client(target: SocketAddr, prompts: Arc<Prompts>, tally: Arc<Tally>, mut pace: Option<Pace>) {
    let mut connection = None;
    while !tally.is_stopped() {
        if let Some(pace) = &mut pace {
            pace.turn().await;
        }
        let Some(prompt) = prompts.take() else { return };
        let ok = match reuse_or_open(&mut connection, target).await {
            Ok(open) => open.exchange(prompt.bytes()).await.is_ok_and(|answer| answer.is_ok()),
            Err(_) => false,
        };
        prompts.put_back(prompt);
        if ok {
            tally.answered.fetch_add(1, Relaxed);
        } else {
            tally.failed.fetch_add(1, Relaxed);
            connection = None;
            // A proxy that refuses must not be hammered.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn reuse_or_open(
    connection: &mut Option<Connection>,
    target: SocketAddr,
) -> std::io::Result<&mut Connection> {
    let open = match connection.take() {
        Some(open) => open,
        None => Connection::open(target).await?,
    };
    Ok(connection.insert(open))
}

/// Streams: started one after the other over a time, each read to its end.
#[derive(Debug)]
pub(crate) struct Streams {
    /// What they have done.
    pub(crate) tally: Arc<Tally>,
    /// Time from connecting to the first event, µs.
    pub(crate) first_chunk: Arc<Mutex<Vec<f64>>>,
    clients: JoinSet<()>,
}

impl Streams {
    /// Starts `count` streams on the current runtime, evenly over `ramp`, each on a connection of its own.
    pub(crate) fn start(target: SocketAddr, prompts: &Arc<Prompts>, count: usize, ramp: Duration) -> Self {
        let tally = Arc::new(Tally::default());
        let first_chunk = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let mut clients = JoinSet::new();
        let start = Instant::now();
        for index in 0..count {
            let (prompts, tally) = (Arc::clone(prompts), Arc::clone(&tally));
            let first_chunk = Arc::clone(&first_chunk);
            let at = start + ramp.mul_f64(index as f64 / count as f64);
            clients.spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                let Some(prompt) = prompts.take() else { return };
                let first = |micros| {
                    first_chunk.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
                };
                match stream(target, prompt.bytes(), &tally, first).await {
                    Ok(()) => tally.answered.fetch_add(1, Relaxed),
                    Err(_) => tally.failed.fetch_add(1, Relaxed),
                };
                prompts.put_back(prompt);
            });
        }
        Self { tally, first_chunk, clients }
    }

    /// Waits until every stream has ended.
    pub(crate) async fn finish(&mut self) {
        while self.clients.join_next().await.is_some() {}
    }
}

/// One stream. The first event's time in µs goes to `first`; an answer without its end is an error.
async fn stream(
    target: SocketAddr,
    request: &[u8],
    tally: &Tally,
    first: impl Fn(f64),
) -> std::io::Result<()> {
    let start = Instant::now();
    let mut connection = TcpStream::connect(target).await?;
    connection.set_nodelay(true)?;
    connection.write_all(request).await?;
    let mut buffer = [0; 8 * 1024];
    let mut seen = false;
    loop {
        let read = connection.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let events = wire::count(&buffer[..read], b"data: ");
        tally.chunks.fetch_add(events as u64, Relaxed);
        if events > 0 && !seen {
            seen = true;
            first(start.elapsed().as_secs_f64() * 1e6);
        }
        if buffer[..read].ends_with(b"0\r\n\r\n") {
            return Ok(());
        }
    }
}
