//! How the process ends: by a service manager's signal, and by Ctrl-C at a terminal.

use std::time::Duration;

use engine::http::{Config, Engine, EngineHandle};
use harness::client::Stream;
use harness::fleet::{chat_stream, engine, soon};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;

const CHAT: &str = "/v1/chat/completions";
/// Long enough that a gateway which waits for it is not mistaken for one that does not.
const NEVER: &str = "1h";

/// A stream under way that does not end by itself within any test.
async fn endless(gateway: &Gateway, engine: &EngineHandle) -> Stream {
    let mut stream = Stream::post(gateway.data, CHAT, &[], chat_stream("m", "hi").to_string()).await;
    assert_eq!(stream.status, 200);
    soon("its first chunk", stream.chunk()).await.unwrap().unwrap();
    soon("the engine at work", engine.until(|counts| counts.in_flight == 1)).await;
    stream
}

async fn slow_engine(output_tokens: u32) -> EngineHandle {
    let pace = Duration::from_millis(20);
    let config = Config { output_tokens, max_model_len: 1 << 24, ..Config::model("m") };
    Engine::start(config.paced(pace, pace)).await.unwrap()
}

fn options(engine: &EngineHandle) -> Options {
    Options::manifest(Manifest::new().model("m", [engine.url()]).yaml()).args(["--drain-delay", NEVER])
}

/// N9: Ctrl-C with no request in flight ends at once, whatever the drain delay is.
#[tokio::test]
async fn a_terminals_interrupt_ends_an_idle_gateway_without_the_delay() {
    let engine = engine("m").await;
    let mut gateway = Gateway::ready(options(&engine)).await;
    gateway.interrupt();
    assert_eq!(gateway.exited().await, Some(0));
    let said = gateway.logged(|line| line["message"] == "draining").await;
    assert_eq!(
        (&said["signal"], &said["delay"], &said["timeout"]),
        (&"SIGINT".into(), &"0ns".into(), &"0ns".into())
    );
}

/// N9: Ctrl-C lets a stream finish, and says that it does; listeners are closed meanwhile.
#[tokio::test]
async fn a_terminals_interrupt_lets_streams_finish_and_says_so() {
    let engine = slow_engine(100).await;
    let mut gateway = Gateway::ready(options(&engine)).await;
    let mut stream = endless(&gateway, &engine).await;
    gateway.interrupt();
    let said =
        gateway.logged(|line| line["message"].as_str().is_some_and(|text| text.contains("in flight"))).await;
    assert_eq!(
        said["message"],
        "1 request is in flight and may finish; a second signal (Ctrl-C) ends at once"
    );
    let rest = soon("the stream", stream.rest()).await.expect("it is not cut");
    assert!(rest.last().unwrap().1.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(gateway.exited().await, Some(0));
}

/// N9: the second Ctrl-C ends at once, also in the delay and in the drain of a SIGTERM.
#[tokio::test]
async fn a_second_interrupt_ends_at_once_whatever_is_under_way() {
    let engine = slow_engine(1_000_000).await;
    let interrupt: fn(&Gateway) = Gateway::interrupt;
    for first in [interrupt, Gateway::terminate] {
        let mut gateway = Gateway::ready(options(&engine)).await;
        let mut stream = endless(&gateway, &engine).await;
        first(&gateway);
        gateway.logged(|line| line["message"] == "draining").await;
        soon("the stream goes on", stream.chunk()).await.unwrap().unwrap();
        gateway.interrupt();
        assert_eq!(gateway.exited().await, Some(130));
        assert!(soon("the stream's end", stream.rest()).await.is_err(), "it was cut");
        soon("the engine to notice", engine.idle()).await;
    }
}

/// N9: without a cluster there is no delay by default: a service manager's SIGTERM ends an idle gateway at once.
#[tokio::test]
async fn a_gateway_without_a_cluster_does_not_wait_for_load_balancers() {
    let engine = engine("m").await;
    let options = Options { args: Vec::new(), without: vec!["--drain-delay"], ..options(&engine) };
    let mut gateway = Gateway::ready(options).await;
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0));
    let said = gateway.logged(|line| line["message"] == "draining").await;
    assert_eq!((&said["signal"], &said["delay"]), (&"SIGTERM".into(), &"0ns".into()));
}

/// N13: systemd hears when the gateway is ready, that it is alive, and that it ends.
#[tokio::test]
async fn a_service_manager_hears_readiness_life_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let heard = async |wanted: &str| {
        let mut bytes = [0; 256];
        let listen = async {
            loop {
                let read = socket.recv(&mut bytes).await.unwrap();
                let text = String::from_utf8(bytes[..read].to_vec()).unwrap();
                if text.lines().any(|line| line == wanted) {
                    return text;
                }
            }
        };
        soon(wanted, listen).await
    };
    let engine = engine("m").await;
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut gateway = Gateway::start(Options { env, args: Vec::new(), ..options(&engine) }).await;
    heard("READY=1").await;
    assert_eq!(
        harness::client::get(gateway.probes, "/readyz").await.status,
        200,
        "it was ready when it said so"
    );
    heard("WATCHDOG=1").await;
    gateway.terminate();
    assert!(heard("STOPPING=1").await.contains("STATUS=drains"));
    assert_eq!(gateway.exited().await, Some(0));
}
