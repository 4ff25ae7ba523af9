//! Against a scripted registry on loopback, with a server of tokens and a storage beside it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, mpsc as std_mpsc};

use domain::policy::{EntrySpec, PolicySource, Preparation, Prepare};

use super::*;
use crate::inspect::COMPONENT_BYTES_MAX;
use crate::library::digest;
use crate::testing::{component, in_process, spec};
use crate::{Library, Options};

/// What a server answers: status, headers, body.
type Said = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A request: path with query, and its `Authorization`.
struct Asked<'a> {
    path: &'a str,
    authorization: Option<&'a str>,
}

/// A server that answers as told, and remembers what it was asked. Its thread ends with the process.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked<'_>) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve_one(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve_one(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: &dyn Fn(&Asked<'_>) -> Said) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let authorization = head
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization")))
        .map(|(_, value)| value);
    seen.lock().unwrap().push(format!("{path} {}", authorization.unwrap_or("-")));
    let (status, headers, body) = answer(&Asked { path, authorization });
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all((text + "\r\n").as_bytes());
    let _ = stream.write_all(&body);
}

fn hex(bytes: &[u8]) -> String {
    digest(bytes).to_string()
}

fn manifest(component: &[u8]) -> Vec<u8> {
    manifest_of(&hex(component), component.len())
}

fn manifest_of(sha256: &str, bytes: usize) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{{"mediaType":"application/wasm","digest":"sha256:{sha256}","size":{bytes}}}]}}"#
    )
    .into_bytes()
}

fn ok(body: impl Into<Vec<u8>>) -> Said {
    (200, Vec::new(), body.into())
}

fn not_found() -> Said {
    (404, Vec::new(), Vec::new())
}

/// A registry that has one component under `team/p`, by digest and as `v1`.
fn registry(component: &'static [u8]) -> Server {
    let manifest = manifest(component);
    let (by_digest, blob) = (
        format!("/v2/team/p/manifests/sha256:{}", hex(&manifest)),
        format!("/v2/team/p/blobs/sha256:{}", hex(component)),
    );
    Server::start(move |asked| match asked.path {
        path if path == by_digest || path == "/v2/team/p/manifests/v1" => ok(manifest.clone()),
        path if path == blob => ok(component),
        _ => not_found(),
    })
}

fn order(image: &str) -> Order {
    Order { id: 1, image: Image::parse(image).unwrap(), pull_secret: None, sha256: None }
}

fn pinned(server: &Server, manifest: &[u8]) -> Order {
    order(&format!("{}/team/p@sha256:{}", server.address, hex(manifest)))
}

fn pull(options: &FetchOptions, order: &Order) -> Result<Vec<u8>, PrepareFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Puller::new(options).pull(order)).map(|bytes| bytes.to_vec())
}

const COMPONENT: &[u8] = b"a component";

#[test]
fn a_component_comes_by_digest_or_by_tag_with_its_own_digest() {
    let server = registry(COMPONENT);
    let by_digest = pinned(&server, &manifest(COMPONENT));
    assert_eq!(pull(&FetchOptions::default(), &by_digest).unwrap(), COMPONENT);
    let mut by_tag = order(&format!("{}/team/p:v1", server.address));
    by_tag.sha256 = Some(hex(COMPONENT).into());
    assert_eq!(pull(&FetchOptions::default(), &by_tag).unwrap(), COMPONENT);
    assert_eq!(server.asked().len(), 4, "{:?}", server.asked());
}

