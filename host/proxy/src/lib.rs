//! The request path, one file per phase.
//!
//! A request's life is [`request`], on one screen; around it are the workers and listeners that [`Server`] starts. Nothing
//! here knows Kubernetes, manifests or WebAssembly: configuration is what [`domain::published`] holds, decisions are asked
//! of [`domain::policy::Policies`].

mod admit;
mod attempt;
mod clock;
mod cors;
mod course;
pub mod dialect;
mod dispatch;
pub mod explain;
mod filter;
mod flight;
pub mod intake;
mod linger;
pub mod local;
pub mod metrics;
pub mod multipart;
pub mod record;
mod relay;
mod repair;
mod request;
pub mod respond;
mod route;
mod server;
mod upstream;

#[cfg(test)]
mod fixture;

pub use server::{
    CertificateFiles, ListenerSpec, Parts, Server, ServerHandle, ServerOptions, Status, TellSleep,
    WORKERS_MAX, WorkerState, Workers,
};
