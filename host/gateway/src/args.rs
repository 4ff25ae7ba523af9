//! The command line. Precedence: flag, then environment, then default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use control::observe::{EXPORTERS_MAX, Exporter};

mod router;
mod seed;

pub(crate) use router::instead;
pub(crate) use seed::{Inert, go_style};

/// How to begin.
const EXAMPLES: &str = "\
Examples:
  wicketgate check manifests/                                     what is wrong with a directory of manifests
  wicketgate serve --manifests manifests/ --listen 127.0.0.1:8001 serve it on this machine
  wicketgate serve                                                serve the cluster that KUBECONFIG or the pod leads to";

/// What is printed when there are no arguments: the commands and how to begin, not the sixty flags of `serve`.
pub(crate) fn short_help() -> clap::builder::StyledStr {
    let cli = Cli::command().mut_args(|arg| arg.hide(true));
    cli.override_usage("wicketgate COMMAND [FLAGS]; `wicketgate COMMAND --help` lists them").render_help()
}

/// An inference gateway whose routing policies are WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "wicketgate",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
)]
pub(crate) struct Cli {
    /// What to do; `serve` when absent and flags are given. Without any argument, help is printed
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Flags of `serve`.
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve traffic (the default for bare flags)
    Serve(Box<ServeArgs>),
    /// Read manifests and say what is wrong with them; exit 1 on errors
    Check(CheckArgs),
    /// Ask a running gateway why requests went where they went
    Explain(ExplainArgs),
    /// Print the custom resource definitions
    Crds(CrdsArgs),
    /// Inspect and try routing policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Ask URLs until each answers with 2xx; exit 1 if one does not in time
    Probe(ProbeArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
}

/// The gateway's own Service, where none is named.
const GATEWAY_SERVICE: &str = "wicketgate";

/// `wicketgate serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Directory of manifests to serve from, watched: our kinds, Service, EndpointSlice, Pod, ConfigMap, Secret. Without
    /// it, the cluster that KUBECONFIG, or else the pod's service account, leads to
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// The gateway's own namespace, where its Lease is [default: the pod's, or the kubeconfig's]
    #[arg(long, env = "KUBERNETES_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Namespaces to watch, separated by commas; empty: all of them
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACES",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) watch_namespaces: String,
    /// The gateway's own Service in its namespace, to which the Services of gateways lead
    #[arg(long, env = "GATEWAY_SERVICE", value_name = "NAME", default_value = GATEWAY_SERVICE)]
    pub(crate) gateway_service: String,
    /// Elect, among replicas, the one that writes to the cluster; `true` or `1`, `false` or `0`
    #[arg(long, env = "LEADER_ELECTION_ENABLED", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = seed::boolean, action = clap::ArgAction::Set)]
    pub(crate) leader_elect: bool,
    /// Data-plane address with JSON errors (the production stack router's dialect); may be given again
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8001", value_parser = address)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Data-plane port with text errors (the RKLLama router's dialect), in addition to the first --listen and on its host
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Prefix under which every path of the data plane is served as well, such as /llm; empty: none
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = root_path)]
    pub(crate) root_path: String,
    /// Data-plane address served over TLS; needs --tls-cert and --tls-key
    #[arg(long, value_name = "ADDR", value_parser = address, requires = "tls_cert", requires = "tls_key")]
    pub(crate) listen_tls: Vec<SocketAddr>,
    /// Certificate chain, PEM; read again when it changes. Needs --tls-key and --listen-tls
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen_tls")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key, PEM; read again when it changes. Needs --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Worker threads of the data plane [default: as many as the CPU quota allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Metrics and admin pages; `0` disables [default: :9090; with --manifests and only loopback addresses for data,
    /// port 9090 of the first --listen's host]
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDR", value_parser = optional_address)]
    metrics_bind_address: Option<OptionalAddress>,
    /// Probes `/healthz`, `/livez`, `/readyz`; `0` disables [default: :8081, on the same hosts as metrics]
    #[arg(long, env = "HEALTH_PROBE_ADDR", value_name = "ADDR", value_parser = optional_address)]
    health_probe_bind_address: Option<OptionalAddress>,
    /// Directory that `file` sources of policies are relative to, and may not leave
    #[arg(long, value_name = "DIR", default_value = "/policies")]
    pub(crate) policy_dir: PathBuf,
    /// Most policy instances kept, over all workers
    #[arg(long, value_name = "N", default_value_t = 8_192)]
    pub(crate) policy_instances: usize,
    /// Directory that keeps policies from registries over restarts [default: memory only]
    #[arg(long, value_name = "DIR")]
    pub(crate) policy_cache_dir: Option<PathBuf>,
    /// Registries that policies may come from, comma-separated: a host, or the beginning of host/repository [default: any]
    #[arg(long, value_name = "REGISTRY,…", value_delimiter = ',')]
    pub(crate) policy_registry: Vec<Box<str>>,
    /// Registries (host:port) that are asked without TLS, comma-separated; loopback always is
    #[arg(long, value_name = "REGISTRY,…", value_delimiter = ',')]
    pub(crate) policy_insecure_registry: Vec<Box<str>>,
    /// Memory of the prefix index, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) prefix_index_bytes: usize,
    /// Request bodies held in memory at once, bytes, over all workers; above it requests get 503
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub(crate) body_memory_bytes: u64,
    /// How often each engine's metrics page is read
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) engine_scrape_interval: Duration,
    /// How often each engine's model list is read
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) model_refresh_interval: Duration,
    /// DCGM exporter pages or a Prometheus base URL, comma-separated; each address of a name is asked. Empty: none
    #[arg(long, env = "GPU_METRICS_ENDPOINT", value_name = "URL,…", default_value = "", value_parser = exporters)]
    pub(crate) gpu_metrics_endpoint: Exporters,
    /// How often each GPU exporter is read; what is older than three of it is unknown
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) gpu_metrics_interval: Duration,
    /// Bearer token to show to GPU exporters; read again each time
    #[arg(long, value_name = "FILE")]
    pub(crate) gpu_metrics_token_file: Option<PathBuf>,
    /// PEM bundle to trust where a GPU exporter speaks TLS [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) gpu_metrics_ca_file: Option<PathBuf>,
    /// Name server to ask for the names of engines, with or without a port [default: those of /etc/resolv.conf, with its
    /// search domains]
    #[arg(long, value_name = "ADDR", value_parser = name_server)]
    pub(crate) resolver: Option<SocketAddr>,
    /// Let clients put engines to sleep and wake them (`/sleep`, `/wake_up`, `/is_sleeping`)
    #[arg(long)]
    pub(crate) engine_control: bool,
    /// Say on answers which endpoint and policy were chosen (`x-wicketgate-endpoint`, `x-wicketgate-policy`)
    #[arg(long)]
    pub(crate) answer_headers: bool,
    /// One structured log line per request, whatever --log-level says
    #[arg(long)]
    pub(crate) request_log: bool,
    /// After SIGTERM, keep accepting for this long while readiness already fails; not after Ctrl-C [default: 5s, or 0s
    /// with --manifests]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain_delay: Option<Duration>,
    /// After that, let requests and streams finish for this long; a second signal ends at once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,
    /// Log verbosity: off, error, warn, info, debug or trace, and PART=LEVEL after commas, such as `info,policy=debug`.
    /// Parts are cluster, config, engine, gateway, policy and server; libraries (`hyper=debug`) log warnings unless named
    #[arg(long, env = "WICKETGATE_LOG", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// Log format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    /// Flags of the production stack's controller.
    #[command(flatten)]
    pub(crate) inert: Inert,
}

