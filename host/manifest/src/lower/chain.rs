//! The policy chain of a gateway: which policies, in which order, configured how.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use domain::name::PolicyName;
use domain::policy::{CHAIN_MAX, EntrySpec, FailureMode, Mode, PolicySource};
use serde_json::{Map, Value, json};

use super::Lowering;
use super::policy::Resolved;
use super::report::About;
use crate::kind::InferenceGatewaySpec;
use crate::kind::inference_gateway as kind;
use crate::spelling::fold;

/// Other names of built-in policies, spelled without case, hyphens and underscores. Their own names need no line here.
const ALIASES: [(&str, &str); 4] = [
    ("session", "session-affinity"),
    ("prefixaware", "prefix-hash"),
    ("leastloaded", "least-in-flight"),
    ("leastrequest", "least-in-flight"),
];
/// Names of the seeds' routers that this version has no policy for, spelled the same way.
const NOT_YET: [&str; 6] = [
    "kvaware",
    "priority",
    "disaggregatedprefill",
    "disaggregatedprefillorchestrated",
    "prefilldecode",
    "speculativedecoding",
];

/// What a pool's cache asks of its policies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Thresholds {
    pub(super) hit_rate: Option<f64>,
    pub(super) eviction: Option<f64>,
}

/// One link as it is asked for, before the pool's settings are added.
#[derive(Clone, Debug)]
struct Link {
    policy: Resolved,
    config: Map<String, Value>,
    failure_mode: FailureMode,
    mode: Mode,
}

/// The chain of a gateway as it is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct AskedChain {
    /// Some link is missing: the last good chain should stay in force.
    pub(super) rejected: bool,
    links: Vec<Link>,
    /// Tells chains apart.
    number: usize,
    /// Namespace of the object that asks.
    tenant: Arc<str>,
}

/// Number of a chain, and the bits of its thresholds.
type ChainKey = (usize, Option<u64>, Option<u64>);

/// Chains made so far, by chain and thresholds.
#[derive(Debug, Default)]
pub(super) struct Chains {
    made: HashMap<ChainKey, Arc<[Arc<EntrySpec>]>>,
    asked: usize,
}

/// The one of the built-in policies that a name means, in any spelling or by another name; the name itself if it means none.
pub(super) fn canonical<'a>(builtins: &'a BTreeSet<Box<str>>, name: &'a str) -> &'a str {
    let folded = fold(name);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == folded).map(|(_, builtin)| *builtin);
    let own = builtins.iter().find(|builtin| fold(builtin) == folded).map(|builtin| &**builtin);
    own.or(alias).unwrap_or(name)
}

/// The built-in policy of every gateway that a name means, in any spelling; the name itself if it means none.
pub fn policy_name(name: &str) -> &str {
    let folded = fold(name);
    let own = super::BUILTINS.into_iter().find(|builtin| fold(builtin) == folded);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == folded).map(|(_, builtin)| *builtin);
    own.or(alias).unwrap_or(name)
}

/// Every other name of a built-in policy, in its folded form.
pub(super) fn alias_names<'a>() -> impl Iterator<Item = &'a str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

/// Whether a name is known from other routers, and not done here.
pub(super) fn is_not_yet(name: &str) -> bool {
    NOT_YET.contains(&fold(name).as_str())
}

/// In the short form, session affinity before prefix hashing is a preference: pinned sessions would keep what tenants
/// share from being found, and gather load (docs/adr/0001). The general form says itself what it wants.
fn prefer_before_prefix_hash(links: &mut [Link]) {
    let is = |link: &Link, name: &str| link.policy.source == PolicySource::Builtin(name.into());
    if links.iter().any(|link| is(link, "prefix-hash")) {
        for link in links.iter_mut().filter(|link| is(link, "session-affinity")) {
            link.config.entry("mode").or_insert_with(|| json!("prefer"));
        }
    }
}

