//! What `/etc/resolv.conf` and `/etc/hosts` say. Pure: text in, values out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Name servers that are used, as the C library does.
const SERVERS_MAX: usize = 3;
/// Search domains that are tried.
const SEARCH_MAX: usize = 16;
/// Largest number of dots that can be asked for.
const DOTS_MAX: usize = 15;

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// At least one.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) search: Vec<String>,
    /// A name with so many dots is tried as it is, before the search domains.
    pub(crate) dots: usize,
}

impl Configuration {
    /// One name server and no search domains.
    pub(crate) fn asking(server: SocketAddr) -> Self {
        Self { servers: vec![server], search: Vec::new(), dots: 1 }
    }

    /// Reads `/etc/resolv.conf`. Without a name server, this machine's is meant.
    pub(crate) fn read(text: &str) -> Self {
        let mut read = Self { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => read.servers.extend(words.next().and_then(server)),
                // The last one of both counts.
                Some("search" | "domain") => {
                    read.search = words.map(|word| word.trim_matches('.').to_owned()).collect();
                }
                Some("options") => {
                    let dots = words
                        .filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok())
                        .next_back();
                    read.dots = dots.map_or(read.dots, |dots| dots.min(DOTS_MAX));
                }
                _ => {}
            }
        }
        read.servers.truncate(SERVERS_MAX);
        read.search.retain(|domain| !domain.is_empty());
        read.search.truncate(SEARCH_MAX);
        if read.servers.is_empty() {
            read.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        read
    }

    /// The full names that `host` may mean, in the order in which they are tried.
    pub(crate) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let below = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        let mut all: Vec<String> = below.collect();
        let place = if dots >= self.dots { 0 } else { all.len() };
        all.insert(place, host.to_owned());
        all
    }
}

/// An address, perhaps with a zone, which only matters for link-local servers.
fn server(text: &str) -> Option<SocketAddr> {
    let with_zone = |(ip, zone): (&str, &str)| {
        let scope = zone.parse().ok()?;
        Some(SocketAddr::V6(std::net::SocketAddrV6::new(ip.parse().ok()?, 53, 0, scope)))
    };
    let plain = |ip: IpAddr| SocketAddr::new(ip, 53);
    text.parse().map(plain).ok().or_else(|| text.split_once('%').and_then(with_zone))
}

/// Reads `/etc/hosts`: addresses by name, in lower case.
pub(crate) fn hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut all: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words {
            all.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_resolv_conf_is_read_as_the_c_library_does() {
        let text = "# cluster\nnameserver 10.96.0.10\nnameserver fd00::a\nnameserver nonsense\n\
                    search prod.svc.cluster.local svc.cluster.local. cluster.local\noptions ndots:5 timeout:1\n";
        let read = Configuration::read(text);
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        assert_eq!(
            read.candidates("engine"),
            ["engine.prod.svc.cluster.local", "engine.svc.cluster.local", "engine.cluster.local", "engine"]
        );
        assert_eq!(read.candidates("api.example.com").last().expect("some"), "api.example.com");
        assert_eq!(read.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(read.candidates("engine.prod."), ["engine.prod"]);
        let bare = Configuration::read("");
        assert_eq!(
            (bare.servers[0].to_string().as_str(), bare.candidates("x")),
            ("127.0.0.1:53", vec!["x".into()])
        );
    }

    #[test]
    fn hosts_are_read_with_their_aliases() {
        let all =
            hosts("127.0.0.1 localhost\n10.0.0.1 Engine engine.lan # the first\n::1 engine\nbad line\n");
        let of = |name: &str| all[name].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("engine"), ["10.0.0.1", "::1"]);
        assert_eq!(of("engine.lan"), ["10.0.0.1"]);
        assert!(!all.contains_key("line"));
    }
}
