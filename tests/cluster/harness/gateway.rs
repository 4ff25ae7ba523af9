//! The gateway as a process of the test, serving from its place in the cluster as the chart's ServiceAccount.

use harness::gateway::{Gateway, Options};

use crate::account;
use crate::place::Place;

/// How to start one.
#[derive(Debug)]
pub struct Start<'a> {
    place: &'a Place,
    server: String,
    name: String,
    options: Options,
}

impl<'a> Start<'a> {
    /// A gateway that watches the place's namespace, with two workers, and says on answers who gave them.
    pub fn at(place: &'a Place) -> Self {
        let namespaces = format!("--watch-namespaces={}", place.namespace);
        let own = format!("--namespace={}", place.namespace);
        let args = vec![namespaces, own, "--answer-headers".to_owned(), "--workers=2".to_owned()];
        Self {
            place,
            server: place.plane().url(),
            name: "gateway".to_owned(),
            options: Options { args, from_cluster: true, ..Options::default() },
        }
    }

    /// Another name than `gateway`, for one of several replicas.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Reaches the API server by another URL.
    #[must_use]
    pub fn through(mut self, server: &str) -> Self {
        server.clone_into(&mut self.server);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.options.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it listens.
    pub async fn start(mut self) -> Gateway {
        account::create(self.place).await;
        let kubeconfig = account::kubeconfig(self.place, &self.server, &self.name).await;
        self.options.env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
        self.options.env.push(("POD_NAME".to_owned(), self.name));
        Gateway::start(self.options).await
    }

    /// Starts it and waits until `/readyz` would say yes and every policy is in its place.
    pub async fn ready(self) -> Gateway {
        let gateway = self.start().await;
        gateway.settled().await;
        gateway
    }
}

/// Starts a gateway as [`Start::at`] has it, and waits until it listens.
pub async fn start(place: &Place) -> Gateway {
    Start::at(place).start().await
}

/// Starts one and waits until `/readyz` would say yes and every policy is in its place.
pub async fn ready(place: &Place) -> Gateway {
    Start::at(place).ready().await
}
