//! One watch, kept going: list, then watch, and after any trouble list again.
//!
//! A watch that merely ends is resumed where it was. After an error nothing is resumed: a list leaves no doubt about what
//! was missed, and costs one request where an error is the exception anyway.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use domain::name::ObjectName;
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use manifest::Kind;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::reduce::{Sight, Watched, name_of};
use crate::causes::with_causes;

/// How long the API server keeps one watch open, seconds. A connection that died in silence is noticed a few seconds
/// after that.
pub const WATCH_SECONDS: u32 = 60;
/// Longest time for one page of a list.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait before the first new attempt; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a new attempt.
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// The same while the API server refuses.
pub const RETRY_REFUSED_MAX: Duration = Duration::from_secs(10);
/// A watch that lasted this long was a good one: the next trouble is the first.
const STEADY: Duration = Duration::from_secs(10);

/// Which watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId {
    /// What kind of objects.
    pub(super) kind: Kind,
    /// Which of them.
    pub(super) scope: Scope,
}

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    /// All of them.
    All,
    /// Those of a namespace.
    Namespace(Arc<str>),
    /// One of them.
    Object(ObjectName),
}

impl fmt::Display for WatchId {
    /// Such as `objects of kind Pod in namespace ns`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        match &self.scope {
            Scope::All => write!(f, "objects of kind {kind}"),
            Scope::Namespace(namespace) => write!(f, "objects of kind {kind} in namespace {namespace}"),
            Scope::Object(name) => write!(f, "{kind} {name}"),
        }
    }
}

/// What a watch has to tell.
#[derive(Debug)]
pub(super) struct News {
    /// Which watch.
    pub(super) watch: WatchId,
    /// What it heard.
    pub(super) heard: Heard,
}

/// One event.
#[derive(Debug)]
pub(super) enum Heard {
    /// A list begins; what the previous one said is forgotten if it did not get to its end.
    Listing,
    /// It holds this.
    Listed(Sight),
    /// That was all of it: what was not listed is gone.
    Complete,
    /// An object is new or different.
    Applied(Sight),
    /// An object is gone.
    Gone(ObjectName),
    /// It does not work, for so many times in a row.
    Trouble(Trouble, u32),
}

/// Why a watch does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The API server does not know the kind.
    NotInstalled,
    /// We may not.
    Forbidden(String),
    /// Everything else: nobody there, too slow, broken off, not understood.
    Failed(String),
}

impl Trouble {
    /// Whether the API server answered, and will go on saying so until somebody does something.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    fn of(error: &watcher::Error) -> Self {
        let api = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            watcher::Error::WatchError(status) => Some(status),
            watcher::Error::NoResourceVersion => None,
        };
        match api {
            Some(status) if status.code == 403 => Self::Forbidden(status.message.clone()),
            Some(status) if status.code == 404 => Self::NotInstalled,
            _ => Self::Failed(with_causes(error)),
        }
    }
}

/// Follows one watch until nobody listens any more. `seed` spreads its retries.
pub(super) async fn follow<K: Watched>(api: Api<K>, watch: WatchId, seed: u64, news: mpsc::Sender<News>) {
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if let Scope::Object(name) = &watch.scope {
        config = config.fields(&format!("metadata.name={}", name.name));
    }
    let mut retry = Retry { seed: spread(seed, &watch), failures: 0 };
    loop {
        let began = Instant::now();
        let stream = watcher(api.clone(), config.clone());
        let Some(trouble) = live(stream, &watch, &news).await else { return };
        if began.elapsed() >= STEADY {
            retry.failures = 0;
        }
        let wait = retry.next(&trouble);
        tracing::debug!(%watch, ?trouble, ?wait, "a watch does not work");
        let heard = Heard::Trouble(trouble, retry.failures);
        if news.send(News { watch: watch.clone(), heard }).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// Passes on what the stream says until it is in trouble. `None`: nobody listens any more.
async fn live<K: Watched>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    watch: &WatchId,
    news: &mpsc::Sender<News>,
) -> Option<Trouble> {
    let mut stream = pin!(stream);
    let mut is_listing = true;
    loop {
        // A watch is bounded by its own length; a list is not.
        let event = if is_listing {
            match tokio::time::timeout(LIST_TIMEOUT, stream.next()).await {
                Ok(event) => event,
                Err(_) => return Some(Trouble::Failed("listing takes too long".to_owned())),
            }
        } else {
            stream.next().await
        };
        let heard = match event? {
            Ok(Event::Init) => Heard::Listing,
            Ok(Event::InitApply(object)) => Heard::Listed(object.sight(watch.kind)),
            Ok(Event::InitDone) => {
                is_listing = false;
                Heard::Complete
            }
            Ok(Event::Apply(object)) => Heard::Applied(object.sight(watch.kind)),
            Ok(Event::Delete(object)) => Heard::Gone(name_of(object.meta())),
            Err(error) => return Some(Trouble::of(&error)),
        };
        news.send(News { watch: watch.clone(), heard }).await.ok()?;
    }
}

/// A seed of the watch's own.
fn spread(seed: u64, watch: &WatchId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, watch).hash(&mut hasher);
    hasher.finish()
}

/// When to try again.
#[derive(Debug)]
struct Retry {
    seed: u64,
    failures: u32,
}

impl Retry {
    /// How long to wait after one more failure: between half and all of a time that doubles up to a bound.
    fn next(&mut self, trouble: &Trouble) -> Duration {
        let most = if trouble.is_refusal() { RETRY_REFUSED_MAX } else { RETRY_MAX };
        let full = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.failures).hash(&mut hasher);
        let part = (hasher.finish() % 1_000) as u32;
        full / 2 + full * part / 2_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_are_spread() {
        let failed = Trouble::Failed(String::new());
        let waits = |seed| {
            let mut retry = Retry { seed, failures: 0 };
            std::iter::repeat_with(|| retry.next(&failed)).take(12).collect::<Vec<_>>()
        };
        let (one, other) = (waits(1), waits(2));
        assert_ne!(one, other);
        for (attempt, wait) in one.iter().enumerate() {
            let full = (RETRY_MIN * (1 << attempt)).min(RETRY_MAX);
            assert!((full / 2..=full).contains(wait), "{attempt}: {wait:?}");
        }
    }

    #[test]
    fn who_is_refused_asks_less_often() {
        let mut retry = Retry { seed: 0, failures: 100 };
        assert!(retry.next(&Trouble::NotInstalled) >= RETRY_REFUSED_MAX / 2);
        assert!(retry.next(&Trouble::Failed(String::new())) <= RETRY_MAX);
    }
}
