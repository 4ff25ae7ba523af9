//! What policies decided, and what it cost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use domain::snapshot::Snapshot;

use super::family::{self, Page};
use super::together::Together;
use crate::record::cells::Count;
use crate::record::decisions::{EntryCells, EntryLabels, FAULTS, PoolCells, Reason};

/// The strategy label of decisions that no policy took.
const LAST_RESORT: &str = "last-resort";

/// Decisions by pool and by policy.
pub(super) fn pools(
    page: &mut Page,
    (snapshot, together): (&Snapshot, &Together<'_>),
    pools: &[Arc<PoolCells>],
) {
    let names = snapshot.pools.iter().map(|pool| (pool.gateway.to_string(), pool.model.as_str()));
    let live: HashSet<(String, &str)> = names.collect();
    let mut tokens: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    let gateways: Vec<String> = pools.iter().map(|cells| cells.labels.gateway.to_string()).collect();
    for (cells, gateway) in pools.iter().zip(&gateways) {
        let model = cells.labels.model.as_str();
        if !live.contains(&(gateway.clone(), model)) {
            continue;
        }
        let model = together.label(model);
        page.merge(family::ROUTE_SECONDS, &[gateway, model], &cells.took);
        reasons(page, [gateway, model, LAST_RESORT], &cells.undecided);
        for (entry, EntryLabels { name: policy, .. }) in cells.entries.iter().zip(&cells.labels.entries) {
            policy_cells(page, [gateway, model, policy.as_str()], entry);
        }
        let (prompt, cached) = tokens.entry((gateway, model)).or_default();
        *prompt += cells.prompt_tokens.get();
        *cached += cells.cached_tokens.get();
    }
    for ((gateway, model), (prompt, cached)) in tokens {
        let ratio = if prompt > 0 { cached as f64 / prompt as f64 } else { 0.0 };
        page.add(family::MATCH_RATIO, &[gateway, model], ratio);
    }
}

fn reasons(page: &mut Page, labels: [&str; 3], counts: &[Count]) {
    let [gateway, model, strategy] = labels;
    for (reason, label) in Reason::ALL {
        page.add_some(
            family::ROUTE_DECISIONS,
            &[gateway, model, strategy, label],
            counts[reason as usize].get(),
        );
    }
}

fn policy_cells(page: &mut Page, labels: [&str; 3], cells: &EntryCells) {
    let [gateway, model, policy] = labels;
    let with = |last: &'static str| [gateway, model, policy, last];
    page.add(family::POLICY_DECISIONS, &with("chose"), cells.chose.get() as f64);
    page.add(family::POLICY_DECISIONS, &with("scored"), cells.scored.get() as f64);
    page.add_some(family::POLICY_DECISIONS, &with("refused"), cells.refused.get());
    page.add(family::POLICY_ABSTENTIONS, &with("abstained"), cells.abstained.get() as f64);
    page.add_some(family::POLICY_ABSTENTIONS, &with("no_session"), cells.no_session.get());
    page.add_some(family::POLICY_ABSTENTIONS, &with("unavailable"), cells.unavailable.get());
    page.add_some(family::POLICY_SHADOW, &with("agreed"), cells.shadow_agreed.get());
    page.add_some(family::POLICY_SHADOW, &with("differed"), cells.shadow_differed.get());
    for (fault, count) in FAULTS.iter().zip(&cells.faults) {
        page.add(family::POLICY_FAULTS, &with(fault.label()), count.get() as f64);
    }
    page.add(family::POLICY_FUEL, &labels, cells.fuel.get() as f64);
    page.merge(family::POLICY_SECONDS, &labels, &cells.took);
    reasons(page, labels, &cells.decided);
}
