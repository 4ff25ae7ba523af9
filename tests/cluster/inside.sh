#!/usr/bin/env bash
# Runs a command in a network, mount and PID namespace of its own: `inside.sh CMD...`.
#
# There, and only there, the documentation networks are local, so that engines have addresses that an EndpointSlice takes
# (it refuses loopback). No packet leaves. Everything started inside ends with the command.
# Cargo runs the cluster suite through this (see the Makefile).
set -euo pipefail

if [ "${WICKETGATE_CLUSTER:-}" != inside ]; then
    root=()
    [ "$(id -u)" = 0 ] || root=(--map-root-user)
    here=$(cd "$(dirname "$0")" && pwd)
    cache=$(cd "$here/../.." && pwd)/.cache/cluster
    export WICKETGATE_CLUSTER=inside WICKETGATE_CLUSTER_BIN=$cache/bin WICKETGATE_CLUSTER_RUN=$cache/run
    mkdir -p "$WICKETGATE_CLUSTER_RUN"
    exec unshare "${root[@]}" --net --mount --pid --fork --kill-child --mount-proc "$here/inside.sh" "$@"
fi

ip link set lo up
# On lo the whole network of an address is local, not just the address.
# The last are the cluster addresses of Services: there is no kube-proxy, a test may listen on one itself.
for network in 192.0.2.1/24 198.51.100.1/24 10.96.0.1/16; do
    ip address add "$network" dev lo
done
# Pods that are real processes live on this bridge, each in a namespace of its own: see pod.sh.
ip link add pods type bridge
ip address add 203.0.113.1/24 dev pods
ip link set pods up
# etcd's files live in memory and go with the namespace.
mount -t tmpfs -o size=2g tmpfs "$WICKETGATE_CLUSTER_RUN"
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/secrets/kubernetes.io/serviceaccount
# There is no DNS: a test writes the names of Services here, and pods see them.
cp /etc/hosts "$WICKETGATE_CLUSTER_RUN/hosts"
mount --bind "$WICKETGATE_CLUSTER_RUN/hosts" /etc/hosts
export TMPDIR=$WICKETGATE_CLUSTER_RUN
exec "$@"
