//! Reads traces in the format Mooncake publishes: one JSON object a line, plain or gzip.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::{Request, Workload};

const BLOCK_TOKENS: u32 = 512;

/// Why a trace could not be read.
#[derive(Debug)]
pub enum TraceError {
    /// The file.
    Io(std::io::Error),
    /// A line, counted from one.
    Line {
        /// Counted from one.
        number: usize,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(_) => f.write_str("cannot read the trace"),
            Self::Line { number, .. } => write!(f, "line {number} of the trace is not a request"),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::Line { cause, .. } => Some(cause),
        }
    }
}

impl From<std::io::Error> for TraceError {
    fn from(cause: std::io::Error) -> Self {
        Self::Io(cause)
    }
}

#[derive(Deserialize)]
struct Line {
    /// Milliseconds.
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// Reads a trace; gzip is recognised by its first bytes. The format names no sessions: those whose second block is the same
/// (the first is in every request) count as one, since that is how far a conversation's turns surely agree.
///
/// # Errors
/// When the file cannot be read or a line is not a request.
pub fn read_trace(path: &Path) -> Result<Workload, TraceError> {
    let mut file = BufReader::new(File::open(path)?);
    let is_gzip = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let requests = match is_gzip {
        true => read_lines(BufReader::new(MultiGzDecoder::new(file)))?,
        false => read_lines(file)?,
    };
    Ok(Workload { name, block_tokens: BLOCK_TOKENS, requests })
}

fn read_lines(reader: impl BufRead) -> Result<Vec<Request>, TraceError> {
    let mut requests = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line =
            serde_json::from_str(&line).map_err(|cause| TraceError::Line { number: index + 1, cause })?;
        requests.push(Request {
            arrival: Duration::from_millis(line.timestamp),
            follows: None,
            session: line.hash_ids.get(1).or(line.hash_ids.first()).copied().unwrap_or_default(),
            tenant: 0,
            blocks: line.hash_ids.into(),
            prompt_tokens: line.input_length.max(1),
            output_tokens: line.output_length.max(1),
        });
    }
    requests.sort_by_key(|request| request.arrival);
    Ok(requests)
}
