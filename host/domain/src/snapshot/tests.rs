use super::*;
use crate::assemble::Assembler;
use crate::draft::Draft;
use crate::fixture::{Preparer, gateway, route};

const URL: &str = "http://10.0.0.1:8000";

fn snapshot() -> Arc<Snapshot> {
    let mut first = gateway("first", vec![route("shared", &[URL], &[]), route("own", &[URL], &[])]);
    first.hostnames = vec!["llm.example".into()];
    first.aliases.insert("nick".into(), ModelName::from("own"));
    let second = gateway("second", vec![route("shared", &[URL], &[])]);
    Assembler::default().assemble(&Draft { gateways: vec![first, second] }, &Preparer::default()).snapshot
}

/// Which gateway and model a request ends at: `name/model`, or why not.
fn ends_at(path: Option<(&str, &str)>, host: Option<&str>, model: &str) -> String {
    match snapshot().resolve(path, host, model) {
        Resolution::Route(gateway, route) => format!("{}/{}", gateway.name.name, route.model),
        Resolution::NotRouted(gateway) => format!("{} does not route it", gateway.name.name),
        Resolution::NoSuchGateway => "no such gateway".into(),
        Resolution::Unknown => "unknown".into(),
    }
}

#[test]
fn path_beats_host_beats_model() {
    let second = Some(("default", "second"));
    for (path, host, model, want) in [
        (None, None, "shared", "first/shared"),
        (None, None, "nick", "first/own"),
        (None, None, "nobody", "unknown"),
        (None, Some("10.1.2.3:8001"), "shared", "first/shared"),
        (None, Some("localhost"), "own", "first/own"),
        (None, Some("LLM.example:443"), "shared", "first/shared"),
        (None, Some("second"), "shared", "second/shared"),
        (None, Some("second.default:80"), "shared", "second/shared"),
        (None, Some("second.default.svc"), "shared", "second/shared"),
        (None, Some("second.default.svc.cluster.local"), "shared", "second/shared"),
        (None, Some("second.other"), "shared", "first/shared"),
        (None, Some("second"), "own", "second does not route it"),
        (second, Some("first"), "shared", "second/shared"),
        (second, None, "own", "second does not route it"),
        (Some(("default", "third")), None, "shared", "no such gateway"),
    ] {
        assert_eq!(ends_at(path, host, model), want, "{path:?} {host:?} {model}");
    }
}
