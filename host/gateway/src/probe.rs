//! `wicketgate probe URL...`: asks each URL until it answers with 2xx. The image has neither a shell nor curl; `helm test`
//! runs this.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hyper::Uri;

use crate::args::ProbeArgs;
use crate::say;
use domain::redact;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of one attempt for anything.
const STEP_MAX: Duration = Duration::from_secs(5);
/// Most bytes read for the status line.
const STATUS_LINE_MAX: u64 = 1024;

/// Asks all URLs, one after the other.
///
/// # Errors
/// Of the last attempt at the first URL that has not answered with 2xx in time.
pub(crate) fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + args.timeout;
    for url in &args.urls {
        let place = Place::of(url)?;
        let shown = redact::url(url);
        let status = until(deadline, || place.ask()).with_context(|| shown.clone().into_owned())?;
        say(format_args!("{status} {shown}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries until it works or the deadline has passed; at least once.
fn until<T>(deadline: Instant, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() + PAUSE >= deadline => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Whom to ask, and for what.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Place {
    fn of(url: &str) -> anyhow::Result<Self> {
        let shown = redact::url(url);
        let uri: Uri = url.parse().with_context(|| format!("{shown} is not a URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "{shown}: only http:// is asked");
        let authority = uri.authority().context("a URL has a host")?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// One attempt: the status, if it is 2xx.
    fn ask(&self) -> anyhow::Result<u16> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let mut stream = connect(addresses)?;
        stream.set_read_timeout(Some(STEP_MAX))?;
        stream.set_write_timeout(Some(STEP_MAX))?;
        let Self { path, authority, .. } = self;
        // In one write: a server may look at the first piece only.
        let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut reader = stream.take(STATUS_LINE_MAX);
        let mut piece = [0; 64];
        while !head.contains(&b'\n') {
            match reader.read(&mut piece)? {
                0 => break,
                read => head.extend_from_slice(&piece[..read]),
            }
        }
        let status = status_of(&head).context("the answer is not HTTP")?;
        ensure!((200..300).contains(&status), "status {status}");
        Ok(status)
    }
}

fn connect(addresses: impl Iterator<Item = SocketAddr>) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, STEP_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("the name has no address"),
    }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next()?.starts_with("HTTP/1.").then(|| words.next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers each connection with the next text, and ends.
    fn answering(texts: &[&'static str]) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/version?a=b", listener.local_addr().unwrap());
        let texts = texts.to_vec();
        let thread = std::thread::spawn(move || {
            for text in texts {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 512];
                let read = stream.read(&mut asked).unwrap();
                assert!(asked[..read].starts_with(b"GET /version?a=b HTTP/1.1\r\nhost: 127.0.0.1:"));
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        (url, thread)
    }

    fn asked(url: String, timeout: Duration) -> anyhow::Result<ExitCode> {
        probe(&ProbeArgs { urls: vec![url], timeout })
    }

    #[test]
    fn a_url_is_asked_until_it_answers_well() {
        let (url, thread) =
            answering(&["HTTP/1.1 503 Not Yet\r\n\r\n", "nonsense\n", "HTTP/1.1 204 No Content\r\n\r\n"]);
        assert!(asked(url, Duration::from_secs(60)).is_ok());
        thread.join().unwrap();
    }

    #[test]
    fn when_time_is_up_the_last_answer_is_the_reason() {
        let (url, thread) = answering(&["HTTP/1.1 404 Not Found\r\n\r\n"]);
        let error = asked(url.clone(), Duration::ZERO).unwrap_err();
        // A query may hold a credential: the message leaves it out.
        let shown = url.split_once('?').map_or(url.clone(), |(page, _)| format!("{page}?…"));
        assert_eq!(format!("{error:#}"), format!("{shown}: status 404"));
        thread.join().unwrap();
    }

    #[test]
    fn urls_read_as_people_write_them() {
        let place = |url: &str| Place::of(url).map(|place| (place.host, place.port, place.path)).ok();
        assert_eq!(place("http://gw.ns.svc"), Some(("gw.ns.svc".into(), 80, "/".into())));
        assert_eq!(place("http://[::1]:9/x"), Some(("::1".into(), 9, "/x".into())));
        assert_eq!(place("https://gw"), None);
        assert_eq!(place("/livez"), None);
    }
}
