//! An HTTP server that answers what a test tells it to, and an endpoint's configuration to reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::endpoint::EndpointSpec;
use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// What the server does with one request.
#[derive(Clone)]
pub(crate) enum Script {
    /// A whole answer.
    Answer(u16, String),
    /// Never says anything.
    Silence,
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
}

/// A certificate for these names, signed by itself.
pub(crate) fn certificate(names: &[&str]) -> CertifiedKey<KeyPair> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    rcgen::generate_simple_self_signed(names).expect("a certificate")
}

/// Speaks TLS with this certificate.
pub(crate) fn acceptor(key: &CertifiedKey<KeyPair>) -> TlsAcceptor {
    let chain = vec![CertificateDer::from(key.cert.der().to_vec())];
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .expect("a usable key");
    TlsAcceptor::from(Arc::new(config))
}

/// Speaks TLS with a certificate that nobody believes.
pub(crate) fn self_signed() -> TlsAcceptor {
    acceptor(&certificate(&["localhost"]))
}

/// A running server. It ends with the runtime of its test.
pub(crate) struct FakeEngine {
    pub(crate) port: u16,
    script: Arc<Mutex<HashMap<String, Script>>>,
    /// Head of every request, as soon as it is here.
    pub(crate) heads: mpsc::UnboundedReceiver<String>,
}

impl FakeEngine {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (told, heads) = mpsc::unbounded_channel();
        let script: Arc<Mutex<HashMap<String, Script>>> = Arc::default();
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, told, tls) = (Arc::clone(&shared), told.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &script, &told).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &script, &told).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, script, heads }
    }

    pub(crate) fn on(&self, path: &str, script: Script) {
        self.script.lock().expect("no panic").insert(path.to_owned(), script);
    }

    pub(crate) fn answer(&self, path: &str, status: u16, body: &str) {
        self.on(path, Script::Answer(status, body.to_owned()));
    }

    pub(crate) fn spec(&self) -> EndpointSpec {
        spec(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Forgets the questions so far, so that the next one that [`Self::asked`] sees is a new one.
    pub(crate) fn forget(&mut self) {
        while self.heads.try_recv().is_ok() {}
    }

    /// Waits for the next request to `path`; others are skipped. Returns its head.
    pub(crate) async fn asked(&mut self, path: &str) -> String {
        loop {
            let head = self.heads.recv().await.expect("the server runs");
            if head.starts_with(&format!("GET {path} ")) {
                return head;
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Mutex<HashMap<String, Script>>,
    told: &mpsc::UnboundedSender<String>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let path = head.split(' ').nth(1).expect("a path").to_owned();
    let script = script.lock().expect("no panic").get(&path).cloned();
    let _ = told.send(head);
    let bytes = match script.unwrap_or_else(|| Script::Answer(404, String::new())) {
        Script::Silence => return std::future::pending().await,
        Script::Raw(bytes) => bytes,
        Script::Answer(status, body) => {
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// An endpoint at `url` (scheme, host and port), everything else absent.
pub(crate) fn spec(url: &str) -> EndpointSpec {
    EndpointSpec::at(url).expect("a URL")
}
