//! The command line: what people ask of the binary without serving.

use std::path::Path;
use std::process::Output;

use engine::http::Config;
use harness::client;
use harness::fleet::{chat, engines, soon, urls};
use harness::gateway::{Gateway, Options, binary, root};
use harness::manifests::Manifest;
use serde_json::Value;
use tokio::process::Command;

/// Runs the binary to its end.
async fn run(args: &[&str]) -> Output {
    let output = Command::new(binary()).args(args).kill_on_drop(true).output();
    soon(&format!("the end of {args:?}"), output).await.expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// N14: `check`: 0 and a summary in English where all is well, 1 and `file:line:column: what` where something would not be in force.
#[tokio::test]
async fn check_points_at_what_is_wrong_and_says_so_by_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.yaml");
    let good = Manifest::new().model("m", ["http://127.0.0.1:1"]).yaml();
    std::fs::write(&file, &good).unwrap();
    let output = run(&["check", text(directory.path())]).await;
    assert_eq!(
        (code(&output), out(&output).trim()),
        (0, "1 gateway, 1 route, 1 endpoint: 0 errors, 0 warnings")
    );

    std::fs::write(&file, good.replace("modelName: \"m\"", "modelName: [m]")).unwrap();
    let output = run(&["check", text(directory.path())]).await;
    let line = good.lines().position(|line| line.contains("modelName")).unwrap() + 1;
    assert_eq!(code(&output), 1, "{}", out(&output));
    assert!(out(&output).contains(&format!("m.yaml:{line}:")), "{}", out(&output));
    assert!(
        out(&output).contains("error: InferenceService default/svc-0: spec.modelName"),
        "{}",
        out(&output)
    );

    std::fs::write(&file, good.replace("  routes:", "  rutes:")).unwrap();
    let output = run(&["check", text(directory.path())]).await;
    assert_eq!(code(&output), 0, "warnings alone do not fail: {}", out(&output));
    assert!(out(&output).contains("warning") && out(&output).contains("spec.rutes"), "{}", out(&output));

    let output = run(&["check", "--format", "json", text(directory.path())]).await;
    let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = page["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|finding| finding["field"] == "spec.rutes" && finding["remedy"] != ""),
        "{page}"
    );

    let output = run(&["check", text(&directory.path().join("nowhere"))]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("neither a file nor a directory"), "{}", err(&output));
}

/// N11, D1: `check` takes files and standard input, names paths that lead there, fails on warnings when asked to, names the
/// nearest spelling once, and calls a template a template.
#[tokio::test]
async fn check_takes_files_and_standard_input_and_names_what_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.yaml");
    let good = Manifest::new().gateway("routeStrategy: PrefixHash").model("m", ["http://127.0.0.1:1"]).yaml();
    let cases = [
        ("{model: \"m\"", "{modle: \"m\"", "there is no field modle", "did you mean model?"),
        ("PrefixHash", "PrefixHsh", "there is no policy PrefixHsh", "did you mean PrefixHash?"),
        ("name: gw", "name: Gateway_1", "not a name that the API server takes", "gateway-1"),
        ("svc-0}", "svc-9}", "there is no InferenceService default/svc-9", "did you mean svc-0?"),
        (
            "modelName: \"m\"",
            "modelName: {{ .Values.model }}",
            "a Helm template that was not rendered",
            "helm template",
        ),
        ("127.0.0.1:1", "${ENGINE}:8000", "a placeholder that was not filled in", "10.0.0.1:8000"),
    ];
    for (right, wrong, message, remedy) in cases {
        assert!(good.contains(right), "{right}: {good}");
        std::fs::write(&file, good.replacen(right, wrong, 1)).unwrap();
        let output = run(&["check", text(&file)]).await;
        assert_eq!(code(&output), 1, "{wrong}: {}", out(&output));
        let errors: Vec<String> =
            out(&output).lines().filter(|line| line.contains(": error: ")).map(str::to_owned).collect();
        let [error] = errors.as_slice() else { panic!("{wrong}: {}", out(&output)) };
        assert!(error.starts_with(text(&file)), "{error}");
        assert!(error.contains(message) && error.contains(remedy), "{error}");
    }
    std::fs::write(&file, good.replace("  routes:", "  rutes:")).unwrap();
    let output = run(&["check", text(&file)]).await;
    assert_eq!(code(&output), 0, "{}", out(&output));
    assert_eq!(out(&output).matches(": warning: ").count(), 1, "{}", out(&output));
    assert_eq!(code(&run(&["check", "--strict", text(&file)]).await), 1);
    let colored = run(&["check", "--color", "always", text(&file)]).await;
    assert!(out(&colored).contains("\x1b[33mwarning: ") && out(&colored).contains("^"), "{}", out(&colored));
    assert!(!out(&output).contains('\x1b'), "no colours where there is no terminal");

    let script = format!("{} check - < {}", binary().display(), text(&file));
    let output = Command::new("sh").args(["-c", &script]).output().await.unwrap();
    assert!(out(&output).contains("<stdin>:") && out(&output).contains("spec.rutes"), "{}", out(&output));
    let output = run(&["policy", "check", "PrefixHash"]).await;
    assert_eq!(code(&output), 0, "{}{}", out(&output), err(&output));
}

