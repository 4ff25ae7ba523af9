//! The composition root: makes the parts, plugs them together, and ends them in order.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use control::observe::{GpuSettings, ObserveSettings};
use control::{
    Clock, Control, ControllerMetrics, Ended, Ends, FaultSource, Index, KubernetesSettings, SLEEPS_MAX,
    Settings, SourceSettings,
};
use domain::admission::BodyBytes;
use domain::prefix::PrefixIndex;
use domain::published::{Published, published};
use domain::sleep::SleepNote;
use manifest::LowerOptions;
use names::Names;
use policy::{FetchOptions, Library, Options};
use prometheus::Registry;
use proxy::local::Health;
use proxy::metrics::{Board, Collector, FaultWatch, MetricsPage};
use proxy::respond::Dialect;
use proxy::{CertificateFiles, ListenerSpec, Parts, Server, ServerHandle, ServerOptions, Status, TellSleep};
use tokio::sync::{mpsc, watch};

use crate::args::ServeArgs;
use crate::notify::Notify;
use crate::pages::{self, Phase};
use crate::shutdown::{self, Ask, Drain, Signals};
use crate::{admin, telemetry};

/// How long the first snapshot waits for its policies: one tenant's slow component must not keep the others' out of force.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(4);
/// How long a fresh replica waits for its engines' first answers before it calls itself ready. Less than a probe of an engine
/// takes to fail for want of an answer.
const FIRST_ANSWERS_MAX: Duration = Duration::from_secs(3);
/// Between two looks at whether the control plane's threads still run.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// An empty index that knows how to lower, with the policies that are built in. A build without any knows their names.
pub(crate) fn index() -> Index {
    let mut options = LowerOptions::default();
    let embedded: BTreeSet<Box<str>> = policy::builtin_names().map(Into::into).collect();
    if !embedded.is_empty() {
        options.builtins = embedded;
    }
    Index::new(options)
}

/// `wicketgate serve`: runs until a signal, then drains.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    telemetry::install(&args.log_level, args.log_format, args.request_log)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
    args.inert.warn();
    let running = Running::start(args)?;
    running.until_told(args)?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that was started, in the order in which it is ended.
struct Running {
    server: ServerHandle,
    control: Control,
    phase: watch::Sender<Phase>,
    published: Published,
    status: Arc<Status>,
    admin: tokio::runtime::Runtime,
    /// Of the probes alone: no page for operators is computed on it.
    probes: tokio::runtime::Runtime,
}

impl Running {
    fn start(args: &ServeArgs) -> anyhow::Result<Self> {
        let source = source(args)?;
        let epoch = Instant::now();
        let workers = args.workers.map_or_else(default_workers, usize::from);
        let (publisher, published) = published();
        let library = Arc::new(Library::new(library_options(args, workers))?);
        let index = Arc::new(PrefixIndex::new(args.prefix_index_bytes));
        let registry = Registry::new();
        let board = Board::new();
        let sources = proxy::metrics::Sources {
            published: published.clone(),
            epoch,
            prefix_index: Some(Arc::clone(&index)),
        };
        registry.register(Box::new(Collector::new(Arc::clone(&board), sources)))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        let metrics = ControllerMetrics::register(&registry)?;
        let metrics_page = MetricsPage::start(registry)?;

        let status = Arc::<Status>::default();
        let (sleeps_in, sleeps) = mpsc::channel(SLEEPS_MAX);
        let tell_sleep = matches!(source, SourceSettings::Kubernetes(_)).then(|| tell_sleep(sleeps_in));
        let names = Names::new(names::Settings { name_server: args.resolver });
        let server = start_server(
            args,
            workers,
            epoch,
            Parts {
                published: published.clone(),
                policies: library.clone(),
                index: Arc::clone(&index),
                tell_sleep,
            },
            metrics_page.clone(),
            (Arc::clone(&board), Arc::clone(&status), names.clone()),
        )?;
        let control = control::start(
            control_settings(args, source, epoch, names),
            Ends {
                publisher,
                published: published.clone(),
                prepare: library,
                forget_slots: Box::new(move |slots| slots.iter().for_each(|slot| index.forget(*slot))),
                metrics,
                faults: fault_source(&board),
                sleeps,
            },
        )?;
        let (phase, phases) = watch::channel(Phase::Starting);
        let (admin, probes) = start_admin(
            args,
            &server,
            phases,
            pages::Sources {
                metrics: metrics_page,
                published: published.clone(),
                reports: control.reports(),
                board,
                epoch,
            },
        )?;
        let (mut cards, shown) = (control.cards(), Arc::clone(&status));
        admin.spawn(async move {
            while cards.changed().await.is_ok() {
                let known = cards.borrow_and_update().clone();
                shown.set_cards((*known).clone());
            }
        });
        Ok(Self { server, control, phase, published, status, admin, probes })
    }