/// The dance: refused, sent for a token, which needs the Secret's credentials; the blob lies elsewhere, and who has it is
/// told nothing.
#[test]
fn a_private_component_takes_a_token_and_its_storage_learns_of_no_credentials() {
    let storage = Server::start(|asked| match asked.path {
        "/stored?signed=1" => ok(COMPONENT),
        _ => not_found(),
    });
    let tokens = Server::start(|asked| {
        let is_right =
            asked.authorization == Some("Basic dTpw") && asked.path.contains("scope=repository:team/p:pull");
        if is_right { ok(r#"{"token":"T"}"#) } else { (401, Vec::new(), Vec::new()) }
    });
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="the registry",scope="repository:team/p:pull""#,
        tokens.address
    );
    let elsewhere = format!("http://{}/stored?signed=1", storage.address);
    let server = Server::start(move |asked| {
        if asked.authorization != Some("Bearer T") {
            return (401, vec![("www-authenticate", challenge.clone())], Vec::new());
        }
        if asked.path.contains("/blobs/") {
            return (307, vec![("location", elsewhere.clone())], Vec::new());
        }
        ok(manifest(COMPONENT))
    });
    let mut private = pinned(&server, &manifest(COMPONENT));
    let refused = pull(&FetchOptions::default(), &private).unwrap_err();
    assert_eq!(refused.reason, "FetchFailed");
    assert!(
        refused.message.contains("wants credentials") && refused.remedy.contains("pullSecretRef"),
        "{refused:?}"
    );
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    private.pull_secret = Some(PullSecret(config.into_bytes().into()));
    assert_eq!(pull(&FetchOptions::default(), &private).unwrap(), COMPONENT);
    assert_eq!(storage.asked(), ["/stored?signed=1 -"]);
    let token = "/token?scope=repository:team/p:pull&service=the%20registry";
    assert_eq!(tokens.asked(), [format!("{token} -"), format!("{token} Basic dTpw")]);
    let wrong = format!(r#"{{"auths":{{"{}":{{"auth":"dTp3"}}}}}}"#, server.address);
    private.pull_secret = Some(PullSecret(wrong.into_bytes().into()));
    let refused = pull(&FetchOptions::default(), &private).unwrap_err();
    assert!(refused.message.contains("refuses the credentials"), "{refused:?}");
}

#[test]
fn user_and_password_are_enough_where_the_registry_says_so() {
    let server = Server::start(|asked| match (asked.authorization, asked.path.contains("/blobs/")) {
        (Some("Basic dTpw"), true) => ok(COMPONENT),
        (Some("Basic dTpw"), false) => ok(manifest(COMPONENT)),
        _ => (401, vec![("www-authenticate", "Basic realm=\"r\"".to_owned())], Vec::new()),
    });
    let mut private = pinned(&server, &manifest(COMPONENT));
    let config = format!(r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#, server.address);
    private.pull_secret = Some(PullSecret(config.into_bytes().into()));
    assert_eq!(pull(&FetchOptions::default(), &private).unwrap(), COMPONENT);
}

#[test]
fn what_is_not_what_it_says_is_refused_and_what_is_too_large_is_not_even_asked_for() {
    let large = manifest_of(&hex(COMPONENT), COMPONENT_BYTES_MAX + 1);
    let short = manifest_of(&hex(COMPONENT), COMPONENT.len() - 1);
    let image = br#"{"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:00","size":1}]}"#;
    let good = manifest(COMPONENT);
    let serving = |manifest: Vec<u8>, blob: &'static [u8]| {
        Server::start(
            move |asked| if asked.path.contains("/blobs/") { ok(blob) } else { ok(manifest.clone()) },
        )
    };
    // Manifest that is asked for and that is given, blob, what is said, and how much was asked.
    let cases: [(_, Vec<u8>, &'static [u8], _, _, usize); 6] = [
        (good.clone(), b"another manifest".to_vec(), COMPONENT, "DigestMismatch", "manifest", 1),
        (good.clone(), good.clone(), b"b component", "DigestMismatch", "component", 2),
        (large.clone(), large, COMPONENT, "TooLarge", "at most", 1),
        (short.clone(), short, COMPONENT, "FetchFailed", "larger than", 2),
        (image.to_vec(), image.to_vec(), COMPONENT, "FetchFailed", "application/wasm", 1),
        (b"no JSON".to_vec(), b"no JSON".to_vec(), COMPONENT, "FetchFailed", "cannot be read", 1),
    ];
    for (expected, manifest, blob, reason, text, questions) in cases {
        let server = serving(manifest, blob);
        let failure = pull(&FetchOptions::default(), &pinned(&server, &expected)).unwrap_err();
        assert_eq!(failure.reason, reason, "{failure:?}");
        assert!(failure.message.contains(text) && !failure.remedy.is_empty(), "{text} in {failure:?}");
        assert_eq!(server.asked().len(), questions, "{failure:?}");
    }
    let server = serving(good, COMPONENT);
    let mut other = order(&format!("{}/team/p:v1", server.address));
    other.sha256 = Some("00".repeat(32).into());
    assert_eq!(pull(&FetchOptions::default(), &other).unwrap_err().reason, "DigestMismatch");
    assert_eq!(server.asked().len(), 1, "the wrong one is not downloaded");
}

#[test]
fn who_may_not_be_asked_is_not_asked() {
    let server = registry(COMPONENT);
    let asked = pinned(&server, &manifest(COMPONENT));
    let only = |registries: &[String]| FetchOptions {
        registries: registries.iter().map(|text| text.as_str().into()).collect(),
        ..FetchOptions::default()
    };
    let address = &server.address;
    for refused in [format!("{address}/tea"), format!("{address}/team/p/q"), "ghcr.io".to_owned()] {
        let failure = pull(&only(std::slice::from_ref(&refused)), &asked).unwrap_err();
        assert!(failure.remedy.contains("--policy-registry"), "{failure:?}");
    }
    assert_eq!(server.asked().len(), 0);
    for allowed in [address.clone(), format!("{address}/team"), format!("{address}/team/p/")] {
        assert!(pull(&only(&["ghcr.io".to_owned(), allowed]), &asked).is_ok());
    }
}

#[test]
fn only_loopback_and_what_is_named_is_asked_without_tls() {
    let client = client::Client::new(vec!["registry.example:5000".into()]);
    for (authority, scheme) in [
        ("127.0.0.1:5000", "http"),
        ("localhost", "http"),
        ("[::1]:5000", "http"),
        ("registry.example:5000", "http"),
        ("registry.example", "https"),
        ("127.0.0.1.example", "https"),
        ("10.0.0.1:5000", "https"),
    ] {
        assert_eq!(client.scheme(authority), scheme, "{authority}");
    }
    // A redirect must not lead out of TLS either.
    let server = Server::start(|_| (302, vec![("location", "http://192.0.2.1/x".to_owned())], Vec::new()));
    let failure = pull(&FetchOptions::default(), &pinned(&server, b"x")).unwrap_err();
    assert!(
        failure.message.contains("without TLS") && failure.remedy.contains("--policy-insecure-registry"),
        "{failure:?}"
    );
    let server = Server::start(|_| (302, vec![("location", "/again".to_owned())], Vec::new()));
    let failure = pull(&FetchOptions::default(), &pinned(&server, b"x")).unwrap_err();
    assert!(failure.message.contains("redirects"), "{failure:?}");
}

#[test]
fn what_was_fetched_once_needs_no_registry_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let options = FetchOptions { cache: Some(folder.path().to_owned()), ..FetchOptions::default() };
    let server = registry(COMPONENT);
    let asked = pinned(&server, &manifest(COMPONENT));
    assert_eq!(pull(&options, &asked).unwrap(), COMPONENT);
    assert_eq!(pull(&options, &asked).unwrap(), COMPONENT);
    assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
    let mut by_tag = order("127.0.0.1:1/team/p:v1");
    by_tag.sha256 = Some(hex(COMPONENT).into());
    assert_eq!(pull(&options, &by_tag).unwrap(), COMPONENT, "nobody listens there");
}

/// The whole way: ordered, fetched, compiled; tried again after a failure.
#[test]
fn a_policy_from_a_registry_becomes_ready_once_the_registry_answers() {
    let bytes: &'static [u8] = std::fs::read(component("round-robin")).unwrap().leak();
    let is_up = Arc::new(AtomicBool::new(false));
    let (up, manifest) = (Arc::clone(&is_up), manifest(bytes));
    let image_manifest = manifest.clone();
    let server = Server::start(move |asked| match (up.load(SeqCst), asked.path.contains("/blobs/")) {
        (false, _) => (503, Vec::new(), Vec::new()),
        (true, true) => ok(bytes),
        (true, false) => ok(manifest.clone()),
    });
    let retry = Some(Duration::from_millis(5));
    let fetch = FetchOptions { retry, ..FetchOptions::default() };
    let library = Library::new(Options { instances: 8, fetch, ..in_process() }).unwrap();
    let (sender, woken) = std_mpsc::channel();
    library.on_change(Box::new(move || sender.send(()).unwrap()));
    let source = PolicySource::Oci { image: pinned(&server, &image_manifest).image, pull_secret: None };
    let from_registry = EntrySpec { source, ..spec("round-robin", "{}") };
    assert!(matches!(library.prepare(&from_registry), Preparation::Pending));
    woken.recv().unwrap();
    let Preparation::Failed(failure) = library.prepare(&from_registry) else { panic!("it is down") };
    assert_eq!(failure.reason, "FetchFailed");
    assert!(failure.message.contains("503"), "{failure:?}");
    is_up.store(true, SeqCst);
    woken.recv().unwrap();
    while !matches!(library.prepare(&from_registry), Preparation::Ready(_)) {
        woken.recv().unwrap();
    }
    let other = EntrySpec { config: r#"{"pool":{}}"#.into(), ..from_registry.clone() };
    library.prepare_now(&other).unwrap();
    let so_far = server.asked().into_iter().filter(|line| line.contains("/blobs/")).collect::<Vec<_>>();
    assert_eq!(so_far.len(), 1, "one component, fetched once");
}

/// Wants an order for so many attempts, and notes what came of them.
struct Impatient {
    attempts: AtomicU64,
    attempts_max: u64,
    reasons: Mutex<Vec<&'static str>>,
}

impl Desk for Impatient {
    fn is_wanted(&self, _id: u64) -> bool {
        self.attempts.fetch_add(1, SeqCst) < self.attempts_max
    }

    fn deliver(&self, _id: u64, result: Result<Arc<[u8]>, PrepareFailure>) {
        self.reasons.lock().unwrap().push(result.map_or_else(|failure| failure.reason, |_| "here"));
    }
}

#[test]
fn what_is_not_there_is_tried_until_nobody_wants_it_and_what_is_there_once() {
    let server = registry(COMPONENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tried = |order: &Order| {
        let desk = Impatient { attempts: 0.into(), attempts_max: 3, reasons: Mutex::default() };
        let (puller, places) = (Puller::new(&FetchOptions::default()), Semaphore::new(1));
        runtime.block_on(persist(order, &puller, &desk, (&places, Duration::from_millis(1))));
        desk.reasons.into_inner().unwrap()
    };
    assert_eq!(tried(&pinned(&server, b"missing")), ["FetchFailed"; 3]);
    assert_eq!(tried(&pinned(&server, &manifest(COMPONENT))), ["here"]);
}

/// C15: a registry cannot have the gateway ask its own machine: not by a redirect, and not as the server of tokens.
#[tokio::test]
async fn what_another_machine_leads_to_here_is_not_asked() {
    let inner = Server::start(|_| ok("inner"));
    let client = client::Client::new(Vec::new());
    let question = client::Question {
        url: format!("http://{}/token", inner.address),
        from: Some("https://registry.example/v2/p".parse().unwrap()),
        accept: "application/json",
        authorization: None,
        bytes_max: 100,
    };
    assert!(client.get(&question).await.is_err());
    assert_eq!(inner.asked(), [""; 0]);
}
