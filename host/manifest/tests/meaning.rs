//! Manifests in, drafts and findings out: one binary for all tests of meaning.

use std::sync::Arc;

use domain::draft::{GatewayDraft, RouteDraft};
use domain::finding::{Finding, Severity};
use manifest::{Bundle, Change, Decoded, LowerOptions, Lowered, decode, lower};

#[path = "meaning/bad_input.rs"]
mod bad_input;
#[path = "meaning/chains.rs"]
mod chains;
#[path = "meaning/conflicts.rs"]
mod conflicts;
#[path = "meaning/crds.rs"]
mod crds;
#[path = "meaning/endpoints.rs"]
mod endpoints;
#[path = "meaning/fixtures.rs"]
mod fixtures;
#[path = "meaning/scale.rs"]
mod scale;

/// Reads one file.
fn read(text: &str) -> Decoded {
    decode(&Arc::from("m.yaml"), text.as_bytes())
}

/// A bundle of everything in these files, which must be readable.
fn bundle(texts: &[&str]) -> Bundle {
    let mut bundle = Bundle::default();
    for text in texts {
        let decoded = read(text);
        assert_eq!(shown(&decoded.findings), Vec::<String>::new());
        for object in decoded.objects {
            bundle.apply(Change::Applied(Arc::new(object)));
        }
    }
    bundle
}

fn lowered(texts: &[&str]) -> Lowered {
    lower(&bundle(texts), &LowerOptions::default())
}

/// Findings as `severity object field reason`.
fn shown(findings: &[Finding]) -> Vec<String> {
    let show = |f: &Finding| format!("{} {} {} {}", f.severity.as_str(), f.object, f.field, f.reason);
    findings.iter().map(show).collect()
}

/// Findings above info.
fn serious(lowered: &Lowered) -> Vec<String> {
    let findings: Vec<Finding> =
        lowered.findings.iter().filter(|f| f.severity > Severity::Info).cloned().collect();
    shown(&findings)
}

fn gateway<'a>(lowered: &'a Lowered, name: &str) -> &'a GatewayDraft {
    lowered.draft.gateways.iter().find(|gateway| &*gateway.name.name == name).expect("the gateway is there")
}

fn route<'a>(gateway: &'a GatewayDraft, model: &str) -> &'a RouteDraft {
    gateway.routes.iter().find(|route| route.model.as_str() == model).expect("the route is there")
}

fn urls(route: &RouteDraft) -> Vec<&str> {
    route.endpoints.iter().map(|endpoint| &*endpoint.id.url).collect()
}

/// A chain as `name config`, with what differs from the usual behind it.
fn chain(route: &RouteDraft) -> Vec<String> {
    route.chain.iter().map(|entry| format!("{} {}", entry.name, entry.config)).collect()
}
