//! A way to the API server that can be cut: what a client sees when the server, or the network before it, is away.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A listener that passes connections on, until told not to.
#[derive(Debug)]
pub struct Detour {
    address: SocketAddr,
    open: watch::Sender<bool>,
    /// How many connections were refused.
    refused: watch::Receiver<u64>,
}

impl Detour {
    /// Starts one in front of `target`, open.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (open, state) = watch::channel(true);
        let (count, refused) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !*state.borrow() {
                    count.send_modify(|count| *count += 1);
                }
                tokio::spawn(pass(stream, target, state.clone()));
            }
        });
        Self { address, open, refused }
    }

    /// `https://…` for a kubeconfig.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Resets what is connected and everything that connects from now on.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Waits until so many more connections are refused: the client knows that it is alone.
    pub async fn refuses(&self, count: u64) {
        let mut refused = self.refused.clone();
        let wanted = *refused.borrow() + count;
        let wait = refused.wait_for(|refused| *refused >= wanted);
        let seen = harness::fleet::soon("a refused connection", wait).await;
        drop(seen.expect("the detour stands"));
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>) {
    if *open.borrow_and_update() {
        let Ok(mut server) = TcpStream::connect(target).await else {
            return;
        };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = open.wait_for(|open| !open) => {}
        }
    }
    // A close with unread bytes and without lingering is a reset: nobody mistakes it for the end of an answer.
    let _ = client.set_zero_linger();
}
