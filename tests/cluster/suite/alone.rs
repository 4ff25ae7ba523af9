//! What has the cluster to itself: a gateway that looks after all namespaces, a kind that comes and goes, and large clusters.
//! These run one at a time, after the others (see the Makefile).

mod definitions;
mod everywhere;
mod scale;
