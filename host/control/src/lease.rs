//! Elects the one replica that writes, by a `Lease`, to the rules that Kubernetes' own components follow.
//!
//! Whoever holds the lease renews it every [`RETRY`]. Another one takes it when it is free, or has not changed for as long
//! as it lasts, by this replica's own clock: the times that stand in it are another machine's, and are never compared.
//! Every write names the version that was read, so that of two who try one wins. Who could not renew for
//! [`RENEW_DEADLINE`] gives up, which is before anybody else may take over.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::causes::with_causes;
use crate::refusals::Refusals;
use crate::start::stopped;

mod fence;

pub use fence::{Fence, LeaseLost};

/// Name of our lease, in the gateway's own namespace.
pub const LEASE_NAME: &str = "wicketgate";
/// How long a lease lasts that nobody renews.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Without a renewal for this long the holder gives up. Shorter than [`LEASE_DURATION`], so that what the holder has under
/// way ends before somebody else begins.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries, plus up to a fifth.
pub const RETRY: Duration = Duration::from_secs(2);
/// Longest time for giving the lease back at the end.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the lease cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Forbidden,
    Failed,
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    fence: Fence,
    refusals: Refusals,
    /// The lease as it was read or written last, and since when it has not changed.
    seen: Option<(Lease, Instant)>,
    tries: u64,
}

impl Elector {
    /// A candidate that calls itself `identity`, which is different in each replica, for the lease of `api`'s namespace. It opens
    /// `fence` while it holds the lease; `api` is not behind it.
    pub fn new(api: Api<Lease>, identity: impl Into<String>, fence: Fence) -> Self {
        let refusals = Refusals::default();
        Self { api, identity: identity.into(), fence, refusals, seen: None, tries: 0 }
    }

    /// Says there why the lease cannot be read or written, as long as that is so.
    #[must_use]
    pub fn reporting_to(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// Takes part until `stop` turns true (or its sender is gone), then gives the lease back. `leads` says whether this
    /// replica holds it; false from the start, and before it is given back.
    pub async fn run(mut self, leads: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
        let mut renewed: Option<Instant> = None;
        let mut trouble = None;
        loop {
            let began = Instant::now();
            let left = renewed.map_or(RENEW_DEADLINE, |at| (at + RENEW_DEADLINE).duration_since(began));
            let outcome = tokio::select! {
                () = stopped(&mut stop) => break,
                outcome = timeout(left, self.try_once()) => outcome,
            };
            match outcome {
                Ok(Ok(true)) => renewed = Some(began),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(_)) | Err(_) => {}
            }
            self.report(&outcome, &mut trouble);
            renewed = renewed.filter(|at| at.elapsed() < RENEW_DEADLINE);
            let deadline = renewed.map(|at| at + RENEW_DEADLINE);
            self.tell(&leads, deadline);
            let next = Instant::now() + self.pause();
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = tokio::time::sleep_until(deadline.map_or(next, |deadline| next.min(deadline))) => {}
            }
        }
        self.tell(&leads, None);
        if renewed.is_some() {
            self.release().await;
        }
    }

    /// Says what kind of trouble there is, in a finding that is logged when it comes and when it goes.
    fn report(&self, outcome: &Result<kube::Result<bool>, Elapsed>, before: &mut Option<Trouble>) {
        let (now, why) = match outcome {
            Ok(Ok(_)) => (None, None),
            // The refused right is a finding already.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => (Some(Trouble::Forbidden), None),
            Ok(Err(error)) => (Some(Trouble::Failed), Some(with_causes(error))),
            Err(_) => (Some(Trouble::Failed), Some("no answer in time".to_owned())),
        };
        if *before != now {
            self.refusals.lease(why);
        }
        *before = now;
    }

    /// Tells until when this replica leads.
    fn tell(&self, leads: &watch::Sender<bool>, until: Option<Instant>) {
        let now = until.is_some();
        self.fence.set(until);
        let changed = leads.send_if_modified(|before| std::mem::replace(before, now) != now);
        if changed {
            tracing::info!(identity = %self.identity, leads = now, "leadership changed");
        }
    }

    /// One try to hold the lease. `Ok(false)`: somebody else holds it, or was quicker.
    async fn try_once(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(LEASE_NAME).await? else {
            if self.is_held_elsewhere() {
                // Its holder makes it anew. If this replica did, both would believe that they lead.
                return Ok(false);
            }
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(LEASE_NAME.into()), ..ObjectMeta::default() },
                spec: Some(self.taken(&LeaseSpec::default())),
            };
            return self.write(fresh, true).await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((before, since)) if before.spec == lease.spec => *since,
            _ => Instant::now(),
        };
        self.seen = Some((lease.clone(), since));
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let is_free = holder.is_empty() || since.elapsed() >= duration(Some(&spec));
        if holder != self.identity && !is_free {
            return Ok(false);
        }
        let next = if holder == self.identity { self.renewed(&spec) } else { self.taken(&spec) };
        self.write(Lease { spec: Some(next), ..lease }, false).await
    }

    /// Whether the lease as it was seen last belongs to another replica and has not run out.
    fn is_held_elsewhere(&self) -> bool {
        let Some((lease, since)) = &self.seen else { return false };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        !holder.is_empty() && holder != self.identity && since.elapsed() < duration(spec)
    }

    /// Writes over the version that was read. A conflict means that somebody else was quicker.
    async fn write(&mut self, lease: Lease, is_new: bool) -> kube::Result<bool> {
        let parameters = PostParams::default();
        let written = if is_new {
            self.api.create(&parameters, &lease).await
        } else {
            self.api.replace(LEASE_NAME, &parameters, &lease).await
        };
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn renewed(&self, before: &LeaseSpec) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..before.clone()
        }
    }

    fn taken(&self, before: &LeaseSpec) -> LeaseSpec {
        let renewed = self.renewed(before);
        // Counts changes of hands: a lease that never had a holder has none behind it.
        let transitions = before.lease_transitions.map_or(0, |count| count.saturating_add(1));
        LeaseSpec {
            acquire_time: renewed.renew_time.clone(),
            lease_transitions: Some(transitions),
            ..renewed
        }
    }

    /// Lets others take over at once.
    async fn release(&mut self) {
        let Some((lease, _)) = self.seen.take() else { return };
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..lease.spec.clone().unwrap_or_default()
        };
        let free = Lease { spec: Some(spec), ..lease };
        let parameters = PostParams::default();
        let given = timeout(RELEASE_TIMEOUT, self.api.replace(LEASE_NAME, &parameters, &free)).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::warn!("the lease was not given back; others take over when it has run out");
        }
    }

    /// Time to the next try. Replicas that started together drift apart, each in its own way.
    fn pause(&mut self) -> Duration {
        self.tries += 1;
        let mut hasher = DefaultHasher::new();
        (&self.identity, self.tries).hash(&mut hasher);
        RETRY + RETRY / 5 * (hasher.finish() % 1_000) as u32 / 1_000
    }
}

/// How long a lease lasts after its last renewal.
fn duration(spec: Option<&LeaseSpec>) -> Duration {
    let seconds = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
    seconds.map_or(LEASE_DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests;
