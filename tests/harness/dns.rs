//! A name server on loopback that answers as a test says. Used by the suite, and by the unit tests of `host/names`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// What is said about a name.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These addresses, to be believed for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// That it does not exist.
    Gone,
    /// That it cannot be found out.
    Fails,
    /// Nothing.
    Silence,
}

/// A name server. It answers until the process ends.
#[derive(Clone, Debug)]
pub struct NameServer {
    address: SocketAddr,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

#[derive(Debug)]
struct Known {
    reply: Reply,
    /// Questions for IPv4 addresses so far.
    asked: u32,
}

impl NameServer {
    /// Knows no name yet.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        let server = Self { address, known: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                if let Some(answer) = serving.answer(&packet[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        server
    }

    /// Where it listens, UDP only.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says this about `name` from now on.
    pub fn set(&self, name: &str, reply: Reply) {
        let mut known = self.known.lock().expect("no panic");
        let asked = known.get(name).map_or(0, |known| known.asked);
        known.insert(name.to_owned(), Known { reply, asked });
    }

    /// One address for `name`, to be believed for a second.
    pub fn lead(&self, name: &str, address: &str) {
        self.set(name, Reply::Addresses(vec![address.parse().expect("an address")], 1));
    }

    /// How often the IPv4 addresses of `name` were asked for.
    pub fn asked(&self, name: &str) -> u32 {
        self.known.lock().expect("no panic").get(name).map_or(0, |known| known.asked)
    }

    fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = question(packet)?;
        let is_v6 = packet.get(end..end + 2)? == [0, 28];
        let reply = {
            let mut known = self.known.lock().expect("no panic");
            match known.get_mut(&name) {
                Some(known) => {
                    known.asked += u32::from(!is_v6);
                    known.reply.clone()
                }
                None => Reply::Gone,
            }
        };
        let (code, addresses, seconds) = match reply {
            Reply::Addresses(addresses, seconds) => (0, addresses, seconds),
            Reply::Gone => (3, Vec::new(), 0),
            Reply::Fails => (2, Vec::new(), 0),
            Reply::Silence => return None,
        };
        let addresses: Vec<IpAddr> = addresses.into_iter().filter(|ip| ip.is_ipv6() == is_v6).collect();
        let mut out = packet[..2].to_vec();
        out.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
        out.extend(&packet[12..end + 4]);
        for address in addresses {
            // The name of the question, its type and class.
            out.extend([0xc0, 12]);
            out.extend(&packet[end..end + 4]);
            out.extend(seconds.to_be_bytes());
            match address {
                IpAddr::V4(ip) => out.extend([&[0, 4][..], &ip.octets()].concat()),
                IpAddr::V6(ip) => out.extend([&[0, 16][..], &ip.octets()].concat()),
            }
        }
        Some(out)
    }
}

/// The name that a packet asks for, and where its type stands.
fn question(packet: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