    /// Becomes ready when the first snapshot is in force and its engines were asked what they serve, waits for a signal, and ends everything in order.
    fn until_told(self, args: &ServeArgs) -> anyhow::Result<()> {
        let Self { server, control, phase, published, status, admin, probes } = self;
        let notify = Arc::new(Notify::from_environment());
        notify.say("STATUS=waits for a configuration");
        probes.spawn(shutdown::watchdog(Arc::clone(&notify), server.workers()));
        let (told, signals) = admin.block_on(async {
            let mut signals = Signals::register()?;
            let mut reports = control.reports();
            let ready = async {
                while !published.is_ready() {
                    if reports.changed().await.is_err() {
                        return;
                    }
                }
                phase.send_replace(Phase::Asking);
                let answers = reports.wait_for(|report| report.answered);
                if tokio::time::timeout(FIRST_ANSWERS_MAX, answers).await.is_err() {
                    tracing::info!("some engines have not answered yet, serving without their answers");
                }
                phase.send_replace(Phase::Ready);
                notify.say("READY=1\nSTATUS=serves");
                tracing::info!("ready");
                std::future::pending::<()>().await;
            };
            let told = tokio::select! {
                ask = signals.next() => Some(ask),
                () = ready => None,
                never = watch_health(&control, &status) => match never {},
            };
            anyhow::Ok((told, signals))
        })?;
        phase.send_replace(Phase::Draining);
        let workers = server.workers();
        let in_flight = move || -> u32 { workers.states().iter().map(|worker| worker.in_flight).sum() };
        let drain = Drain::of(args, told, in_flight());
        drain.announce(in_flight(), &notify);
        admin.spawn(shutdown::end_at_once(signals, told.unwrap_or(Ask::Terminate), in_flight));
        std::thread::sleep(drain.delay);
        let cut = server.drain(drain.timeout);
        if cut > 0 {
            tracing::warn!(cut, "requests were cut off: the drain timeout is over");
        }
        control.stop();
        admin.shutdown_background();
        probes.shutdown_background();
        tracing::info!("ended");
        Ok(())
    }
}

/// Shows on `/health` what has ended by itself. The probes do not follow: what was in force last goes on serving, and a restart
/// might find nothing to serve.
async fn watch_health(control: &Control, status: &Status) -> Infallible {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = Health::default();
    loop {
        interval.tick().await;
        let now = health(control.ended());
        if now != before {
            tracing::error!(health = ?now, "a part of the gateway has ended; it serves on as it is and should be restarted");
            status.set_health(now);
            before = now;
        }
    }
}

/// Whoever cannot follow the configuration has the bigger trouble.
fn health(ended: Ended) -> Health {
    match ended {
        Ended { source: true, .. } => Health::DiscoveryDown,
        Ended { observer: true, .. } => Health::ScraperDown,
        Ended { .. } => Health::Healthy,
    }
}

fn library_options(args: &ServeArgs, workers: usize) -> Options {
    Options {
        workers,
        instances: u32::try_from(args.policy_instances).unwrap_or(u32::MAX),
        directory: args.policy_dir.clone(),
        fetch: FetchOptions {
            cache: args.policy_cache_dir.clone(),
            registries: args.policy_registry.clone(),
            insecure: args.policy_insecure_registry.clone(),
            ..FetchOptions::default()
        },
        ..Options::default()
    }
}

/// What the status of policies says of their failed calls.
fn fault_source(board: &Arc<Board>) -> FaultSource {
    let watch = FaultWatch::new(Arc::clone(board));
    Arc::new(move || {
        let told = watch.look().into_iter();
        told.map(|(name, faults)| (name, (faults.count, faults.last.label().to_owned()))).collect()
    })
}

fn control_settings(args: &ServeArgs, source: SourceSettings, epoch: Instant, names: Names) -> Settings {
    Settings {
        source,
        policy_directory: args.policy_dir.clone(),
        index: index(),
        observe: ObserveSettings {
            metrics_interval: args.engine_scrape_interval,
            models_interval: args.model_refresh_interval,
        },
        gpu: GpuSettings {
            exporters: args.gpu_metrics_endpoint.0.clone(),
            interval: args.gpu_metrics_interval,
            token_file: args.gpu_metrics_token_file.clone(),
            ca_file: args.gpu_metrics_ca_file.clone(),
        },
        names,
        clock: Clock::new(epoch),
        first_wait_max: FIRST_WAIT_MAX,
    }
}

/// A directory, if one is named; else the cluster.
fn source(args: &ServeArgs) -> anyhow::Result<SourceSettings> {
    if let Some(manifests) = &args.manifests {
        anyhow::ensure!(manifests.is_dir(), "--manifests: {} is not a directory", manifests.display());
        return Ok(SourceSettings::Directory(manifests.clone()));
    }
    let named = |text: &String| !text.is_empty();
    let namespaces = args.watch_namespaces.split(',').map(|name| name.trim().to_owned());
    Ok(SourceSettings::Kubernetes(KubernetesSettings {
        namespace: args.namespace.clone().filter(named),
        watch_namespaces: namespaces.filter(named).collect(),
        service: args.gateway_service().into(),
        leader_elect: args.leader_elect,
        identity: identity(),
    }))
}

