//! Swaps under load: how soon every worker decides with an edit, and whether anybody notices.
//!
//! Generations take turns. Where an edit changes the engines too, A is one policy over one half of them, B another over the other
//! half. While B's policy is being prepared, A's may decide over B's engines: the last good chain serves, whole, so that a new
//! endpoint waits for no compiler. Never may B's policy choose an engine of A, or A's policy decide on a connection that B's has
//! decided on: such an answer is *mixed*. Where the file of a component is replaced, one component always decides, the other
//! abstains and leaves it to the next of the chain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::beside_nginx::load::{Closed, Connection, Pace};
use crate::beside_nginx::peers::{self, GatewayOptions, Peer};
use crate::beside_nginx::prompts::{Prompts, Shape};
use crate::beside_nginx::spread::{self, Bar, Spread, quantile, say};
use crate::beside_nginx::{ENGINES, mock, wire};

/// Clients. With so many, each of two workers has some.
const CONNECTIONS: usize = 32;
/// Share of what the gateway could answer that the load asks for.
const LOAD: f64 = 0.6;
/// Parts of a round, taken in turns with those of the other round of its pair. The median of their differences is the pair's: a
/// neighbour of this virtual machine who takes a core for a moment spoils one part, not the round.
const TURNS: usize = 5;
/// An edit that is not in force by then never will be.
const PATIENCE: Duration = Duration::from_secs(5);

/// `bench swap`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SwapArgs {
    /// The gateway's binary; docs/benchmarks.md has figures of target/dist/wicketgate
    #[arg(long, value_name = "FILE", default_value = "target/release/wicketgate")]
    gateway: PathBuf,
    /// Where the policy components are
    #[arg(long, value_name = "DIR", default_value = "target/policies")]
    components: PathBuf,
    /// Pairs of rounds, one with and one without swaps
    #[arg(long, value_name = "N", default_value_t = 5)]
    pairs: usize,
    /// Swaps per round, rounded up to a multiple of ten
    #[arg(long, value_name = "N", default_value_t = 100)]
    swaps: usize,
    /// Time from one edit to the next, milliseconds; longer if the edit is not in force by then
    #[arg(long, value_name = "MS", default_value_t = 40)]
    every_ms: u64,
}

/// Runs it. Returns whether every bar was reached.
pub(crate) fn run(args: &SwapArgs) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &SwapArgs) -> anyhow::Result<bool> {
    let engines = mock::start(ENGINES).await?;
    let mut bars = Vec::new();
    let edits = [Edit::chain(&engines, args), Edit::policy(&engines, args)?, Edit::engines(&engines, args)];
    for edit in edits {
        let gateway = edit.start(args).await?;
        say(format_args!("{}:", edit.name));
        let quiet = Open::start(&gateway, &edit, CONNECTIONS as f64 * 100.0);
        let idle = sorted(edit.swap(&gateway, &quiet, 50).await?);
        quiet.finish().await;
        let mut sum = Sum::default();
        for pair in 0..args.pairs {
            edit.pair(args, &gateway, pair, &mut sum).await?;
        }
        sum.loaded = sorted(sum.loaded);
        sum.report(edit.name, &idle);
        bars.extend(sum.bars(edit.name, &idle));
        if edit.replaces_engines() {
            // What connecting to so many engines anew costs on two cores is told above; the bar is about policies.
            bars.pop();
        }
    }
    Ok(spread::print_bars(&bars))
}

/// All pairs of one kind of edit.
#[derive(Debug, Default)]
struct Sum {
    /// Time until each edit was in force everywhere, ms.
    loaded: Vec<f64>,
    answered: usize,
    failed: u64,
    mixed: u64,
    undecided: u64,
    between: u64,
    /// p99 with swaps less p99 without, ms: of each pair the median of its turns.
    added: Spread,
}

impl Sum {
    /// Counts what both parts of a turn saw. Returns their 99th percentiles, ms.
    fn count(&mut self, swapped: &Seen, still: &Seen) -> [f64; 2] {
        for seen in [swapped, still] {
            self.answered += seen.micros.len();
            self.failed += seen.failed;
            self.mixed += seen.mixed;
            self.undecided += seen.undecided;
            self.between += seen.between;
        }
        [swapped, still].map(|seen| quantile(&seen.micros, 0.99) / 1e3)
    }

