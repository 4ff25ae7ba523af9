//! Writes the ConfigMap of each `StaticRoute`, as the leader: what the production stack's own router mounts.
//!
//! A ConfigMap is ours if its controlling owner is the route. One that nobody controls is taken over only if it is empty
//! or carries our label; every other one is left alone, and the route says `ConfigMapConflict`. All writes name the version
//! that was read. Ours are watched by their label, so that one which is deleted or edited by hand is mended at once. Keys
//! of others stay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::name::ObjectName;
use futures::stream::{SelectAll, select_all};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use manifest::Kind;
use manifest::kind::StaticRoute;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{each_term, lost, sleep_until};
use crate::metrics::{ControllerMetrics, Reconciled};
use crate::publish::{Facts, Report};
use crate::start::stopped;
use crate::status::{ConfigMapOutcome, Outcomes};

mod content;
mod reconcile;

use reconcile::{Done, Wanted};

/// The name under which this controller counts.
pub const CONTROLLER: &str = "staticroute";
/// ConfigMaps worked on at a time.
pub const RECONCILES_MAX: usize = 8;
/// First and longest time until a failure is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A ConfigMap of somebody else is looked at again after this long: we do not watch it.
const CONFLICT_RETRY: Duration = Duration::from_secs(30);
/// The label of what we write, by which we watch it.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "wicketgate");

/// What the controller is plugged into.
pub(super) struct ConfigMapParts {
    pub(super) client: Client,
    pub(super) reports: watch::Receiver<Report>,
    /// Namespaces that are looked at; empty is all.
    pub(super) namespaces: Vec<String>,
    pub(super) outcomes: watch::Sender<Outcomes>,
    pub(super) leads: watch::Receiver<bool>,
    pub(super) metrics: ControllerMetrics,
}

type Seen = SelectAll<BoxStream<'static, watcher::Result<watcher::Event<ConfigMap>>>>;

/// Works whenever this replica leads, until `stop` turns true (or its sender is gone).
pub(super) async fn run(parts: ConfigMapParts, stop: watch::Receiver<bool>) {
    parts.metrics.controller(CONTROLLER, RECONCILES_MAX);
    let leads = parts.leads.clone();
    each_term(parts, leads, stop, |mut parts, mut stop| async move {
        Term::new(&mut parts).serve(&mut stop).await;
        // Somebody else finds out from now on.
        parts.outcomes.send_modify(|outcomes| outcomes.config_maps.clear());
        parts
    })
    .await;
}

/// One route, and where it is.
#[derive(Debug)]
struct Route {
    object: Arc<StaticRoute>,
    wanted: Wanted,
    /// When to look, if at all.
    due: Option<Instant>,
    is_running: bool,
    failures: u32,
}

/// What is known while this replica leads.
struct Term<'a> {
    parts: &'a mut ConfigMapParts,
    routes: BTreeMap<ObjectName, Route>,
    /// Our ConfigMaps as the watch shows them, or as we wrote them after that.
    present: HashMap<ObjectName, ConfigMap>,
    /// Streams whose first list is still under way, by what they have shown so far.
    listing: HashSet<ObjectName>,
}

impl<'a> Term<'a> {
    fn new(parts: &'a mut ConfigMapParts) -> Self {
        Self { parts, routes: BTreeMap::new(), present: HashMap::new(), listing: HashSet::new() }
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut seen = self.watch();
        let mut reconciles: JoinSet<Done> = JoinSet::new();
        self.take_report();
        loop {
            self.begin(&mut reconciles);
            let due =
                self.routes.values().filter(|route| !route.is_running).filter_map(|route| route.due).min();
            tokio::select! {
                () = stopped(stop) => break,
                () = lost(&mut self.parts.leads) => break,
                changed = self.parts.reports.changed() => match changed {
                    Ok(()) => self.take_report(),
                    Err(_) => break,
                },
                Some(done) = reconciles.join_next() => if let Ok(done) = done {
                    self.settle(done);
                },
                Some(event) = seen.next() => self.see(event),
                () = sleep_until(due), if reconciles.len() < RECONCILES_MAX => {}
            }
        }
        reconciles.shutdown().await;
    }

    /// Our ConfigMaps, in every namespace that is looked at.
    fn watch(&self) -> Seen {
        let client = &self.parts.client;
        let apis: Vec<Api<ConfigMap>> = if self.parts.namespaces.is_empty() {
            vec![Api::all(client.clone())]
        } else {
            let namespaced = |namespace: &String| Api::namespaced(client.clone(), namespace);
            self.parts.namespaces.iter().map(namespaced).collect()
        };
        let config = watcher::Config::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        select_all(apis.into_iter().map(|api| watcher(api, config.clone()).default_backoff().boxed()))
    }

    /// Takes over which routes there are now.
    fn take_report(&mut self) {
        let facts = Arc::clone(&self.parts.reports.borrow_and_update().facts);
        let routes = &facts.bundle.static_routes;
        let gone = self.routes.extract_if(.., |name, _| !routes.contains_key(name)).count();
        if gone > 0 {
            let known = &self.routes;
            self.parts
                .outcomes
                .send_modify(|outcomes| outcomes.config_maps.retain(|name, _| known.contains_key(name)));
        }
        for (name, held) in routes {
            if self.routes.get(name).is_some_and(|route| Arc::ptr_eq(&route.object, &held.value)) {
                continue;
            }
            let Some(wanted) = wanted(&facts, name, &held.value) else {
                self.routes.remove(name);
                self.tell(name, None);
                continue;
            };
            let before = self.routes.remove(name);
            let is_same = before.as_ref().is_some_and(|before| before.wanted == wanted);
            let route = match before {
                Some(before) if is_same => Route { object: Arc::clone(&held.value), ..before },
                before => Route {
                    object: Arc::clone(&held.value),
                    wanted,
                    due: Some(Instant::now()),
                    is_running: before.is_some_and(|before| before.is_running),
                    failures: 0,
                },
            };
            self.routes.insert(name.clone(), route);
        }
    }

