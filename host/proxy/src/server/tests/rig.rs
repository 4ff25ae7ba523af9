//! Engines, gateways and clients for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use domain::assemble::Assembler;
use domain::draft::GatewayDraft;
use domain::policy::{Call, Evaluate, Policies, Verdict};
use domain::pool::Pool;
use domain::prefix::PrefixIndex;
use domain::published::{Publisher, published};

use crate::fixture;
use crate::server::{ListenerSpec, Parts, Server, ServerHandle, ServerOptions};

/// How long a test waits for what must happen; only a failing test waits so long, and a machine may be busy with much else.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// How often a test measures a time that has a bar.
const MEASUREMENTS_MAX: usize = 3;

/// Measures until a time is within its bar: a busy machine can only make times longer, and what is slow by itself is slow every
/// time.
pub(super) fn within(what: &str, bar: Duration, mut measure: impl FnMut() -> Duration) {
    let mut missed = Vec::new();
    while missed.len() < MEASUREMENTS_MAX {
        match measure() {
            took if took < bar => return,
            took => missed.push(took),
        }
    }
    panic!("{what}: not once within {bar:?}: {missed:?}");
}

/// An engine: a listener whose connections the test plays by hand.
pub(super) struct Engine {
    pub(super) authority: String,
    accepted: Receiver<TcpStream>,
}

impl Engine {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (sender, accepted) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_read_timeout(Some(LONG)).unwrap();
                stream.set_nodelay(true).unwrap();
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { authority, accepted }
    }

    /// An address where nobody listens.
    pub(super) fn nobody() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { authority: address.to_string(), accepted: channel().1 }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    pub(super) fn accept(&self) -> Served {
        self.try_accept(LONG).expect("the gateway connects")
    }

    pub(super) fn try_accept(&self, wait: Duration) -> Result<Served, RecvTimeoutError> {
        let stream = self.accepted.recv_timeout(wait)?;
        Ok(Served { reader: BufReader::new(stream.try_clone().unwrap()), stream })
    }
}

/// A connection of the gateway to an engine.
#[derive(Debug)]
pub(super) struct Served {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Served {
    pub(super) fn read_request(&mut self) -> Message {
        read_message(&mut self.reader)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The same, where the gateway may have closed the connection. Whether it took the bytes.
    pub(super) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends without end until the gateway closes the connection.
    pub(super) fn send_until_closed(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(LONG)).unwrap();
        let error = loop {
            if let Err(error) = self.stream.write_all(bytes) {
                break error;
            }
        };
        let is_closed =
            matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe);
        assert!(is_closed, "the gateway takes no more and does not close: {error}");
    }

    /// Waits until the gateway has closed the connection; what it sent before is dropped.
    pub(super) fn wait_for_close(&mut self) {
        let mut rest = Vec::new();
        // A reset is a close as well.
        if let Err(error) = self.reader.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the gateway closes");
        }
    }

    /// Whether nothing but the end is left to read.
    pub(super) fn is_at_end(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]))
    }
}

/// A message with its body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
}

impl Message {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

fn read_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.ends_with("\r\n"), "a whole line: {line:?}");
    line.trim_end().to_string()
}

fn read_message(reader: &mut impl BufRead) -> Message {
    let line = read_line(reader);
    let mut headers = Vec::new();
    loop {
        let header = read_line(reader);
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").unwrap();
        headers.push((name.to_ascii_lowercase(), value.to_string()));
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut message = Message { line, headers, body: Vec::new(), status };
    if message.header("transfer-encoding").is_some() {
        loop {
            let chunk = read_chunk(reader);
            if chunk.is_empty() {
                break;
            }
            message.body.extend_from_slice(&chunk);
        }
    } else if let Some(length) = message.header("content-length") {
        message.body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut message.body).unwrap();
    }
    message
}

fn read_chunk(reader: &mut impl BufRead) -> Vec<u8> {
    let size = usize::from_str_radix(&read_line(reader), 16).unwrap();
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk).unwrap();
    assert_eq!(read_line(reader), "");
    chunk
}