    fn add(&mut self, pair: usize, rate: f64, turns: &[[f64; 2]]) {
        let median = |of: &dyn Fn(&[f64; 2]) -> f64| quantile(&sorted(turns.iter().map(of).collect()), 0.5);
        let (with, without) = (median(&|turn| turn[0]), median(&|turn| turn[1]));
        let added = median(&|turn| turn[0] - turn[1]);
        say(format_args!(
            "  pair {pair}, {rate:.0}/s: p99 {with:.2} ms with swaps, {without:.2} without: {added:+.2}"
        ));
        self.added.push(added);
    }

    fn report(&self, name: &str, idle: &[f64]) {
        let Self { loaded, answered, failed, mixed, undecided, between, added } = self;
        say(format_args!(
            "{name}: {} swaps, {answered} answers: {failed} failed, {mixed} mixed, {undecided} by the last resort, {between} by the last good chain over new endpoints; p99 of \
             requests +{added} ms",
            loaded.len()
        ));
        for (when, taken) in [("hardly loaded", idle), ("under load", loaded)] {
            let at = |share| quantile(taken, share);
            say(format_args!(
                "  in force everywhere, {when}: median {:.1} ms, p99 {:.1} ms, most {:.1} ms",
                at(0.5),
                at(0.99),
                at(1.0)
            ));
        }
    }