impl Lowering<'_> {
    /// Reads which chain a gateway asks for.
    pub(super) fn asked_chain(&mut self, about: &About, spec: &InferenceGatewaySpec) -> AskedChain {
        let mut chain = self.new_chain(about);
        let short = spec.session_affinity.is_some()
            || spec.route_strategy.is_some()
            || spec.scheduling_policy.is_some();
        if !spec.policies.is_empty() {
            if short {
                let message = "policies excludes routeStrategy, schedulingPolicy and sessionAffinity, which are ignored";
                let remedy = "keep one of the two ways";
                self.report.reject(
                    self.bundle,
                    about,
                    "spec.policies",
                    "ConflictingPolicies",
                    message,
                    remedy,
                );
            }
            for (index, entry) in spec.policies.iter().enumerate().take(CHAIN_MAX) {
                self.link(about, &format!("spec.policies[{index}]"), entry, &mut chain);
            }
            if spec.policies.len() > CHAIN_MAX {
                let field = format!("spec.policies[{CHAIN_MAX}]");
                let message =
                    format!("a chain has at most {CHAIN_MAX} entries; this and later ones are left out");
                self.report.error(self.bundle, about, &field, "TooMany", message, "shorten the chain");
            }
            return chain;
        }
        for (field, name) in short_form(&self.options.builtins, spec) {
            self.named_link(about, field, name, &mut chain);
        }
        prefer_before_prefix_hash(&mut chain.links);
        chain
    }

    /// A chain of one policy by name.
    pub(super) fn chain_of(&mut self, about: &About, field: &str, name: &str) -> AskedChain {
        let mut chain = self.new_chain(about);
        self.named_link(about, field, name, &mut chain);
        chain
    }

    fn new_chain(&mut self, about: &About) -> AskedChain {
        self.specs.asked += 1;
        let tenant = Arc::clone(&about.name().namespace);
        AskedChain { number: self.specs.asked, tenant, ..AskedChain::default() }
    }

    fn named_link(&mut self, about: &About, field: &str, name: &str, chain: &mut AskedChain) {
        match self.policy_by_name(about, field, name) {
            Ok(policy) => {
                // routeStrategy: session-affinity beside sessionAffinity: true means one link, not two.
                if !chain.links.iter().any(|link| link.policy == policy) {
                    let config = self.config(about, field, &policy.config);
                    chain.links.push(Link {
                        failure_mode: policy.failure_mode,
                        mode: Mode::Active,
                        config,
                        policy,
                    });
                }
            }
            Err(missing) => chain.rejected |= missing.rejects,
        }
    }

    fn link(&mut self, about: &About, field: &str, entry: &kind::ChainEntry, chain: &mut AskedChain) {
        let found = match (&entry.name, &entry.policy_ref) {
            (Some(name), None) => self.policy_by_name(about, &format!("{field}.name"), name),
            (None, Some(to)) => self.policy_by_ref(about, &format!("{field}.policyRef"), &to.name),
            _ => {
                let message = "an entry names exactly one policy, by name or by policyRef";
                self.report.reject(self.bundle, about, field, "InvalidEntry", message, "keep one of the two");
                chain.rejected = true;
                return;
            }
        };
        let mode = match entry.mode {
            kind::EntryMode::Active => Mode::Active,
            kind::EntryMode::Shadow => Mode::Shadow,
        };
        let asked_mode = entry.failure_mode.map(failure_mode);
        match found {
            Ok(policy) => {
                let config = match &entry.config {
                    Some(config) => self.config(about, &format!("{field}.config"), &Some(config.0.clone())),
                    None => self.config(about, field, &policy.config),
                };
                let failure_mode = asked_mode.unwrap_or(policy.failure_mode);
                chain.links.push(Link { policy, config, failure_mode, mode });
            }
            Err(missing) => {
                chain.rejected |= missing.rejects;
                let failure_mode = asked_mode.unwrap_or(missing.failure_mode);
                if failure_mode == FailureMode::Reject && mode == Mode::Active {
                    // Its owner would rather turn requests away than do without it: a link that cannot load does that.
                    let policy = Resolved::unusable(&missing.name);
                    chain.links.push(Link { policy, config: Map::new(), failure_mode, mode });
                }
            }
        }
    }

    /// A policy's settings. What is no object is ignored, and found.
    pub(super) fn config(
        &mut self,
        about: &About,
        field: &str,
        config: &Option<Value>,
    ) -> Map<String, Value> {
        match config {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => {
                if map.contains_key("pool") {
                    let message = "the key pool is the gateway's own; what stands there is replaced";
                    self.report.warning(self.bundle, about, field, "ReservedKey", message, "rename the key");
                }
                map.clone()
            }
            Some(_) => {
                let message = "settings are a JSON object; these are ignored";
                self.report.error(self.bundle, about, field, "WrongType", message, "write a mapping");
                Map::new()
            }
        }
    }

    /// The chain for a pool with these thresholds. Equal ones are shared.
    pub(super) fn chain(&mut self, asked: &AskedChain, thresholds: Thresholds) -> Arc<[Arc<EntrySpec>]> {
        let key =
            (asked.number, thresholds.hit_rate.map(f64::to_bits), thresholds.eviction.map(f64::to_bits));
        let make = || asked.links.iter().map(|link| Arc::new(link.spec(&asked.tenant, thresholds))).collect();
        Arc::clone(self.specs.made.entry(key).or_insert_with(make))
    }
}

impl Link {
    fn spec(&self, tenant: &Arc<str>, thresholds: Thresholds) -> EntrySpec {
        let mut config = self.config.clone();
        config.remove("pool");
        let mut pool = Map::new();
        if let Some(ratio) = thresholds.hit_rate {
            pool.insert("thresholdHitRate".into(), json!(ratio));
        }
        if let Some(ratio) = thresholds.eviction {
            pool.insert("evictionThreshold".into(), json!(ratio));
        }
        if !pool.is_empty() {
            config.insert("pool".into(), Value::Object(pool));
        }
        EntrySpec {
            name: PolicyName::clone(&self.policy.name),
            source: self.policy.source.clone(),
            sha256: self.policy.sha256.clone(),
            config: Value::Object(config).to_string().into(),
            limits: self.policy.limits,
            failure_mode: self.failure_mode,
            mode: self.mode,
            tenant: Arc::clone(tenant),
        }
    }
}

/// The links of the three short fields, in order.
fn short_form<'a>(
    builtins: &BTreeSet<Box<str>>,
    spec: &'a InferenceGatewaySpec,
) -> Vec<(&'static str, &'a str)> {
    let mut links = Vec::new();
    let is_prefix_hash = |strategy: &str| canonical(builtins, strategy) == "prefix-hash";
    if spec.session_affinity == Some(true) {
        links.push(("spec.sessionAffinity", "session-affinity"));
    }
    if let Some(strategy) = &spec.route_strategy {
        links.push(("spec.routeStrategy", strategy));
    }
    if let Some(policy) = &spec.scheduling_policy {
        links.push(("spec.schedulingPolicy", policy));
    } else if spec.route_strategy.as_deref().is_some_and(is_prefix_hash) {
        links.push(("spec.routeStrategy", "load-aware"));
    }
    if links.is_empty() {
        links.push(("spec.routeStrategy", "round-robin"));
    }
    links
}

/// The same mode in the domain's words.
pub(super) fn failure_mode(mode: kind::FailureMode) -> FailureMode {
    match mode {
        kind::FailureMode::NextPolicy => FailureMode::NextPolicy,
        kind::FailureMode::LeastInFlight => FailureMode::LeastInFlight,
        kind::FailureMode::Reject => FailureMode::Reject,
    }
}