/// `explain`: the latest requests, one of them by its id, and 1 for one that is not known.
#[tokio::test]
async fn explain_says_why_a_request_went_where_it_went() {
    let engines = engines(2, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let mut gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let body = chat("m", "hi").to_string();
    let headers = [("x-request-id", "request-7")];
    let answer = client::post(gateway.data, "/v1/chat/completions", &headers, body).await;
    assert_eq!(answer.status, 200);
    let admin = gateway.admin.to_string();

    let output = run(&["explain", "request-7", "--admin", &admin]).await;
    let chose = format!("chose http://{}", answer.engine());
    assert!(out(&output).contains(&chose) && out(&output).contains("round-robin"), "{}", out(&output));
    let output = run(&["explain", "request-7", "--format", "json", "--admin", &admin]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let decision = &page["decisions"][0];
    assert!(decision.to_string().contains("round-robin"), "{decision}");
    assert!(decision.to_string().contains(&format!("http://{}", answer.engine())), "{decision}");
    let output = run(&["explain", "--admin", &admin]).await;
    let listed = out(&output).lines().find(|line| line.contains("request-7")).map(str::to_owned);
    assert!(listed.is_some_and(|line| line.ends_with("round-robin")), "{}", out(&output));
    let output = run(&["explain", "request-8", "--admin", &admin]).await;
    assert_eq!(code(&output), 1, "{}", out(&output));
    let output = run(&["explain", "a request", "--admin", &admin]).await;
    assert_eq!(code(&output), 1);
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0));
    let output = run(&["explain", "--admin", &admin]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no gateway answers on"), "{}", err(&output));
}

/// `crds`: one definition per kind, on paper or in files.
#[tokio::test]
async fn crds_prints_one_definition_per_kind() {
    let output = run(&["crds"]).await;
    assert_eq!(code(&output), 0);
    let printed = out(&output);
    let kinds = [
        "InferenceGateway",
        "InferenceService",
        "InferenceCache",
        "RoutingPolicy",
        "StaticRoute",
        "PrefillDecodingDisaggregation",
        "SpeculativeDecoding",
        "ModelPlacement",
    ];
    for kind in kinds {
        assert!(printed.contains(&format!("kind: {kind}\n")), "{kind}");
    }
    assert_eq!(printed.matches("kind: CustomResourceDefinition").count(), kinds.len());
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(code(&run(&["crds", "--out", text(directory.path())]).await), 0);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), kinds.len());
}

/// `policy check` and `policy list`: what a component is, and whether it would serve.
#[tokio::test]
async fn policy_check_says_what_a_component_is_and_whether_it_would_serve() {
    let output = run(&["policy", "list"]).await;
    assert_eq!(
        out(&output).lines().collect::<Vec<_>>(),
        ["gpu-load-aware", "least-in-flight", "load-aware", "prefix-hash", "round-robin", "session-affinity"]
    );
    let file = |name: &str| root().join(format!("target/policies/{name}.wasm"));
    for component in [text(&file("prefix-hash")), "prefix-hash"] {
        let output = run(&["policy", "check", component]).await;
        assert_eq!(code(&output), 0, "{}", err(&output));
        for expected in
            ["prefix-hash 0.1.0", "cached-tokens", "evictionThreshold", "pure", "verdict      would serve"]
        {
            assert!(out(&output).contains(expected), "{expected}: {}", out(&output));
        }
    }
    let config = r#"{"balance": "much"}"#;
    let output = run(&["policy", "check", "prefix-hash", "--config", config]).await;
    assert_eq!(code(&output), 1);
    assert!(out(&output).contains("ConfigRejected") && out(&output).contains("balance"), "{}", out(&output));
    let refused = [
        ("wrong-world", "WrongWorld"),
        ("future-version", "version 9.0.0"),
        ("ungranted-import", "wasi:clocks"),
        ("unknown-signal", "phase-of-the-moon"),
        ("forbidden-header", "authorization"),
    ];
    for (name, expected) in refused {
        let output = run(&["policy", "check", text(&file(&format!("testing/{name}")))]).await;
        assert_eq!(code(&output), 1, "{name}");
        assert!(
            out(&output).contains(expected) && out(&output).contains("refused"),
            "{name}: {}",
            out(&output)
        );
    }
    let output = run(&["policy", "check", "no-such-policy"]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no-such-policy"), "{}", err(&output));
}

/// `policy run`: one decision over a fleet that a file describes.
#[tokio::test]
async fn policy_run_takes_one_decision_and_gives_its_reasons() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("scenario.json");
    let policy = root().join("target/policies/least-in-flight.wasm");
    let fleet = r#"{"pool": {"endpoints": [{"url": "http://a"}, {"url": "http://b"}, {"url": "http://c"}]},
        "columns": {"inflight": [3, 1, 2]}}"#;
    std::fs::write(&scenario, fleet).unwrap();
    let output = run(&["policy", "run", text(&policy), "--scenario", text(&scenario)]).await;
    assert_eq!(code(&output), 0, "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("http://b") && out(&output).contains("fuel"), "{}", out(&output));
    std::fs::write(&scenario, "{").unwrap();
    let output = run(&["policy", "run", text(&policy), "--scenario", text(&scenario)]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("scenario.json"), "{}", err(&output));
}