    fn bars(&self, name: &str, idle: &[f64]) -> [Bar; 5] {
        let bar = |what: &str, most, got, unit| Bar { what: format!("{name}: {what}"), most, got, unit };
        [
            bar("in force everywhere, median", 100.0, quantile(idle, 0.5), " ms"),
            bar("in force everywhere, p99", 100.0, quantile(idle, 0.99), " ms"),
            bar("failed", 0.0, self.failed as f64, ""),
            bar("mixed, or by the last resort", 0.0, (self.mixed + self.undecided) as f64, ""),
            bar("p99 added by swaps, median of pairs", 1.0, self.added.median(), " ms"),
        ]
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Something that is edited to and fro.
#[derive(Debug)]
struct Edit {
    name: &'static str,
    every: Duration,
    /// The file, below the gateway's directory.
    file: &'static str,
    generations: [Generation; 2],
    manifest: String,
}

/// One of the two.
#[derive(Debug)]
struct Generation {
    content: Vec<u8>,
    /// What `x-wicketgate-policy` says then.
    policy: &'static str,
    /// Endpoints it may choose.
    engines: Vec<SocketAddr>,
}

impl Edit {
    /// Another policy over the same engines.
    fn chain(engines: &[SocketAddr], args: &SwapArgs) -> Self {
        Self::manifest("policy named in the manifest", [engines, engines], args)
    }

    /// Another policy over other engines.
    fn engines(engines: &[SocketAddr], args: &SwapArgs) -> Self {
        let (a, b) = engines.split_at(engines.len() / 2);
        Self::manifest("policy and all engines in the manifest", [a, b], args)
    }

    fn manifest(name: &'static str, [a, b]: [&[SocketAddr]; 2], args: &SwapArgs) -> Self {
        let generation = |engines: &[SocketAddr], policy: &'static str| Generation {
            content: peers::manifest(engines, &format!("policies: [{{name: {policy}}}]")).into_bytes(),
            policy,
            engines: engines.to_vec(),
        };
        Self {
            name,
            every: Duration::from_millis(args.every_ms),
            file: "manifests/manifests.yaml",
            generations: [generation(a, "round-robin"), generation(b, "least-in-flight")],
            manifest: peers::manifest(a, "policies: [{name: round-robin}]"),
        }
    }

    fn policy(engines: &[SocketAddr], args: &SwapArgs) -> anyhow::Result<Self> {
        let component = |name: &str| {
            let path = args.components.join(format!("{name}.wasm"));
            std::fs::read(&path).with_context(|| format!("{}: `make policies` builds it", path.display()))
        };
        let chain = "policies: [{policyRef: {name: swapped}}, {name: least-in-flight}]";
        let object = "---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {name: swapped}\n\
                      spec:\n  source: {file: swapped.wasm}\n";
        let generation = |name: &str, policy| {
            Ok::<_, anyhow::Error>(Generation {
                content: component(name)?,
                policy,
                engines: engines.to_vec(),
            })
        };
        Ok(Self {
            name: "policy file",
            every: Duration::from_millis(args.every_ms),
            file: "policies/swapped.wasm",
            // Without a session there is nothing that session affinity could do.
            generations: [
                generation("round-robin", "swapped")?,
                generation("session-affinity", "least-in-flight")?,
            ],
            manifest: peers::manifest(engines, chain) + object,
        })
    }

    fn replaces_engines(&self) -> bool {
        self.generations[0].engines != self.generations[1].engines
    }

    async fn start(&self, args: &SwapArgs) -> anyhow::Result<Peer> {
        let policies = match self.file.strip_prefix("policies/") {
            Some(file) => vec![(file.to_owned(), self.generations[0].content.clone())],
            None => Vec::new(),
        };
        let options = GatewayOptions {
            binary: args.gateway.clone(),
            manifest: self.manifest.clone(),
            policies,
            workers: 2,
            core: None,
            flags: vec!["--answer-headers".into()],
        };
        let gateway = peers::gateway(&options).await?;
        // Both components are known afterwards.
        let load = Open::start(&gateway, self, CONNECTIONS as f64 * 100.0);
        self.swap(&gateway, &load, 4).await?;
        load.finish().await;
        Ok(gateway)
    }

    /// Two rounds at the same rate, one with swaps and one without.
    async fn pair(&self, args: &SwapArgs, gateway: &Peer, pair: usize, sum: &mut Sum) -> anyhow::Result<()> {
        let rate = capacity(gateway).await? * LOAD;
        let mut turns = Vec::with_capacity(TURNS);
        // An even number each, so that a part ends where it began.
        let swaps = args.swaps.div_ceil(2 * TURNS) * 2;
        for _ in 0..TURNS {
            let load = Open::start(gateway, self, rate);
            let start = Instant::now();
            sum.loaded.extend(self.swap(gateway, &load, swaps).await?);
            let took = start.elapsed();
            let swapped = load.finish().await;
            let load = Open::start(gateway, self, rate);
            tokio::time::sleep(took).await;
            turns.push(sum.count(&swapped, &load.finish().await));
        }
        sum.add(pair, rate, &turns);
        Ok(())
    }

    /// Edits `count` times (an even number ends where it began), each when the last is in force everywhere. Returns how long that
    /// took, ms: from the rename to the first moment when every connection's latest answer was decided by the new generation.
    async fn swap(&self, gateway: &Peer, load: &Open, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut taken = Vec::with_capacity(count);
        for turn in 1..=count {
            let wanted = turn % 2;
            let scratch = gateway.directory.path().join("scratch");
            std::fs::write(&scratch, &self.generations[wanted].content)?;
            let start = Instant::now();
            load.shared.wanted.store(wanted as u8, Relaxed);
            std::fs::rename(&scratch, gateway.directory.path().join(self.file))?;
            while !load.shared.seen.iter().all(|seen| usize::from(seen.load(Relaxed)) == wanted) {
                anyhow::ensure!(start.elapsed() < PATIENCE, "{}: swap {turn} is not in force", self.name);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            taken.push(start.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(self.every.saturating_sub(start.elapsed())).await;
        }
        Ok(taken)
    }
}

/// Answers per second of a closed loop.
async fn capacity(gateway: &Peer) -> anyhow::Result<f64> {
    let prompts = Arc::new(Prompts::render(shape()));
    let load = Closed::start(gateway.address, &prompts, CONNECTIONS);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (start, before) = (Instant::now(), load.tally.answered.load(Relaxed));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let answered = load.tally.answered.load(Relaxed) - before;
    let rate = answered as f64 / start.elapsed().as_secs_f64();
    anyhow::ensure!(load.tally.failed.load(Relaxed) == 0, "requests fail before any swap");
    load.finish().await;
    Ok(rate)
}

const fn shape() -> Shape {
    Shape { named: false, ..Shape::conversation(1 << 10, 1_024) }
}

/// Clients that send at a rate, whatever the answers take.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    clients: JoinSet<Vec<f64>>,
}

#[derive(Debug)]
struct Shared {
    /// Generation of each connection's latest answer.
    seen: Vec<AtomicU8>,
    failed: AtomicU64,
    mixed: AtomicU64,
    /// Generation that the latest edit asks for.
    wanted: AtomicU8,
    /// Answers of the last good chain over the new endpoints.
    between: AtomicU64,
    /// Answers that name no policy: the last resort decided.
    undecided: AtomicU64,
    stop: AtomicBool,
    /// Policy and engines of each generation.
    known: [(&'static str, Vec<String>); 2],
}

/// What a load saw.
#[derive(Debug)]
struct Seen {
    /// Time to the whole answer, sorted, µs.
    micros: Vec<f64>,
    failed: u64,
    mixed: u64,
    undecided: u64,
    between: u64,
}

impl Open {
    fn start(gateway: &Peer, edit: &Edit, rate: f64) -> Self {
        let known = |generation: &Generation| {
            let engines = generation.engines.iter().map(|address| format!("http://{address}"));
            (generation.policy, engines.collect())
        };
        let shared = Arc::new(Shared {
            seen: (0..CONNECTIONS).map(|_| AtomicU8::new(u8::MAX)).collect(),
            failed: AtomicU64::new(0),
            mixed: AtomicU64::new(0),
            undecided: AtomicU64::new(0),
            wanted: AtomicU8::new(0),
            between: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            known: [known(&edit.generations[0]), known(&edit.generations[1])],
        });
        let prompts = Arc::new(Prompts::render(shape()));
        let mut clients = JoinSet::new();
        for (index, pace) in Pace::spread(rate, CONNECTIONS).into_iter().enumerate() {
            let (shared, prompts) = (Arc::clone(&shared), Arc::clone(&prompts));
            clients.spawn(client(index, gateway.address, pace, prompts, shared));
        }
        Self { shared, clients }
    }

    async fn finish(self) -> Seen {
        self.shared.stop.store(true, Relaxed);
        let micros = sorted(self.clients.join_all().await.concat());
        let load = |count: &AtomicU64| count.load(Relaxed);
        let Shared { failed, mixed, undecided, between, .. } = &*self.shared;
        Seen {
            micros,
            failed: load(failed),
            mixed: load(mixed),
            undecided: load(undecided),
            between: load(between),
        }
    }
}

async fn client(
    index: usize,
    target: SocketAddr,
    mut pace: Pace,
    prompts: Arc<Prompts>,
    shared: Arc<Shared>,
) -> Vec<f64> {
    let mut micros = Vec::new();
    let mut connection = None;
    while !shared.stop.load(Relaxed) {
        let due = pace.turn().await;
        let Some(prompt) = prompts.take() else { break };
        if connection.is_none() {
            connection = Connection::open(target).await.ok();
        }
        let answer = match &mut connection {
            Some(open) => open.exchange(prompt.bytes()).await,
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        match answer {
            Ok(answer) if answer.is_ok() => {
                micros.push(due.elapsed().as_secs_f64() * 1e6);
                shared.judge(index, answer.head);
            }
            _ => {
                shared.failed.fetch_add(1, Relaxed);
                connection = None;
            }
        }
        prompts.put_back(prompt);
    }
    micros
}

impl Shared {
    /// Which generation decided, from what the answer says of itself.
    fn judge(&self, index: usize, head: &[u8]) {
        let policy = wire::header(head, "x-wicketgate-policy").unwrap_or_default();
        let engine = wire::header(head, "x-wicketgate-endpoint").unwrap_or_default();
        let engine = engine.trim_end_matches('/');
        if policy.is_empty() {
            self.undecided.fetch_add(1, Relaxed);
            return;
        }
        let wanted = usize::from(self.wanted.load(Relaxed));
        let Some(of) = self.known.iter().position(|(name, _)| *name == policy) else {
            self.mixed.fetch_add(1, Relaxed);
            return;
        };
        let is_own = self.known[of].1.iter().any(|known| known == engine);
        let is_new_here = usize::from(self.seen[index].load(Relaxed)) == wanted;
        match (of == wanted, is_own) {
            (true, true) => self.seen[index].store(of as u8, Relaxed),
            (false, _) if is_new_here => {
                self.mixed.fetch_add(1, Relaxed);
            }
            (false, true) => {}
            // The last good chain over the new endpoints.
            (false, false) => {
                self.between.fetch_add(1, Relaxed);
            }
            (true, false) => {
                self.mixed.fetch_add(1, Relaxed);
            }
        }
    }
}
