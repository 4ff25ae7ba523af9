//! `wicketgate explain`: asks a running gateway's admin listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

mod text;

use crate::args::{ExplainArgs, Format};
use crate::say;
use text::Page;

const PATIENCE: Duration = Duration::from_secs(5);
/// An answer larger than this is cut: 1,024 decisions a worker fit many times over.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Prints the explanation of one request, or of the latest ones.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let path = match &args.request_id {
        Some(id) => {
            let is_plain = id
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'?' && byte != b'#');
            anyhow::ensure!(is_plain, "a request id has no spaces or slashes");
            format!("/explain/{id}")
        }
        None => "/explain".to_owned(),
    };
    let mut stream = TcpStream::connect_timeout(&args.admin, PATIENCE)
        .with_context(|| format!("no gateway answers on {} (see --admin)", args.admin))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", args.admin)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).context("reading the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let is_found = head.split(' ').nth(1) == Some("200");
    if is_found && args.format == Format::Text {
        let page: Page = serde_json::from_str(body).context("the answer is not a list of decisions")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let text = if args.request_id.is_some() { page.details(now) } else { page.table(now) };
        say(format_args!("{}", text.trim_end()));
    } else {
        say(format_args!("{}", body.trim_end()));
    }
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