/// Flags: what cannot be meant is refused before anything starts.
#[tokio::test]
async fn bad_flags_end_with_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let manifests = text(directory.path());
    let cases: [(&[&str], &str); 9] = [
        (&["serve", "--manifests"], "--manifests"),
        (&["serve", "--bogus"], "--bogus"),
        (&["serve", "--session-key", "x"], "`sessionKey: {header, bodyField}`"),
        (&["serve", "--manifests", manifests, "--listen", "nowhere"], "nowhere"),
        (&["serve", "--manifests", manifests, "--workers", "0"], "--workers"),
        (&["serve", "--manifests", manifests, "--drain-delay", "5"], "not a duration"),
        (&["serve", "--manifests", manifests, "--listen-tls", "127.0.0.1:0"], "--tls-cert"),
        (&["serve", "--manifests", manifests, "--tls-cert", "c.pem"], "--tls-key"),
        (&["serve", "--manifests", manifests, "--tls-key", "k.pem"], "--tls-cert"),
    ];
    for (args, expected) in cases {
        let output = run(args).await;
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(expected), "{args:?}: {}", err(&output));
    }
    assert!(out(&run(&["--version"]).await).starts_with("wicketgate "));
}

/// B9: no arguments, no service: help, and the exit code of a usage error, whatever the environment says.
#[tokio::test]
async fn without_arguments_help_is_printed_and_nothing_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.env("METRICS_ADDR", "127.0.0.1:0").env("HEALTH_PROBE_ADDR", "127.0.0.1:0");
    command.env("KUBECONFIG", directory.path().join("none"));
    let output = soon("help", command.kill_on_drop(true).output()).await.unwrap();
    assert_eq!(code(&output), 2, "{}", err(&output));
    let help = err(&output);
    for expected in
        ["Usage: wicketgate", "serve --manifests manifests/", "check", "explain", "policy", "--help"]
    {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    assert!(!help.contains("--prefix-index-bytes"), "the flags of `serve` are in its own help: {help}");
    let bare = run(&["--manifests", text(&directory.path().join("nowhere"))]).await;
    assert_eq!(code(&bare), 1, "bare flags still serve");
    assert!(err(&bare).contains("nowhere"), "{}", err(&bare));
}

/// N13: completions for each shell, and a manual page for each command.
#[tokio::test]
async fn shells_get_completions_and_every_command_has_a_manual_page() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]).await;
        assert_eq!(code(&output), 0, "{shell}: {}", err(&output));
        for word in ["wicketgate", "explain", "manifests"] {
            assert!(out(&output).contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(code(&run(&["completions", "tcsh"]).await), 2);
    let page = out(&run(&["man", "serve"]).await);
    assert!(
        page.contains(".TH") && page.contains("wicketgate\\-serve") && page.contains("request\\-log"),
        "{page}"
    );
    assert!(out(&run(&["man", "policy", "run"]).await).contains("scenario"));
    let output = run(&["man", "nothing"]).await;
    assert!(code(&output) == 1 && err(&output).contains("there is no command"), "{}", err(&output));
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(code(&run(&["man", "--out", text(directory.path())]).await), 0);
    for file in ["wicketgate.1", "wicketgate-serve.1", "wicketgate-policy.1", "wicketgate-policy-check.1"] {
        assert!(directory.path().join(file).is_file(), "{file}");
    }
}

/// N13: the systemd unit and the README's `docker run` start what the binary understands.
#[tokio::test]
async fn the_units_and_the_readmes_command_lines_are_understood() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect(file);
    let unit = read("deploy/systemd/wicketgate.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/wicketgate "))
        .expect("a start");
    let readme = read("README.md").replace("\\\n", " ");
    let docker = readme.lines().find(|line| line.contains("docker run")).expect("a line for docker");
    let docker = &docker[docker.find(" serve ").expect("its command")..];
    for line in [start, docker] {
        let mut args: Vec<&str> = line.split_whitespace().filter(|arg| !arg.starts_with('$')).collect();
        args.push("--help");
        let output = run(&args).await;
        assert_eq!(code(&output), 0, "{line}: {}", err(&output));
    }
    let seconds = |text: &str, name: &str| -> u32 {
        let rest = &text[text.find(name).expect("there") + name.len()..];
        rest.split('s').next().unwrap().parse().unwrap()
    };
    assert!(
        seconds(&unit, "TimeoutStopSec=") > seconds(&unit, "--drain-timeout="),
        "a drain is not cut short"
    );
}
