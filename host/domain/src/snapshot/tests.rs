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

/// C4: neither age nor a list of hosts takes a gateway's own names from it, and its longest name is its alone.
#[test]
fn own_names_come_before_hostnames_and_long_forms_before_short_ones() {
    let named = |namespace: &str, name: &str, hostnames: &[&str]| {
        let mut draft = gateway(name, vec![route("m", &[URL], &[])]);
        draft.name = ObjectName::new(namespace, name);
        draft.hostnames = hostnames.iter().map(|host| (*host).into()).collect();
        draft
    };
    let taken = ["llm.prod.svc", "llm.prod.svc.cluster.local", "llm.prod", "llm", "free.example"];
    let mut shy = named("evil", "door", &[]);
    shy.has_short_host = false;
    let gateways = vec![
        named("evil", "trap", &taken),
        named("svc", "llm.prod", &[]),
        named("evil", "llm.prod", &[]),
        shy,
        named("prod", "llm", &[]),
        named("later", "llm", &[]),
        named("prod", "7b-v2", &[]),
    ];
    let snapshot = Assembler::default().assemble(&Draft { gateways }, &Preparer::default()).snapshot;
    let found = |host: &str| snapshot.gateway_by_host(host).map(|gateway| gateway.name.to_string());
    for (host, want) in [
        ("llm.prod.svc", Some("prod/llm")),
        ("LLM.prod.svc.:8001", Some("prod/llm")),
        ("llm.prod.svc.example", Some("prod/llm")),
        ("llm.prod", Some("prod/llm")),
        ("llm.prod.svc.svc", Some("svc/llm.prod")),
        ("llm", Some("prod/llm")),
        ("llm.later", Some("later/llm")),
        ("free.example.", Some("evil/trap")),
        ("door", None),
        ("door.evil", Some("evil/door")),
        ("7b-v2", Some("prod/7b-v2")),
        ("10.0.0.1", None),
        (".", None),
        ("", None),
    ] {
        assert_eq!(found(host).as_deref(), want, "{host}");
    }
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