/// Port of metrics and admin pages, where none is given.
const METRICS_PORT: u16 = 9090;
/// Port of probes, where none is given.
const PROBES_PORT: u16 = 8081;
/// How long load balancers of a cluster may take to notice that a pod leaves.
const CLUSTER_DRAIN_DELAY: Duration = Duration::from_secs(5);

impl ServeArgs {
    /// Where metrics and admin pages are. `None`: nowhere.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_bind_address.map_or_else(|| Some(self.beside_data(METRICS_PORT)), |given| given.0)
    }

    /// Where probes are. `None`: nowhere.
    pub(crate) fn probes_address(&self) -> Option<SocketAddr> {
        self.health_probe_bind_address.map_or_else(|| Some(self.beside_data(PROBES_PORT)), |given| given.0)
    }

    /// `port` on all interfaces; or, without a cluster and with loopback addresses only for data, on the first of those:
    /// on a laptop nothing is opened to the network that was not asked for.
    fn beside_data(&self, port: u16) -> SocketAddr {
        let mut data = self.listen.iter().chain(&self.listen_tls);
        let is_local =
            self.manifests.is_some() && data.all(|address| address.ip().to_canonical().is_loopback());
        let host = self.listen.first().map(SocketAddr::ip).filter(|_| is_local);
        SocketAddr::new(host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
    }

    /// How long requests are still accepted after SIGTERM. Without a cluster there are no endpoints to be taken out.
    pub(crate) fn drain_delay(&self) -> Duration {
        let unasked = if self.manifests.is_some() { Duration::ZERO } else { CLUSTER_DRAIN_DELAY };
        self.drain_delay.unwrap_or(unasked)
    }

    /// The Service of this gateway: an empty name is none, and means the default.
    pub(crate) fn gateway_service(&self) -> &str {
        if self.gateway_service.is_empty() { GATEWAY_SERVICE } else { &self.gateway_service }
    }
}

