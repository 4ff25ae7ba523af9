//! TLS on both sides: the listener's certificate, and whom to trust at engines.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use engine::http::{Config, Engine, EngineHandle, Tls};
use harness::fleet::{chat, until};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::python::interpreter;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::process::Command;

const CHAT: &str = "/v1/chat/completions";

/// A certificate authority, and a certificate for 127.0.0.1 and localhost that it signed.
struct Authority {
    /// The authority's own certificate, PEM.
    certificate: String,
    /// What a server shows.
    server: Tls,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let certificate = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let server =
        Tls { certificates: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() };
    Authority { certificate, server }
}

/// Asks over TLS, trusting only `authority`: the status, or why the handshake failed.
async fn ask(address: SocketAddr, authority: &Path) -> Result<String, String> {
    const SCRIPT: &str = "
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
host, port = sys.argv[1].split(':')
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
body = '{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}'
connection.request('POST', '/v1/chat/completions', body, {'Content-Type': 'application/json'})
print(connection.getresponse().status)
";
    let output = Command::new(interpreter())
        .args(["-c", SCRIPT, &address.to_string()])
        .arg(authority)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("python starts");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The listener over TLS: a new certificate is shown as soon as its files change, and half a change harms nobody.
#[tokio::test]
async fn listener_shows_the_certificate_that_its_files_hold_now() {
    let engine = Engine::start(Config::model("m")).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let [first, second] = [authority(), authority()];
    std::fs::write(path("first.pem"), &first.certificate).unwrap();
    std::fs::write(path("second.pem"), &second.certificate).unwrap();
    let show = |tls: &Tls| {
        // Renamed, as a mounted Secret changes.
        for (name, text) in [("key.pem", &tls.key), ("cert.pem", &tls.certificates)] {
            std::fs::write(path("scratch"), text).unwrap();
            std::fs::rename(path("scratch"), path(name)).unwrap();
        }
    };
    show(&first.server);
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let gateway =
        Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml()).args([
            "--listen-tls",
            "127.0.0.1:0",
            "--tls-cert",
            certificate.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ]))
        .await;
    let address = gateway.tls.expect("a TLS listener");
    assert_eq!(ask(address, &path("first.pem")).await.as_deref(), Ok("200"));
    let refused = ask(address, &path("second.pem")).await.unwrap_err();
    assert!(refused.contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");

    std::fs::write(path("cert.pem"), "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    assert_eq!(ask(address, &path("first.pem")).await.as_deref(), Ok("200"), "the last good one");
    show(&second.server);
    until("the new certificate", || async {
        (ask(address, &path("second.pem")).await.as_deref() == Ok("200")).then_some(())
    })
    .await;
    let refused = ask(address, &path("first.pem")).await.unwrap_err();
    assert!(refused.contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");
}

async fn tls_engine(authority: &Authority) -> EngineHandle {
    let config = Config { tls: Some(authority.server.clone()), ..Config::model("m") };
    Engine::start(config).await.unwrap()
}

/// Engines over TLS: trusted by the authority that a Secret names, or without any look where the manifest says so.
#[tokio::test]
async fn engine_over_tls_is_trusted_as_its_service_says() {
    let [theirs, others] = [authority(), authority()];
    let engine = tls_engine(&theirs).await;
    let secret = |authority: &Authority| {
        let mut text =
            String::from("apiVersion: v1\nkind: Secret\nmetadata: {name: ca}\nstringData:\n  ca.crt: |\n");
        authority.certificate.lines().for_each(|line| text += &format!("    {line}\n"));
        text
    };
    let manifest = |tls: &str, authority: &Authority| {
        Manifest::new().model_with("m", [engine.url()], tls).document(&secret(authority)).yaml()
    };
    let trusting = "tls: {caRef: {kind: Secret, name: ca, key: ca.crt}}";
    let gateway = Gateway::ready(Options::manifest(manifest(trusting, &theirs))).await;
    let ask = async || gateway.post(CHAT, &chat("m", "hi")).await;
    let answer = ask().await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, engine.name()), "{}", answer.text());

    gateway.write("manifests.yaml", &manifest("", &theirs));
    until("an engine that nobody vouches for", || async { (ask().await.status != 200).then_some(()) }).await;
    gateway.write("manifests.yaml", &manifest("tls: {insecureSkipVerify: true}", &theirs));
    until("an engine that need not be vouched for", || async { (ask().await.status == 200).then_some(()) })
        .await;
    let received = engine.counts().received;
    gateway.write("manifests.yaml", &manifest(trusting, &others));
    until("another authority", || async { (ask().await.status != 200).then_some(()) }).await;
    for _ in 0..5 {
        assert_eq!(ask().await.status, 503);
    }
    assert!(engine.counts().received >= received);
}

/// B1: engines behind a Service whose port says `https` are asked over TLS, requests and observers alike; what it takes to
/// trust them is the service's, and its absence a finding.
#[tokio::test]
async fn engines_behind_a_service_that_says_https_are_asked_over_tls() {
    let theirs = authority();
    let engine = tls_engine(&theirs).await;
    let mut secret =
        String::from("apiVersion: v1\nkind: Secret\nmetadata: {name: ca}\nstringData:\n  ca.crt: |\n");
    theirs.certificate.lines().for_each(|line| secret += &format!("    {line}\n"));
    let manifest = |tls: &str, port: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: gw}}\n\
             spec: {{routes: [{{model: m, inferenceServiceRef: svc}}]}}\n---\n\
             apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: svc}}\n\
             spec: {{modelName: m, backendRef: engines{tls}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: engines}}\nspec: {{ports: [{port}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: engines-0, labels: {{kubernetes.io/service-name: engines}}}}\naddressType: IPv4\n\
             ports: [{{port: {}}}]\nendpoints: [{{addresses: [\"127.0.0.1\"]}}]\n---\n{secret}",
            engine.addr().port()
        )
    };
    let trusting = ", tls: {caRef: {kind: Secret, name: ca, key: ca.crt}}";
    let https = "{port: 80, appProtocol: https}";
    let gateway = Gateway::ready(Options::manifest(manifest(trusting, https))).await;
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, engine.name()), "{}", answer.text());
    let url = format!("https://127.0.0.1:{}", engine.addr().port());
    let read = format!("vllm:num_requests_waiting{{server=\"{url}\"}}");
    until("the engine's numbers", || async { gateway.metric(&read).await }).await;

    gateway.write("manifests.yaml", &manifest("", https));
    let finding = || async {
        let page = gateway.admin_page("/findings").await.text();
        page.contains("NoTrust").then_some(())
    };
    until("the finding", finding).await;
    gateway.write("manifests.yaml", &manifest(", tls: {insecureSkipVerify: true}", "{port: 80}"));
    let answers = || async { (gateway.post(CHAT, &chat("m", "hi")).await.status == 200).then_some(()) };
    until("TLS because the service asks for it", answers).await;
}
