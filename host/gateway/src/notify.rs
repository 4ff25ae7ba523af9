//! What a service manager hears (`sd_notify(3)`): ready, ending, alive. A few lines of our own instead of a library: the
//! protocol is one datagram of `NAME=VALUE` lines.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one. Lives as long as the process.
#[derive(Debug)]
pub(crate) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// To the socket that `NOTIFY_SOCKET` names: a path, or `@` and the name of an abstract one. Without it, or where it
    /// cannot be used, nothing is said.
    pub(crate) fn from_environment() -> Self {
        Self::to(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    fn to(name: Option<&OsStr>) -> Self {
        let address = name.map(OsStr::as_bytes).and_then(|name| match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(name)).ok(),
            _ => None,
        });
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Self(socket.ok().zip(address))
    }

    /// Sends `NAME=VALUE` lines, such as `READY=1`. Never waits; what the service manager does not take is lost.
    pub(crate) fn say(&self, lines: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(lines.as_bytes(), address);
        }
    }
}

/// How often the service manager wants to hear `WATCHDOG=1`: half of its limit. `None`: never.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let limit = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0)?;
    Some(Duration::from_micros((limit / 2).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N13: both kinds of sockets are reached, and without one nothing happens.
    #[test]
    fn a_service_manager_hears_through_paths_and_abstract_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("wicketgate-test-{}", std::process::id());
        let listens = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (named, socket) in listens {
            Notify::to(Some(&named)).say("READY=1\nSTATUS=serves");
            let mut bytes = [0; 64];
            let read = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..read], b"READY=1\nSTATUS=serves");
        }
        for unusable in
            [None, Some(OsStr::new("relative")), Some(OsStr::new("")), Some(OsStr::new("/nowhere/x"))]
        {
            Notify::to(unusable).say("READY=1");
        }
    }
}
