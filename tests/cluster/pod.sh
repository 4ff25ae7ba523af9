#!/usr/bin/env bash
# The process of one pod: `pod.sh ADDRESS FOLDER BINARY [ARGS...]`, started by the pretended kubelet.
#
# The process gets a network namespace with ADDRESS on the bridge that inside.sh made, and FOLDER where a pod finds its
# ServiceAccount. There is no DNS and no kube-proxy: names and cluster addresses lead nowhere.
set -euo pipefail
address=$1 folder=$2
shift 2
name=pod-${address//./-}

# From the last life of a pod with this address.
ip netns delete "$name" 2>/dev/null || true
ip netns add "$name"
ip link add "v-${address##*.}" type veth peer name eth0 netns "$name"
ip link set "v-${address##*.}" master pods up
ip -n "$name" link set lo up
ip -n "$name" address add "$address/24" dev eth0
ip -n "$name" link set eth0 up
ip -n "$name" route add default via 203.0.113.1

# `ip netns exec` makes a mount namespace too.
exec ip netns exec "$name" bash -c '
    mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount
    exec "$@"
' "$folder" "$@"