/// Reads one whole answer.
pub(super) fn read_answer(client: &mut TcpStream) -> Message {
    read_message(&mut BufReader::with_capacity(1, client))
}

/// A client that reads a chunked answer piece by piece.
pub(super) struct Stream {
    reader: BufReader<TcpStream>,
}

impl Stream {
    pub(super) fn of(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }
    pub(super) fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = read_line(&mut self.reader);
            if line.is_empty() {
                return head;
            }
            head.push_str(&line);
            head.push('\n');
        }
    }
    pub(super) fn chunk(&mut self) -> Vec<u8> {
        read_chunk(&mut self.reader)
    }
    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }
}

/// A gateway on a free port.
pub(super) struct Gateway {
    pub(super) handle: ServerHandle,
    /// Dropping it would change nothing; a gateway has its publisher.
    _publisher: Publisher,
}

impl Gateway {
    /// Routes model `m` (alias `alias`) to these engines.
    pub(super) fn of(engines: &[&Engine]) -> Self {
        Self::start(|gateway| vec![gateway], engines, ServerOptions::default())
    }

    pub(super) fn with(engines: &[&Engine], change: impl FnOnce(&mut GatewayDraft)) -> Self {
        let change = |mut gateway| {
            change(&mut gateway);
            vec![gateway]
        };
        Self::start(change, engines, ServerOptions::default())
    }

    pub(super) fn start(
        drafts: impl FnOnce(GatewayDraft) -> Vec<GatewayDraft>,
        engines: &[&Engine],
        mut options: ServerOptions,
    ) -> Self {
        let mut urls: Vec<String> = engines.iter().map(|engine| engine.url()).collect();
        urls.sort();
        let specs: Vec<_> = urls.iter().map(|url| fixture::endpoint(url, "")).collect();
        let draft = fixture::gateway("g", vec![fixture::route("m", &specs)]);
        let (publisher, published) = published();
        let mut assembler = Assembler::default();
        publisher.publish(fixture::snapshot(&mut assembler, drafts(draft)));
        if options.listeners.is_empty() {
            options.listeners.push(ListenerSpec {
                address: "127.0.0.1:0".parse().unwrap(),
                dialect: Default::default(),
                tls: None,
            });
        }
        let parts = Parts {
            published,
            policies: Arc::new(NoPolicies),
            index: Arc::new(PrefixIndex::new(1 << 20)),
            tell_sleep: None,
        };
        let handle = Server::start(options, parts).unwrap();
        Self { handle, _publisher: publisher }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Requests in flight, over all workers.
    pub(super) fn in_flight(&self) -> u32 {
        self.handle.workers().states().iter().map(|state| state.in_flight).sum()
    }

    /// Waits until nothing is in flight.
    pub(super) fn wait_until_idle(&self) {
        self.wait_until_in_flight(0);
    }

    /// Waits until so many are in flight.
    pub(super) fn wait_until_in_flight(&self, count: u32) {
        let start = std::time::Instant::now();
        while self.in_flight() != count {
            assert!(start.elapsed() < LONG, "{} in flight, not {count}", self.in_flight());
            std::thread::yield_now();
        }
    }
}

/// Asks nobody.
#[derive(Debug)]
pub(super) struct NoPolicies;

impl Policies for NoPolicies {
    fn evaluator(&self, _: usize) -> Box<dyn Evaluate> {
        Box::new(Nobody)
    }
}

struct Nobody;

impl Evaluate for Nobody {
    fn evaluate(&mut self, _: Call<'_>) -> Verdict {
        Verdict::default()
    }
    fn retain(&mut self, _: &[Arc<Pool>]) {}
    fn instances(&self) -> usize {
        0
    }
}

/// A chat request.
pub(super) fn chat(model: &str, content: &str) -> Vec<u8> {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    post("/v1/chat/completions", "", &body)
}

/// A POST with extra header lines, each ended by CRLF.
pub(super) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// An answer of an engine.
pub(super) fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
