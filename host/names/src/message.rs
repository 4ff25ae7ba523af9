//! Questions to name servers and their answers (RFC 1035), as far as addresses need them. Pure: bytes in, values out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::entry::Answer;

/// Largest answer over UDP that is asked for, bytes: what passes networks in one piece.
pub(crate) const UDP_BYTES_MAX: usize = 1_232;
/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;
/// Longest name and longest label, bytes.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    const fn code(self) -> [u8; 2] {
        match self {
            Self::A => [0, 1],
            Self::Aaaa => [0, 28],
        }
    }
}

/// What a name server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Addresses.
    Addresses(Answer),
    /// The name does not exist, or has none of this kind.
    None,
    /// The answer is too large for UDP.
    Truncated,
    /// It cannot or will not say.
    Failed,
}

/// A question, and the bytes that ask it.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) packet: Vec<u8>,
    kind: Kind,
    /// Where the question ends in the packet.
    end: usize,
}

impl Query {
    /// `None`: this is not a host name.
    pub(crate) fn new(id: u16, name: &str, kind: Kind) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut packet = Vec::with_capacity(HEADER_BYTES + name.len() + 17);
        packet.extend(id.to_be_bytes());
        // Recursion is desired; one question, and one additional record.
        packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            packet.push(length);
            packet.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        packet.push(0);
        packet.extend(kind.code());
        packet.extend([0, 1]);
        let end = packet.len();
        // EDNS (RFC 6891): the root's name, OPT, the size of an answer, no flags, no options.
        packet.extend([0, 0, 41]);
        packet.extend((UDP_BYTES_MAX as u16).to_be_bytes());
        packet.extend([0; 6]);
        Some(Self { packet, kind, end })
    }

    /// Reads an answer. `None`: it is not the answer to this question, or malformed.
    pub(crate) fn read(&self, packet: &[u8]) -> Option<Reply> {
        let header = packet.get(..HEADER_BYTES)?;
        let is_answer = header[2] & 0x80 != 0 && header[2] & 0x78 == 0;
        if header[..2] != self.packet[..2] || !is_answer {
            return None;
        }
        let code = header[3] & 0x0f;
        if code != 0 && code != 3 {
            return Some(Reply::Failed);
        }
        let asked = packet.get(HEADER_BYTES..self.end)?;
        if !asked.eq_ignore_ascii_case(&self.packet[HEADER_BYTES..self.end]) {
            return None;
        }
        if header[2] & 0x02 != 0 {
            return Some(Reply::Truncated);
        }
        if code == 3 {
            return Some(Reply::None);
        }
        self.read_records(packet, u16::from_be_bytes([header[6], header[7]]))
    }

    fn read_records(&self, packet: &[u8], count: u16) -> Option<Reply> {
        let (mut at, mut addresses, mut seconds) = (self.end, Vec::new(), u32::MAX);
        for _ in 0..count {
            at = behind_name(packet, at)?;
            let fixed: [u8; 10] = packet.get(at..at + 10)?.try_into().ok()?;
            let [kind_high, kind_low, class_high, class_low, ttl @ .., high, low] = fixed;
            let data = packet.get(at + 10..at + 10 + usize::from(u16::from_be_bytes([high, low])))?;
            at += 10 + data.len();
            seconds = seconds.min(u32::from_be_bytes(ttl));
            // Records of other kinds lead there: aliases, which the name server has followed.
            if [class_high, class_low] == [0, 1] && [kind_high, kind_low] == self.kind.code() {
                addresses.push(self.address(data)?);
            }
        }
        if addresses.is_empty() {
            return Some(Reply::None);
        }
        let time_to_live = Duration::from_secs(seconds.into());
        Some(Reply::Addresses(Answer { addresses, time_to_live }))
    }

    fn address(&self, data: &[u8]) -> Option<IpAddr> {
        Some(match self.kind {
            Kind::A => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            Kind::Aaaa => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
        })
    }
}

/// Where a name ends that begins at `at`. A pointer ends it; where that leads does not matter.
fn behind_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length if usize::from(length) <= LABEL_BYTES_MAX => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `query` with these records (kind, data), each to live for `ttl` seconds.
    fn answer(query: &Query, code: u8, records: &[(u8, &[u8], u8)]) -> Vec<u8> {
        let mut packet = query.packet[..query.end].to_vec();
        packet[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        packet[7] = records.len() as u8;
        packet[11] = 0;
        for (kind, data, ttl) in records {
            packet.extend([0xc0, 12, 0, *kind, 0, 1, 0, 0, 0, *ttl, 0, data.len() as u8]);
            packet.extend(*data);
        }
        packet
    }

    #[test]
    fn addresses_are_read_behind_aliases_and_live_as_long_as_the_shortest() {
        let query = Query::new(7, "Engine.Test", Kind::A).expect("a name");
        let alias = b"\x03www\x04test\x00";
        let records: &[(u8, &[u8], u8)] = &[(5, alias, 9), (1, &[10, 0, 0, 1], 30), (1, &[10, 0, 0, 2], 60)];
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address")).to_vec();
        let read = Reply::Addresses(Answer { addresses, time_to_live: Duration::from_secs(9) });
        assert_eq!(query.read(&answer(&query, 0, records)), Some(read));
        assert_eq!(query.read(&answer(&query, 0, &records[..1])), Some(Reply::None));
        assert_eq!(query.read(&answer(&query, 3, &[])), Some(Reply::None));
        assert_eq!(query.read(&answer(&query, 2, &[])), Some(Reply::Failed));
        let mut truncated = answer(&query, 0, &[]);
        truncated[2] |= 2;
        assert_eq!(query.read(&truncated), Some(Reply::Truncated));
        let query = Query::new(7, "engine.test.", Kind::Aaaa).expect("a name");
        let read = query.read(&answer(&query, 0, &[(28, &[0; 16], 1)]));
        assert!(matches!(read, Some(Reply::Addresses(_))), "{read:?}");
    }

    #[test]
    fn what_is_not_an_answer_to_the_question_is_not_read() {
        let query = Query::new(7, "engine.test", Kind::A).expect("a name");
        let good = answer(&query, 0, &[(1, &[10, 0, 0, 1], 30)]);
        for (at, byte) in [(0, 9), (2, 0x01), (13, b'x'), (query.end - 3, 28)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(query.read(&other), None, "byte {at}");
        }
        for end in 0..good.len() {
            assert_eq!(query.read(&good[..end]), None, "cut at {end}");
        }
        let short = answer(&query, 0, &[(1, &[10, 0, 0], 30)]);
        assert_eq!(query.read(&short), None, "three bytes are not an address");
        for name in ["", "a..b", &"x".repeat(64), &"a.".repeat(128)] {
            assert!(Query::new(7, name, Kind::A).is_none(), "{name}");
        }
    }
}
