//! With a resolver that answers when the test lets it.

use std::sync::mpsc::{Sender, channel};

use futures::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;
use crate::fake::PATIENCE;

type Found = io::Result<Vec<SocketAddr>>;

/// A resolver that says which look-up has begun, and ends it when its sender is dropped.
struct Slow {
    names: Names,
    begun: UnboundedReceiver<usize>,
    begin: tokio::sync::mpsc::UnboundedSender<usize>,
}

impl Slow {
    fn new() -> Self {
        let (begin, begun) = unbounded_channel();
        Self { names: Names::default(), begun, begin }
    }

    fn look_up(&self, number: usize) -> (Sender<()>, JoinHandle<Found>) {
        let (release, held) = channel();
        let (names, begin) = (self.names.clone(), self.begin.clone());
        let resolve = move || {
            begin.send(number).expect("the test listens");
            let _ = held.recv();
            Ok(Vec::new())
        };
        (release, tokio::spawn(async move { names.look_up(resolve).await }))
    }

    async fn begun(&mut self) -> usize {
        let begun = tokio::time::timeout(PATIENCE, self.begun.recv()).await;
        begun.expect("a look-up begins").expect("we hold a sender")
    }
}

/// Lets every task of this runtime go as far as it can.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_third_look_up_waits_for_a_place_and_one_that_is_given_up_never_begins() {
    let mut slow = Slow::new();
    let (first, first_done) = slow.look_up(1);
    let (second, _second_done) = slow.look_up(2);
    let mut begun = [slow.begun().await, slow.begun().await];
    begun.sort_unstable();
    assert_eq!(begun, [1, 2]);
    let (_third, third_done) = slow.look_up(3);
    let (_fourth, _fourth_done) = slow.look_up(4);
    settle().await;
    assert_eq!(slow.names.places.available_permits(), 0);
    third_done.abort();
    assert!(third_done.await.expect_err("given up").is_cancelled());
    drop(first);
    assert!(first_done.await.expect("no panic").is_ok());
    assert_eq!(slow.begun().await, 4, "the third was given up while it waited");
    drop(second);
    assert!(slow.begun.recv().now_or_never().is_none(), "the third never begins");
}

#[tokio::test]
async fn a_look_up_that_nobody_waits_for_keeps_its_place_until_its_end() {
    let mut slow = Slow::new();
    let (first, first_done) = slow.look_up(1);
    slow.begun().await;
    first_done.abort();
    assert!(first_done.await.expect_err("given up").is_cancelled());
    assert_eq!(slow.names.places.available_permits(), LOOKUPS_MAX - 1, "its thread is held");
    drop(first);
    let all = u32::try_from(LOOKUPS_MAX).expect("few");
    let free = tokio::time::timeout(PATIENCE, slow.names.places.acquire_many(all)).await;
    assert!(free.is_ok(), "it is free again");
}

#[tokio::test]
async fn an_address_waits_for_nobody() {
    let names = Names::default();
    let all = u32::try_from(LOOKUPS_MAX).expect("few");
    let _busy = names.places.acquire_many(all).await.expect("open");
    for (host, expected) in [("10.0.0.1", "10.0.0.1:80"), ("::1", "[::1]:80")] {
        let found = names.addresses(host, 80).now_or_never().expect("at once").expect("an address");
        assert_eq!(found, [expected.parse().expect("an address")]);
    }
    assert!(names.addresses("localhost", 80).now_or_never().is_none(), "a name waits");
}
