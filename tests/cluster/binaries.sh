#!/usr/bin/env bash
# Builds what the cluster suite runs beside the gateway: `binaries.sh [controlplane|tools|promtool|registry|definitions]...`, all
# without arguments. Each Go module below this folder becomes .cache/cluster/<module>-<hash of its files>/, built once and kept;
# .cache/cluster/bin/ links to what is current. Only the binaries are kept: the build cache is Go's own.
#
# KUBEBUILDER_ASSETS, if set, names a folder with etcd and kube-apiserver, which are then used instead of ours.
set -euo pipefail
cd "$(dirname "$0")"

KUBERNETES=1.36.3
cache=$(cd ../.. && pwd)/.cache/cluster
bin=$cache/bin

# What makes a binary: its module's files and the flags below.
hash_of() {
    { cat "$1"/go.mod "$1"/go.sum $(find "$1" -name '*.go' | LC_ALL=C sort); version_flags; } | sha256sum | cut -c1-12
}

# Without these the server says it is v0.0.0, and clients refuse to speak to it.
version_flags() {
    local package
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.gitVersion=v%s -X %s.gitMajor=1 -X %s.gitMinor=36 ' $package $KUBERNETES $package $package
        printf -- '-X %s.gitTreeState=clean -X %s.buildDate=2026-01-01T00:00:00Z ' $package $package
    done
    # Helm 3 takes the version that `helm template` claims from here.
    for package in helm.sh/helm/v3/pkg/chartutil helm.sh/helm/v3/pkg/lint/rules; do
        printf -- '-X %s.k8sVersionMajor=1 -X %s.k8sVersionMinor=36 ' $package $package
    done
}

need_go() { # WHAT-FOR
    if ! command -v go >/dev/null; then
        echo "the cluster suite needs Go 1.26 or newer to $1: install it, or run \`make test-core\`" >&2
        echo "(KUBEBUILDER_ASSETS may name a folder with etcd, kube-apiserver and kube-controller-manager to use instead)" >&2
        exit 1
    fi
}

# build MODULE NAME=PACKAGE...: the binaries of one module, unless they are there.
build() {
    local module=$1 kept pair
    shift
    kept=$cache/$module-$(hash_of "$module")
    mkdir -p "$bin"
    if [ ! -d "$kept" ]; then
        need_go "build $module"
        local making
        making=$(mktemp -d "$cache/.making-XXXXXX")
        for pair in "$@"; do
            echo "building ${pair%%=*}" >&2
            (cd "$module" && CGO_ENABLED=0 go build -p "${GO_JOBS:-2}" -trimpath -gcflags=all=-dwarf=false ${GO_TAGS:+-tags "$GO_TAGS"} \
                -ldflags "-s -w $(version_flags)" -o "$making/${pair%%=*}" "${pair#*=}")
        done
        # Renamed when whole: a build that was stopped leaves nothing that looks finished.
        mv "$making" "$kept"
    fi
    for pair in "$@"; do
        ln -sfn "../$(basename "$kept")/${pair%%=*}" "$bin/${pair%%=*}"
    done
}

controlplane() {
    if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
        for name in etcd kube-apiserver; do
            [ -x "$KUBEBUILDER_ASSETS/$name" ] || { echo "KUBEBUILDER_ASSETS has no $name" >&2; exit 1; }
        done
        # Those assets usually lack it; ours then runs beside their API server.
        [ ! -x "$KUBEBUILDER_ASSETS/kube-controller-manager" ] || return 0
    fi
    build controlplane controlplane=.
}

tools() {
    build tools helm=helm.sh/helm/v4/cmd/helm helm3=helm.sh/helm/v3/cmd/helm kubectl=./kubectl \
        kustomize=sigs.k8s.io/kustomize/kustomize/v5
}

promtool() {
    GO_TAGS=remove_all_sd build promtool promtool=github.com/prometheus/prometheus/cmd/promtool
}

registry() {
    build registry registry=.
}

# Definitions of other projects whose kinds the chart makes: .cache/cluster/definitions/.
definitions() {
    local module=github.com/prometheus-operator/prometheus-operator version=v0.85.0 kind
    local sum='h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s='
    [ ! -d "$cache/definitions" ] || return 0
    need_go "fetch $module"
    local said making
    said=$(cd "$cache" && go mod download -json $module@$version)
    grep -qF "\"Sum\": \"$sum\"" <<<"$said" || { echo "$module $version is not what it was" >&2; exit 1; }
    making=$(mktemp -d "$cache/.making-XXXXXX")
    for kind in prometheusrules servicemonitors; do
        cp "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$said")/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$making"
    done
    chmod -R u+w "$making" && mv "$making" "$cache/definitions"
}

[ $# -gt 0 ] || set -- tools promtool registry definitions controlplane
for target in "$@"; do "$target"; done
