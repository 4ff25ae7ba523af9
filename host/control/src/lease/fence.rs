//! No write without the lease, by the clock.
//!
//! Who loses the lease is told so by the elector. If this process was held up (a machine that swaps, a stopped process), whoever
//! wants to write may run before the elector does, when another replica leads already. So the time is looked at before every
//! write, too.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;

/// Until when this replica holds the lease for sure. Clones are the same fence.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

/// Why a write was not sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this replica's lease has run out")]
pub struct LeaseLost;

impl Fence {
    /// Lets writes through before `until`; `None` lets none through, as at first.
    pub(super) fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether a write may be sent now.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    /// A client that answers everything but `GET` with [`LeaseLost`] while the lease is not held. `namespace` is its default one.
    pub fn guard(&self, client: Client, namespace: &str) -> Client {
        let fence = self.clone();
        let send = move |request: Request<Body>| {
            let (fence, client) = (fence.clone(), client.clone());
            async move {
                if request.method() != Method::GET && !fence.is_open() {
                    return Err(kube::Error::Service(LeaseLost.into()));
                }
                client.send(request).await
            }
        };
        Client::new(tower::service_fn(send), namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};

    use super::*;
    use crate::controllers::fake::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn writes_pass_while_the_lease_is_held_and_never_after_it() {
        let (api, fence) = (FakeApi::default(), Fence::default());
        let maps: Api<ConfigMap> = Api::namespaced(fence.guard(api.client(), "ns"), "ns");
        let write = async || maps.create(&PostParams::default(), &named("a")).await.map(drop);
        let is_held = |result: kube::Result<()>| match result {
            Ok(()) => true,
            Err(kube::Error::Service(error)) if error.to_string().contains("lease has run out") => false,
            Err(error) => panic!("{error:?}"),
        };

        assert!(!is_held(write().await), "nobody leads yet");
        fence.set(Some(Instant::now() + Duration::from_secs(10)));
        assert!(is_held(write().await));
        // Nobody says that it is over: the process was held up.
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!is_held(write().await));
        assert!(maps.get_opt("a").await.expect("reads pass").is_some());
        assert_eq!((api.writes().len(), api.reads()), (1, 1), "the others did not reach the server");
    }

    fn named(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }
}
