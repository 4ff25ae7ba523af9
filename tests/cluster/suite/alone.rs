//! What has the cluster to itself: a gateway that looks after all namespaces, a kind that comes and goes, large clusters, and
//! claims about time. These run one at a time, after the others (see the Makefile).

mod changes;
mod definitions;
mod everywhere;
mod outages;
mod scale;
mod takeover;
