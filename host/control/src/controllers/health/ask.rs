//! One question, and where to ask it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use domain::endpoint::Target;
use domain::name::ObjectName;
use manifest::bundle::facts::ServiceFacts;
use manifest::parse_engine_url;
use tokio::time::timeout;

use super::Subject;
use crate::causes::with_causes;
use crate::observe::client::{Access, Door, ProbeError, knock};
use crate::publish::Facts;

/// Most bytes of an answer that are read; only its status counts.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The port of the production stack's router, where no port has a telling name.
const ROUTER_PORT: u16 = 8000;

/// What one question brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Well,
    Ill(String),
    Missing(String),
}

/// Asks once, for at most `limit`.
pub(super) async fn ask(subject: &Subject, limit: Duration, facts: &Facts, access: &Access) -> Answer {
    let asked = async {
        match subject {
            Subject::Backend(url) => match parse_engine_url(url) {
                Ok((_, target)) => backend(Door { target, address: None }, access).await,
                Err(why) => Answer::Ill(why.to_owned()),
            },
            Subject::Router(service) => match place(facts, service) {
                Place::At(door) => answer(knock(door, access, "/health", ANSWER_BYTES_MAX).await),
                Place::Nowhere(why) => Answer::Ill(why),
                Place::Missing(what) => Answer::Missing(what),
            },
        }
    };
    timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Answer::Ill(format!("no answer within {} s", limit.as_secs())))
}

async fn backend(door: Door, access: &Access) -> Answer {
    match knock(door.clone(), access, "/health", ANSWER_BYTES_MAX).await {
        // It answers, but knows no such path, or not as we think.
        Err(ProbeError::Status(_)) => answer(knock(door, access, "/v1/models", ANSWER_BYTES_MAX).await),
        asked => answer(asked),
    }
}

fn answer(asked: Result<(), ProbeError>) -> Answer {
    match asked {
        Ok(()) | Err(ProbeError::TooLarge { .. }) => Answer::Well,
        Err(error) => Answer::Ill(with_causes(&error)),
    }
}

/// Where a router is.
enum Place {
    At(Door),
    /// It is known, and has nobody to ask.
    Nowhere(String),
    /// There is no such thing.
    Missing(String),
}

/// A router's pod, if its Service has one that is ready; the Service itself if it does not say who is behind it.
fn place(facts: &Facts, name: &ObjectName) -> Place {
    let Some(service) = facts.bundle.core_services.get(name) else {
        return Place::Missing(format!(
            "spec.routerRef: router service {name} not found; create it, or correct the reference"
        ));
    };
    let service: &ServiceFacts = &service.value;
    let named = |wanted: &str| service.ports.iter().find(|(name, _)| **name == *wanted);
    let by_number = || service.ports.iter().find(|(_, number)| *number == ROUTER_PORT);
    let Some((port_name, port)) = named("http").or_else(|| named("https")).or_else(by_number) else {
        return Place::Missing(format!(
            "spec.routerRef: Service {name} has no port named http or https, and none {ROUTER_PORT}; add one"
        ));
    };
    let tls = **port_name == *"https";
    if let Some(external) = &service.external_name {
        return Place::At(Door { target: target(external, *port, tls), address: None });
    }
    let Some(slices) = facts.bundle.slices.get(name) else {
        let host = service.cluster_ip.as_deref().map_or_else(|| dns_name(name), str::to_owned);
        return Place::At(door(name, &host, *port, tls));
    };
    let ready = slices.values().flat_map(|slice| {
        let port = slice.value.ports.iter().find(|(name, _)| name == port_name).map(|(_, port)| *port);
        let routable = slice.value.endpoints.iter().filter(|endpoint| endpoint.is_routable);
        routable.filter_map(move |endpoint| Some((&endpoint.address, port?)))
    });
    match ready.min() {
        Some((address, port)) => Place::At(door(name, address, port, tls)),
        None => Place::Nowhere(format!("Service {name} has no ready endpoint")),
    }
}

/// The door of a Service at this host. One that speaks TLS is asked by the Service's name, as that is what stands on its
/// certificate.
fn door(service: &ObjectName, host: &str, port: u16, tls: bool) -> Door {
    match host.parse::<IpAddr>() {
        Ok(ip) if tls => {
            let address = Some(SocketAddr::new(ip, port));
            Door { target: target(&dns_name(service), port, tls), address }
        }
        _ => Door { target: target(host, port, tls), address: None },
    }
}

fn dns_name(service: &ObjectName) -> String {
    format!("{}.{}.svc", service.name, service.namespace)
}

fn target(host: &str, port: u16, tls: bool) -> Target {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Target { tls, host: host.into(), port, base_path: "".into(), authority: authority.into() }
}
