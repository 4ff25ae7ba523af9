use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Longest wait for what must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn started(pages: Pages) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, pages));
    address
}

fn fine() -> Pages {
    Arc::new(|_, _| Box::pin(std::future::ready(Page::text(StatusCode::OK, "ok\n"))))
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connects")
}

/// Sends a request, and returns the status line of what comes.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let read = stream.read_buf(&mut answer);
        let read = tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
        assert!(read.expect("readable") > 0, "closed after {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// Waits for the end of a connection; what came until then.
async fn end(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A reset is an end, too.
    let _ = ended.expect("the connection ends");
    rest
}

/// C6: a new connection is served although every place is taken by a silent one; the oldest of these gives way.
#[tokio::test]
async fn the_quietest_connection_gives_way_to_a_new_one() {
    let address = started(fine()).await;
    let mut asking = connect(address).await;
    assert_eq!(ask(&mut asking).await, "HTTP/1.1 200 OK");
    let mut silent = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        silent.push(connect(address).await);
    }
    // The first connection is the oldest, and not the quietest.
    assert_eq!(ask(&mut asking).await, "HTTP/1.1 200 OK");
    let mut new = connect(address).await;
    assert_eq!(ask(&mut new).await, "HTTP/1.1 200 OK");
    assert_eq!(end(&mut silent[0]).await, b"", "the oldest silent one");
    assert_eq!(ask(&mut asking).await, "HTTP/1.1 200 OK");
}

/// C6: a client that takes nothing of its answer is let go, and its place is free again.
#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    // More than sockets hold, so that the write has to wait.
    let large: Pages =
        Arc::new(|_, _| Box::pin(std::future::ready(Page::text(StatusCode::OK, vec![b'x'; 64 << 20]))));
    let address = started(large).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    // Only the end of the connection makes the client's next writes fail.
    let closed = async {
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the gateway closes it");
}

/// C6: a connection may send a bounded number of requests.
#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let address = started(fine()).await;
    let mut stream = connect(address).await;
    let requests = "GET / HTTP/1.1\r\nhost: h\r\n\r\n".repeat(REQUESTS_MAX as usize + 5);
    let (mut read, mut write) = stream.split();
    let sending = async {
        // The gateway closes before it has read the last ones.
        let _ = write.write_all(requests.as_bytes()).await;
    };
    let mut answers = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut answers).await;
    };
    let both = async { tokio::join!(sending, reading) };
    tokio::time::timeout(PATIENCE, both).await.expect("it ends");
    let answers = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK").count();
    assert!(answers <= REQUESTS_MAX as usize, "{answers} answers");
}
