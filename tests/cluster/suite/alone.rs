//! What has the cluster to itself: a gateway that looks after all namespaces, and large clusters. These run one at a time,
//! after the others (see the Makefile).

mod everywhere;
mod scale;