    /// Starts what is due, as far as there is room.
    fn begin(&mut self, reconciles: &mut JoinSet<Done>) {
        let now = Instant::now();
        for (name, route) in &mut self.routes {
            if reconciles.len() >= RECONCILES_MAX {
                return;
            }
            if route.is_running || route.due.is_none_or(|due| due > now) {
                continue;
            }
            route.due = None;
            route.is_running = true;
            let present = self.present.get(&route.wanted.config_map()).cloned();
            let (client, name, wanted) = (self.parts.client.clone(), name.clone(), route.wanted.clone());
            reconciles.spawn(reconcile::reconcile(client, name, wanted, present));
        }
    }

    fn settle(&mut self, done: Done) {
        let Done { route: name, wanted, outcome, object, took } = done;
        // Due again: the watch has shown something since it began, and which of the two is newer nobody knows. Asking does.
        let is_overtaken = self.routes.get(&name).is_some_and(|route| route.due.is_some());
        match object {
            Some(_) if is_overtaken => drop(self.present.remove(&wanted.config_map())),
            Some(object) => drop(self.present.insert(wanted.config_map(), object)),
            None => {}
        }
        let result = match &outcome {
            ConfigMapOutcome::Written { .. } => Reconciled::Success,
            ConfigMapOutcome::Conflict { .. } => Reconciled::RequeueAfter,
            ConfigMapOutcome::Failed { .. } => Reconciled::Error,
        };
        self.parts.metrics.reconciled(CONTROLLER, result, took);
        let Some(route) = self.routes.get_mut(&name) else { return };
        route.is_running = false;
        if route.wanted != wanted {
            // It has changed meanwhile, and is due already.
            return;
        }
        let retry = match &outcome {
            ConfigMapOutcome::Written { .. } => None,
            ConfigMapOutcome::Conflict { .. } => Some(CONFLICT_RETRY),
            ConfigMapOutcome::Failed { message } => {
                tracing::warn!(route = %name, %message, "the ConfigMap is not written, trying again");
                Some(RETRY.0.saturating_mul(1 << route.failures.min(10)).min(RETRY.1))
            }
        };
        route.failures = if result == Reconciled::Error { route.failures + 1 } else { 0 };
        if let Some(retry) = retry {
            let at = Instant::now() + retry;
            route.due = Some(route.due.map_or(at, |due| due.min(at)));
        }
        self.tell(&name, Some(outcome));
    }

    fn tell(&self, name: &ObjectName, outcome: Option<ConfigMapOutcome>) {
        self.parts.outcomes.send_if_modified(|outcomes| match outcome {
            // That it is still right says nothing new, least of all about when it was written.
            Some(ConfigMapOutcome::Written { name: map, at: None, remark }) => {
                let known = outcomes.config_maps.get(name);
                let at = match known {
                    Some(ConfigMapOutcome::Written { name, at, .. }) if *name == map => *at,
                    _ => None,
                };
                let now = ConfigMapOutcome::Written { name: map, at, remark };
                let is_new = known != Some(&now);
                outcomes.config_maps.insert(name.clone(), now);
                is_new
            }
            Some(outcome) => {
                let is_new = outcomes.config_maps.get(name) != Some(&outcome);
                outcomes.config_maps.insert(name.clone(), outcome);
                is_new
            }
            None => outcomes.config_maps.remove(name).is_some(),
        });
    }

    /// Takes over what the watch shows.
    fn see(&mut self, event: watcher::Result<watcher::Event<ConfigMap>>) {
        match event {
            Ok(watcher::Event::Init) => self.listing = self.present.keys().cloned().collect(),
            Ok(watcher::Event::InitApply(object)) => {
                self.listing.remove(&name_of(&object));
                self.seen(object);
            }
            Ok(watcher::Event::InitDone) => {
                let gone: Vec<ObjectName> = self.listing.drain().collect();
                gone.iter().for_each(|name| self.gone(name));
            }
            Ok(watcher::Event::Apply(object)) => self.seen(object),
            Ok(watcher::Event::Delete(object)) => self.gone(&name_of(&object)),
            Err(error) => {
                tracing::warn!(%error, "ConfigMaps cannot be watched; those edited by hand stay so");
            }
        }
    }

    fn seen(&mut self, object: ConfigMap) {
        let name = name_of(&object);
        let known = self.present.get(&name).and_then(|known| known.metadata.resource_version.clone());
        if known.is_some() && known == object.metadata.resource_version {
            return;
        }
        self.present.insert(name.clone(), object);
        self.look_at(&name);
    }

    fn gone(&mut self, name: &ObjectName) {
        self.present.remove(name);
        self.look_at(name);
    }

    /// Every route that wants this ConfigMap looks again.
    fn look_at(&mut self, config_map: &ObjectName) {
        for route in self.routes.values_mut().filter(|route| route.wanted.config_map() == *config_map) {
            route.due = Some(Instant::now());
        }
    }
}

/// What a route wants. `None`: it is not acceptable, so what stands in its ConfigMap stays.
fn wanted(facts: &Facts, name: &ObjectName, route: &StaticRoute) -> Option<Wanted> {
    let object = format!("{} {name}", Kind::StaticRoute.as_str());
    let findings = facts.findings.iter().filter(|finding| *finding.object == *object);
    let [accepted, ..] = manifest::condition::conditions(findings);
    if !accepted.status || route.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Wanted::of(name, route)
}

fn name_of(object: &ConfigMap) -> ObjectName {
    let metadata = &object.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
