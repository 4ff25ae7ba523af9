//! A budget for the frames of an HTTP/2 client that ask for no work: PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE,
//! CONTINUATION, GOAWAY and unknown ones.
//!
//! Such a frame costs us more than the client, and a connection can carry millions of them a second. The protocol's library
//! bounds what they leave in memory and the empty and tiny frames of bodies; it does not bound the rate. Only the nine bytes
//! in front of each frame are looked at, as the bytes are read.

/// Frames that a client may send at once.
const BURST: u32 = 2_000;
/// Frames that become free each second.
const PER_SECOND: u64 = 1_000;
/// Frames that become free with each request: to set its priority, open its windows, cancel it.
const PER_REQUEST: u32 = 4;
/// Bytes that are written for each frame that becomes free: a client opens its windows as it takes data. More than any
/// frame that is sent in answer to a control frame, so that a flood does not pay for itself.
const BYTES_PER_FRAME: usize = 64;
/// What every HTTP/2 connection begins with, bytes.
const PREFACE_BYTES: usize = 24;
/// In front of every frame: length, type, flags, stream.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
/// ENHANCE_YOUR_CALM (RFC 9113, 7).
const CALM: u32 = 0xb;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    /// Frames that may be sent now.
    free: u32,
    refilled_ms: u64,
    /// Written bytes that have freed no frame yet.
    written: usize,
    /// The last stream that the client opened.
    last_stream: u32,
}

impl Frames {
    /// At the start of a connection, before its preface.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            head_len: 0,
            free: BURST,
            refilled_ms: now_ms,
            written: 0,
            last_stream: 0,
        }
    }

    /// Looks at bytes that came from the client. False: there were too many frames.
    pub(super) fn read(&mut self, mut bytes: &[u8], now_ms: u64) -> bool {
        self.refill(now_ms);
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let more = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + more].copy_from_slice(&bytes[..more]);
            self.head_len += more;
            bytes = &bytes[more..];
            if self.head_len < HEAD_BYTES {
                return true;
            }
            self.head_len = 0;
            if !self.frame() {
                return false;
            }
        }
    }

    /// Bytes went to the client.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let frames = self.written / BYTES_PER_FRAME;
        self.written %= BYTES_PER_FRAME;
        self.give(u32::try_from(frames).unwrap_or(BURST));
    }

    /// The frame that tells a client why its connection ends.
    pub(super) fn go_away(&self) -> [u8; HEAD_BYTES + 8] {
        let mut frame = [0; HEAD_BYTES + 8];
        frame[2] = 8;
        frame[3] = GOAWAY;
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&CALM.to_be_bytes());
        frame
    }

    /// A frame begins. False: it is one too many.
    fn frame(&mut self) -> bool {
        let [a, b, c, kind, _, stream @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            // The library counts these.
            DATA => true,
            HEADERS => {
                self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & 0x7fff_ffff);
                self.give(PER_REQUEST);
                true
            }
            _ => match self.free.checked_sub(1) {
                Some(free) => {
                    self.free = free;
                    true
                }
                None => false,
            },
        }
    }

    fn refill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.refilled_ms);
        let frames = passed_ms * PER_SECOND / 1_000;
        if frames > 0 {
            self.refilled_ms = now_ms;
            self.give(u32::try_from(frames).unwrap_or(BURST));
        }
    }

    fn give(&mut self, frames: u32) {
        self.free = self.free.saturating_add(frames).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn opened() -> Frames {
        let mut frames = Frames::new(0);
        assert!(frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0));
        frames
    }

    /// How many of these frames are taken, read in pieces of so many bytes.
    fn taken(frames: &mut Frames, frame: &[u8], piece: usize, now_ms: u64) -> usize {
        let many = frame.repeat(BURST as usize * 2);
        let read = many.chunks(piece).take_while(|piece| frames.read(piece, now_ms)).count();
        read * piece / frame.len()
    }

    /// C12.
    #[test]
    fn control_frames_have_a_burst_and_a_rate_however_they_are_cut() {
        for piece in [1, 5, 17] {
            assert_eq!(taken(&mut opened(), &PING, piece, 0), BURST as usize, "pieces of {piece}");
        }
        let mut frames = opened();
        assert!(frames.read(&PING.repeat(BURST as usize), 0));
        assert_eq!(taken(&mut frames, &PING, 17, 1_000), PER_SECOND as usize, "a second later");
        for kind in [2, 3, 4, 6, 7, 8, 9, 0xff] {
            let frame = [0, 0, 4, kind, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            assert_eq!(taken(&mut opened(), &frame, 13, 0), BURST as usize, "type {kind}");
        }
    }

    #[test]
    fn data_and_requests_are_not_counted() {
        for kind in [DATA, HEADERS] {
            let mut frames = opened();
            let frame = [0, 0, 1, kind, 0, 0x80, 0, 0, 7, 0];
            assert_eq!(taken(&mut frames, &frame, 10, 0), BURST as usize * 2, "type {kind}");
        }
    }

    /// C12: clients that acknowledge every event of a stream, twice, are honest.
    #[test]
    fn what_is_written_pays_for_the_windows_that_it_opens() {
        let mut frames = opened();
        let window = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 1, 0];
        for _ in 0..BURST * 3 {
            frames.wrote(200);
            assert!(frames.read(&window, 0) && frames.read(&window, 0));
        }
        let mut frames = opened();
        let pings = (0..u32::MAX).take_while(|_| {
            frames.wrote(PING.len());
            frames.read(&PING, 0)
        });
        assert!(pings.count() < BURST as usize * 2, "a flood does not pay for itself");
    }

    #[test]
    fn go_away_names_the_last_stream() {
        let mut frames = opened();
        assert!(frames.read(&[0, 0, 1, HEADERS, 0, 0, 0, 0, 7, 0], 0));
        assert_eq!(frames.go_away(), [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]);
    }
}