/// Format of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: JSON, one object a line or an answer.
    Json,
}

/// `wicketgate check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Files and directories of manifests; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// As `serve --policy-dir`
    #[arg(long, value_name = "DIR", default_value = "/policies")]
    pub(crate) policy_dir: PathBuf,
    /// How to print findings
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Exit 1 on warnings, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// Colours: on a terminal, unless NO_COLOR is set; always; or never
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// When to print colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `wicketgate explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A request id (`X-Request-Id`); without one, the latest decisions
    pub(crate) request_id: Option<String>,
    /// Admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090", value_parser = address)]
    pub(crate) admin: SocketAddr,
    /// How to print decisions
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// `wicketgate crds`.
#[derive(Debug, Args)]
pub(crate) struct CrdsArgs {
    /// Write one file per definition into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `wicketgate probe`.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// What to ask, `http://…`
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// How long to try, over all URLs
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// `wicketgate completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell, such as bash: `wicketgate completions bash > /etc/bash_completion.d/wicketgate`
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `wicketgate man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command, such as `serve` or `policy run`; without one, `wicketgate` itself
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this directory instead of printing one
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) out: Option<PathBuf>,
}

/// `wicketgate policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what a component is and whether the gateway would load it
    Check {
        /// The component (`*.wasm`), or the name of a built-in
        file: PathBuf,
        /// Configuration to try it with, JSON
        #[arg(long, value_name = "JSON", default_value = "{}")]
        config: String,
    },
    /// Take one decision and say why
    Run {
        /// The component (`*.wasm`), or the name of a built-in
        file: PathBuf,
        /// What to decide, see docs/policy-guide.md
        #[arg(long, value_name = "FILE")]
        scenario: PathBuf,
    },
    /// List the built-in policies
    List,
}

/// GPU exporters, any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exporters(pub Vec<Exporter>);

/// Accepts URLs with commas between them; nothing is none.
fn exporters(text: &str) -> Result<Exporters, String> {
    let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
    let read = |url: &str| url.parse().map_err(|why| format!("{url:?}: {why}"));
    let all: Vec<Exporter> = urls.map(read).collect::<Result<_, _>>()?;
    if all.len() > EXPORTERS_MAX {
        return Err(format!("{} exporters; at most {EXPORTERS_MAX} are asked", all.len()));
    }
    Ok(Exporters(all))
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionalAddress(pub Option<SocketAddr>);

/// Accepts a path; the slash at its end does not count.
fn root_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    if path.is_empty() || (path.starts_with('/') && !path.contains(['?', '#', ' '])) {
        return Ok(path.to_owned());
    }
    Err(format!("{text:?} is not a path such as /llm"))
}

/// Accepts `HOST:PORT`, `:PORT` (all interfaces) and `localhost:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.replace("localhost:", "127.0.0.1:"),
    };
    full.parse().map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:8001 or :8001"))
}

/// Accepts an address with a port, or one without: then it is 53.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = |ip: IpAddr| SocketAddr::new(ip, 53);
    text.parse().or_else(|_| text.parse().map(with_port)).map_err(|_| {
        format!("{text:?} is not the address of a name server such as 10.96.0.10 or 127.0.0.1:5353")
    })
}

fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    if text == "0" {
        return Ok(OptionalAddress(None));
    }
    address(text).map(|address| OptionalAddress(Some(address)))
}

