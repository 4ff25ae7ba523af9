//! Binding listeners: one socket per worker on the same port, and certain that no other process has it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, per worker; the kernel's own limit applies too.
const BACKLOG: i32 = 4_096;

/// Binds one listener per worker. Port 0 takes any free port, the same for all of them.
///
/// `SO_REUSEPORT` would let a second process join in and take every other connection unnoticed. So the address is bound
/// once without the option first; while that fails, so does this. The error names the address.
pub(super) fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    bind_all(address, workers).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let address = match address.port() {
        // Nobody can have a port that does not exist yet; asking for it alone would let it go again before it is ours.
        0 => address,
        _ => {
            drop(socket(address, false)?);
            address
        }
    };
    let first = socket(address, true)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < workers {
        listeners.push(socket(bound, true)?);
    }
    Ok((bound, listeners))
}

fn socket(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep us from starting.
    socket.set_reuse_address(true)?;
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    if let SocketAddr::V6(v6) = address
        && v6.ip().is_unspecified()
    {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    if shares_port {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn any_port_is_the_same_port_for_all_workers() {
        let (bound, listeners) = bind(any(), 3).unwrap();
        assert_ne!(bound.port(), 0);
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == bound));
    }

    #[test]
    fn a_second_process_on_the_same_port_is_noticed() {
        let (bound, _listeners) = bind(any(), 2).unwrap();
        let error = bind(bound, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let named = format!("{bound}: Address already in use");
        assert!(error.to_string().starts_with(&named), "who is to free it has to know which: {error}");
    }
}
