//! Against a name server and listeners on loopback.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::FutureExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Names, STAGGER, Settings};

#[expect(unreachable_pub, reason = "the suite's harness has it as a public module")]
#[path = "../../../tests/harness/dns.rs"]
mod dns;

use dns::{NameServer, Reply};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

fn names(server: &NameServer) -> Names {
    Names::new(Settings { name_server: Some(server.address()) })
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until `is_so`.
async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn addresses_and_localhost_wait_for_nothing() {
    let names = Names::new(Settings { name_server: Some("127.0.0.1:1".parse().unwrap()) });
    for (host, expected) in [
        ("10.0.0.1", &["10.0.0.1:80"][..]),
        ("::1", &["[::1]:80"]),
        ("localhost", &["127.0.0.1:80", "[::1]:80"]),
        ("engine.Localhost.", &["127.0.0.1:80", "[::1]:80"]),
    ] {
        let found = names.addresses(host, 80).now_or_never().expect("at once").unwrap();
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(found, expected, "{host}");
    }
}

/// A4: a hundred names that get no answer delay no other one, and stay dead by themselves.
#[tokio::test]
async fn dead_names_delay_no_other() {
    let server = NameServer::start();
    let names = names(&server);
    server.lead("well.test", "10.0.0.1");
    let mut dead = Vec::new();
    for number in 0..100 {
        let host = format!("dead-{number}.test");
        server.set(&host, Reply::Silence);
        let names = names.clone();
        dead.push(tokio::spawn(async move { names.addresses(&host, 80).await }));
    }
    until(|| (0..100).all(|number| server.asked(&format!("dead-{number}.test")) > 0)).await;
    let found = soon(names.addresses("well.test", 80)).await.unwrap();
    assert_eq!(found, ["10.0.0.1:80".parse().unwrap()]);
    assert!(dead.iter().all(|task| !task.is_finished()), "answered while they wait");
    for task in dead {
        assert!(soon(task).await.unwrap().is_err(), "each look-up ends");
    }
}

/// A4: all that wait for a name share one look-up.
#[tokio::test]
async fn one_look_up_serves_all_that_wait() {
    let server = NameServer::start();
    let names = names(&server);
    server.lead("shared.test", "10.0.0.1");
    let waits = (0..50).map(|_| names.addresses("shared.test", 80));
    for found in soon(futures::future::join_all(waits)).await {
        assert_eq!(found.unwrap().len(), 1);
    }
    assert_eq!(server.asked("shared.test"), 1);
}

/// A4: a look-up ends with the last caller that waits for it.
#[tokio::test]
async fn a_look_up_that_nothing_waits_for_is_abandoned() {
    let server = NameServer::start();
    let names = names(&server);
    server.set("slow.test", Reply::Silence);
    let waiting = {
        let names = names.clone();
        tokio::spawn(async move { names.addresses("slow.test", 80).await })
    };
    until(|| server.asked("slow.test") > 0).await;
    assert!(names.is_asking("slow.test"));
    waiting.abort();
    let _ = waiting.await;
    assert!(!names.is_asking("slow.test"));
    // And nothing is remembered of it: the next caller has it looked up at once.
    server.lead("slow.test", "10.0.0.1");
    assert_eq!(soon(names.addresses("slow.test", 80)).await.unwrap().len(), 1);
}

/// A4: while name servers fail, the last good answer is used, and nothing waits for them.
#[tokio::test]
async fn the_last_good_answer_is_used_while_name_servers_fail() {
    let server = NameServer::start();
    let names = names(&server);
    server.lead("known.test", "10.0.0.1");
    soon(names.addresses("known.test", 80)).await.unwrap();
    server.set("known.test", Reply::Fails);
    let asked = server.asked("known.test");
    // Until its answer has become stale and was asked for again, more than once.
    soon(async {
        while server.asked("known.test") < asked + 2 {
            assert_eq!(names.addresses("known.test", 80).await.unwrap(), ["10.0.0.1:80".parse().unwrap()]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A6: a connection learns that its name leads elsewhere, without a new one having to be made.
#[tokio::test]
async fn a_connection_learns_that_its_name_has_moved() {
    let server = NameServer::start();
    let names = names(&server);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.lead("moving.test", "127.0.0.1");
    let (_stream, route) =
        soon(names.connect("moving.test", listener.local_addr().unwrap().port())).await.unwrap();
    let mut route = route.expect("it was found by a name");
    assert!(route.is_current());
    server.lead("moving.test", "10.0.0.1");
    soon(async {
        while route.is_current() {
            route.refresh();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A listener whose queue is full: connecting to it gets no answer, as from an address that drops packets.
async fn silent(ip: &str, port: u16) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip.parse().unwrap(), port)).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = tokio::time::timeout(STAGGER * 4, TcpStream::connect(address)).await {
        held.push(stream.unwrap());
    }
    (listener, held)
}

/// A5: an address that swallows SYNs holds up neither the first connection for long nor the next ones at all.
#[tokio::test]
async fn a_name_whose_first_addresses_are_silent_connects_to_another() {
    let server = NameServer::start();
    let names = names(&server);
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _first = silent("127.0.0.1", port).await;
    let _second = silent("127.0.0.2", port).await;
    let ips = |text: &str| -> Vec<IpAddr> { text.split(' ').map(|ip| ip.parse().unwrap()).collect() };
    server.set("many.test", Reply::Addresses(ips("127.0.0.1 127.0.0.2 127.0.0.3"), 60));
    for _ in 0..8 {
        let (stream, _) = soon(names.connect("many.test", port)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), ips("127.0.0.3")[0]);
    }
    server.set("dead.test", Reply::Addresses(ips("127.0.0.1"), 60));
    let alone = tokio::time::timeout(STAGGER * 2, names.connect("dead.test", port)).await;
    assert!(alone.is_err(), "they are silent");
}

/// A5: an address that refuses is followed by the next one at once; when all have, that is said.
#[tokio::test]
async fn refusals_are_followed_by_the_next_address_and_reported_in_the_end() {
    let server = NameServer::start();
    let names = names(&server);
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ips = |text: &str| -> Vec<IpAddr> { text.split(' ').map(|ip| ip.parse().unwrap()).collect() };
    server.set("some.test", Reply::Addresses(ips("::1 127.0.0.2 127.0.0.3"), 60));
    soon(names.connect("some.test", port)).await.unwrap();
    server.set("none.test", Reply::Addresses(ips("127.0.0.1 127.0.0.2"), 60));
    let error = soon(names.connect("none.test", port)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    server.set("gone.test", Reply::Gone);
    assert!(soon(names.connect("gone.test", port)).await.is_err());
}