/// What this replica calls itself: its pod's name, if the environment has it as `POD_NAME`, else its host's. A host's name
/// is cut at 63 characters, which two pods of a long name may share. One that restarts in its pod is itself again.
fn identity() -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = std::env::var("POD_NAME").ok().filter(|name| !name.trim().is_empty()).unwrap_or_else(host);
    format!("{}_{}", name.trim(), std::process::id())
}

/// Passes on which engines were put to sleep or woken. Beyond what may wait, the engine's own word has to do.
fn tell_sleep(sleeps: mpsc::Sender<SleepNote>) -> TellSleep {
    Arc::new(move |note| {
        if let Err(error) = sleeps.try_send(note) {
            tracing::warn!(%error, "the pod of an engine will not be labelled");
        }
    })
}

/// As many workers as the CPU quota allows.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(proxy::WORKERS_MAX)
}

fn start_server(
    args: &ServeArgs,
    workers: usize,
    epoch: Instant,
    parts: Parts,
    metrics: MetricsPage,
    (board, status, names): (Arc<Board>, Arc<Status>, Names),
) -> anyhow::Result<ServerHandle> {
    let plain = |address, dialect| ListenerSpec { address, dialect, tls: None };
    let mut listeners: Vec<_> = args.listen.iter().map(|address| plain(*address, Dialect::Json)).collect();
    if let Some(port) = args.port {
        // Where the others listen: pods that have IPv6 addresses only say so once.
        let host = args.listen.first().map_or(Ipv4Addr::UNSPECIFIED.into(), SocketAddr::ip);
        listeners.push(plain(SocketAddr::new(host, port), Dialect::Text));
    }
    for address in &args.listen_tls {
        let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else {
            anyhow::bail!("--listen-tls needs --tls-cert and --tls-key");
        };
        let files = CertificateFiles { certificate: certificate.clone(), key: key.clone() };
        listeners.push(ListenerSpec { address: *address, dialect: Dialect::Json, tls: Some(files) });
    }
    let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let options = ServerOptions {
        listeners,
        workers,
        epoch,
        body_bytes: BodyBytes::new(args.body_memory_bytes),
        engine_control: args.engine_control,
        answer_headers: args.answer_headers,
        root_path: args.root_path.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix,
        metrics: Some(metrics),
        board,
        status,
        names,
    };
    Server::start(options, parts).context("the data plane does not start")
}

/// Admin pages and probes, each on a runtime of its own with one thread: the data path cannot starve them, and no page for
/// operators keeps a probe waiting. The first runtime is that of the admin pages.
fn start_admin(
    args: &ServeArgs,
    server: &ServerHandle,
    phases: watch::Receiver<Phase>,
    sources: pages::Sources,
) -> anyhow::Result<(tokio::runtime::Runtime, tokio::runtime::Runtime)> {
    let runtime = |name: &str| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()
    };
    let runtimes = (runtime("admin")?, runtime("probes")?);
    let serve = |runtime: &tokio::runtime::Runtime, address: Option<SocketAddr>, pages| {
        let listener = address.map(admin::bind).transpose()?;
        let bound = listener.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        if let Some(listener) = listener {
            runtime.spawn(admin::serve(listener, pages));
        }
        anyhow::Ok(bound)
    };
    let admin = serve(&runtimes.0, args.metrics_address(), pages::admin(sources))?;
    let probes = serve(&runtimes.1, args.probes_address(), pages::probes(phases, server.workers()))?;
    let addresses = server.addresses();
    let text = args.port.and_then(|_| addresses.get(args.listen.len()));
    let tls = addresses.get(args.listen.len() + usize::from(args.port.is_some()));
    let show = |address: Option<&SocketAddr>| address.map(ToString::to_string);
    tracing::info!(
        data = show(addresses.first()),
        data_text = show(text),
        data_tls = show(tls),
        admin = show(admin.as_ref()),
        probes = show(probes.as_ref()),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    Ok(runtimes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_names_the_bigger_trouble() {
        let of = |source, observer| health(Ended { source, observer });
        assert_eq!(of(false, false), Health::Healthy);
        assert_eq!(of(false, true), Health::ScraperDown);
        assert_eq!([of(true, false), of(true, true)], [Health::DiscoveryDown; 2]);
    }

    /// N6: a policy that is built in is known wherever names of policies are. One that is added in `policies/` must not be dead.
    #[test]
    fn every_built_in_policy_is_known_in_every_place() {
        let embedded: Vec<&str> = policy::builtin_names().collect();
        assert_eq!(
            embedded,
            manifest::BUILTINS,
            "`make policies` builds those that manifests are checked against"
        );
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
        let members = read("policies/Cargo.toml");
        let members =
            members.split_once("members = [").expect("members").1.split_once(']').expect("their end").0;
        let mut members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
        members.retain(|member| !["sdk", "build"].contains(member) && !member.starts_with("testing/"));
        members.sort_unstable();
        assert_eq!(members, embedded);
        for path in ["policies/README.md", "docs/configuration.md"] {
            let text = read(path);
            for name in &embedded {
                assert!(text.contains(&format!("`{name}`")), "{path} does not name {name}");
            }
        }
    }
}
