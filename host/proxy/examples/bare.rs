//! The data plane alone, for measuring: static endpoints, no policy. Not for use.
//!
//! `bare LISTEN WORKERS ENGINE_URL...`, for example `bare 127.0.0.1:8001 1 http://127.0.0.1:9000`.

use std::collections::HashMap;
use std::sync::Arc;

use domain::assemble::Assembler;
use domain::draft::{Draft, GatewayDraft, RouteDraft};
use domain::endpoint::EndpointSpec;
use domain::name::ObjectName;
use domain::policy::{Call, EntrySpec, Evaluate, Policies, Preparation, Prepare, Verdict};
use domain::pool::Pool;
use domain::prefix::PrefixIndex;
use domain::published::published;
use domain::route::GatewaySettings;
use proxy::respond::Dialect;
use proxy::{ListenerSpec, Parts, Server, ServerOptions};

/// The allocator that the gateway's binary uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("an address to listen on")?.parse()?;
    let workers = args.next().ok_or("a number of workers")?.parse()?;
    let endpoints: Vec<Arc<EndpointSpec>> = args.filter_map(|url| endpoint(&url)).collect();
    let route = RouteDraft {
        model: "m".into(),
        service: ObjectName::new("default", "service"),
        engine_model: None,
        parent: None,
        blocked: None,
        endpoints: endpoints.into(),
        chain: Arc::new([]),
        chain_rejected: false,
    };
    let gateway = GatewayDraft {
        name: ObjectName::new("default", "gateway"),
        hostnames: Vec::new(),
        has_short_host: true,
        settings: GatewaySettings::default(),
        aliases: HashMap::new(),
        routes: vec![route],
    };
    let (publisher, published) = published();
    let snapshot = Assembler::default().assemble(&Draft { gateways: vec![gateway] }, &Nothing).snapshot;
    publisher.publish(snapshot);
    let options = ServerOptions {
        listeners: vec![ListenerSpec { address, dialect: Dialect::Json, tls: None }],
        workers,
        ..ServerOptions::default()
    };
    let parts = Parts {
        published,
        policies: Arc::new(Nothing),
        index: Arc::new(PrefixIndex::new(64 << 20)),
        tell_sleep: None,
    };
    let _handle = Server::start(options, parts)?;
    loop {
        std::thread::park();
    }
}

fn endpoint(url: &str) -> Option<Arc<EndpointSpec>> {
    EndpointSpec::at(url).map(Arc::new)
}

struct Nothing;

impl Prepare for Nothing {
    fn prepare(&self, _: &EntrySpec) -> Preparation {
        Preparation::Pending
    }
    fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}
    fn retain(&self, _: &[Arc<EntrySpec>]) {}
}

impl Policies for Nothing {
    fn evaluator(&self, _: usize) -> Box<dyn Evaluate> {
        Box::new(Nobody)
    }
}

struct Nobody;

impl Evaluate for Nobody {
    fn evaluate(&mut self, _: Call<'_>) -> Verdict {
        Verdict::default()
    }
    fn retain(&mut self, _: &[Arc<Pool>]) {}
    fn instances(&self) -> usize {
        0
    }
}