/// Accepts Go-style durations: `500ms`, `30s`, `1m30s`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 500ms, 30s or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?);
        rest = &rest[letters..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_manifests_the_cluster_is_the_source_and_switches_take_every_spelling() {
        let cases = [
            ("", false),
            ("--leader-elect", true),
            ("--leader-elect=1", true),
            ("-leader-elect=false", false),
        ];
        for (flag, wanted) in cases {
            let given = ["wicketgate", flag].into_iter().filter(|arg| !arg.is_empty()).map(Into::into);
            let cli = Cli::parse_from(go_style(given));
            assert_eq!((cli.serve.manifests, cli.serve.leader_elect), (None, wanted), "{flag}");
        }
        assert!(Cli::try_parse_from(["wicketgate", "--leader-elect=perhaps"]).is_err());
    }

    fn serve_args(args: &[&str]) -> ServeArgs {
        Cli::parse_from(["wicketgate"].into_iter().chain(args.iter().copied())).serve
    }

    /// D4: on a laptop, probes and metrics are where the data plane is.
    #[test]
    fn probes_and_metrics_follow_a_loopback_data_plane_without_a_cluster() {
        let [here, here6] = ["--listen=127.0.0.1:8001", "--listen=[::1]:8001"];
        let cases: [(&[&str], &str, &str); 9] = [
            (&["--manifests=m", here], "127.0.0.1:9090", "127.0.0.1:8081"),
            (&["--manifests=m", "--listen=localhost:1"], "127.0.0.1:9090", "127.0.0.1:8081"),
            (&["--manifests=m", here6, here], "[::1]:9090", "[::1]:8081"),
            (
                &["--manifests=m", "--listen=[::ffff:127.0.0.1]:1"],
                "[::ffff:127.0.0.1]:9090",
                "[::ffff:127.0.0.1]:8081",
            ),
            (&["--manifests=m"], "0.0.0.0:9090", "0.0.0.0:8081"),
            (&["--manifests=m", here, "--listen=10.0.0.1:1"], "0.0.0.0:9090", "0.0.0.0:8081"),
            (
                &["--manifests=m", here, "--listen-tls=:1", "--tls-cert=c", "--tls-key=k"],
                "0.0.0.0:9090",
                "0.0.0.0:8081",
            ),
            (&[here], "0.0.0.0:9090", "0.0.0.0:8081"),
            (&["--manifests=m", here, "--metrics-bind-address=:1"], "0.0.0.0:1", "127.0.0.1:8081"),
        ];
        for (args, metrics, probes) in cases {
            let args = (args, serve_args(args));
            let found = [args.1.metrics_address(), args.1.probes_address()]
                .map(|address| address.unwrap().to_string());
            assert_eq!(found, [metrics, probes], "{:?}", args.0);
        }
        assert_eq!(
            serve_args(&["--manifests=m", here, "--health-probe-bind-address=0"]).probes_address(),
            None
        );
    }

    /// N9: the delay is for the load balancers of a cluster.
    #[test]
    fn the_drain_delay_is_nothing_without_a_cluster_unless_it_is_asked_for() {
        let delay = |args: &[&str]| serve_args(args).drain_delay();
        assert_eq!(delay(&["--workers=1"]), CLUSTER_DRAIN_DELAY);
        assert_eq!(delay(&["--manifests=m"]), Duration::ZERO);
        assert_eq!(delay(&["--manifests=m", "--drain-delay=7s"]), Duration::from_secs(7));
    }

    #[test]
    fn an_empty_name_of_the_gateways_service_is_the_default_one() {
        for (given, wanted) in [(None, "wicketgate"), (Some(""), "wicketgate"), (Some("door"), "door")] {
            let flag = given.map(|name| format!("--gateway-service={name}"));
            let cli = Cli::parse_from(["wicketgate".to_owned()].into_iter().chain(flag));
            assert_eq!(cli.serve.gateway_service(), wanted, "{given:?}");
        }
    }

    #[test]
    fn bare_flags_mean_serve() {
        let cli = Cli::parse_from(["wicketgate", "--manifests", "m", "--listen", ":8001", "--workers", "2"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.listen, ["0.0.0.0:8001".parse::<SocketAddr>().unwrap()]);
        assert_eq!(cli.serve.workers, Some(2));
    }

    #[test]
    fn durations_and_addresses_read_as_people_write_them() {
        let cases =
            [("500ms", Some(500)), ("30s", Some(30_000)), ("1m30s", Some(90_000)), ("2h", Some(7_200_000))];
        for (text, want) in cases.into_iter().chain([("", None), ("5", None), ("x", None), ("1d", None)]) {
            assert_eq!(duration(text).ok().map(|d| d.as_millis() as u64), want, "{text}");
        }
        assert_eq!(optional_address("0"), Ok(OptionalAddress(None)));
        assert_eq!(address(":9090").unwrap().port(), 9090);
        assert!(address("nowhere").is_err());
        assert_eq!(name_server("10.96.0.10").unwrap().to_string(), "10.96.0.10:53");
        assert_eq!(name_server("[::1]:5353").unwrap().to_string(), "[::1]:5353");
        assert!(name_server("dns.example").is_err());
        assert_eq!(["", "/", "/llm", "/a/b/"].map(|text| root_path(text).unwrap()), ["", "", "/llm", "/a/b"]);
        assert!(root_path("llm").is_err() && root_path("/a?b").is_err());
        let urls =
            |text| exporters(text).map(|all| all.0.iter().map(|e| e.url().to_owned()).collect::<Vec<_>>());
        assert_eq!(urls("").unwrap(), [""; 0]);
        assert_eq!(
            urls(" http://a:9400/metrics, http://b ,").unwrap(),
            ["http://a:9400/metrics", "http://b"]
        );
        assert!(urls("http://a,b").is_err());
    }
}
