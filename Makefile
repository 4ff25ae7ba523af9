# Everything a developer runs. Each target does its own set-up; nothing needs a manual step.
# `make demo` and `make test` are the two commands of the README.

CARGO ?= cargo
CACHE := .cache
VENV := $(CACHE)/venv
POLICIES := target/policies
TRACE ?=
KEEP ?=
DEMO_FLAGS ?=
# One line of progress instead of what a command says; all of it if the command fails.
STEP := tests/demo/step.sh

# One test of the cluster suite, or several by a part of their names: `make test-cluster TEST=leader`.
TEST ?=
# What cargo puts before each test binary of the suite: a network of its own (see tests/cluster/inside.sh).
INSIDE = CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER="$(abspath tests/cluster/inside.sh)"

# Every cargo command below selects the whole workspace: `-p` would choose other features for what crates share, and compile
# wasmtime, kube and a hundred others once more.

.PHONY: help demo test test-core test-cluster test-scale check bench build policies manifests fmt python clean-cache

help: ## What there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

policies: ## Build the policy components into target/policies (adds the wasm target if it is missing)
	$(CARGO) run --quiet --manifest-path policies/Cargo.toml -p build --

build: policies ## Build the release binary: target/release/wicketgate
	$(CARGO) build --release --bin wicketgate

demo: ## The main job: a trace through the gateway over simulated engines (TRACE=FILE, KEEP=1)
	@tests/demo/announce.sh
	@$(STEP) "[1/3] routing policies" $(CARGO) run --manifest-path policies/Cargo.toml -p build --
	@$(STEP) "[2/3] gateway and engines" $(CARGO) build --release --bin wicketgate --bin demo
	@echo "[3/3] the trace"
	@target/release/demo --gateway target/release/wicketgate $(if $(TRACE),--trace $(TRACE)) $(if $(KEEP),--keep) $(DEMO_FLAGS)

check: policies ## Format, lint, unit tests: the inner loop
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path policies/Cargo.toml --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --exclude tests --exclude cluster

test: test-core test-cluster ## Everything

test-core: check python ## Everything that needs no cluster
	$(CARGO) test --manifest-path policies/Cargo.toml --workspace
	$(CARGO) build --bin wicketgate
	WICKETGATE_PYTHON=$(abspath $(VENV))/bin/python $(CARGO) test --workspace --test suite

test-cluster: policies ## The gateway on a real API server, which is built once from Go modules (TEST=NAME)
	@$(STEP) "control plane and tools (five minutes the first time)" tests/cluster/binaries.sh
	$(CARGO) build --bin wicketgate
	$(CARGO) test --workspace --test cluster --test charts --no-run
ifeq ($(TEST),)
	$(INSIDE) $(CARGO) test --workspace --test cluster --test charts -- --test-threads=4 --skip alone::
	$(INSIDE) $(CARGO) test --workspace --test cluster -- --test-threads=1 alone::
else
	$(INSIDE) $(CARGO) test --workspace --test cluster --test charts -- --test-threads=1 $(TEST)
endif

test-scale: policies ## 1,000 routes and 10,000 endpoints again, with an optimised gateway and the bars that are for one
	tests/cluster/binaries.sh
	$(CARGO) build --release --bin wicketgate
	$(INSIDE) WICKETGATE_BIN=$(abspath target/release/wicketgate) $(CARGO) test --workspace --test cluster -- --test-threads=1 alone::scale

python: $(VENV)/ready ## The pinned clients and servers that the suite runs (openai, llama.cpp's server)

$(VENV)/ready: tests/requirements.txt
	python3 -m venv $(VENV)
	@$(STEP) "Python clients and servers (some minutes the first time)" $(VENV)/bin/pip install --requirement tests/requirements.txt
	touch $@

bench: policies ## Criterion, the image's binary beside nginx, routing in virtual time (see docs/benchmarks.md)
	$(CARGO) build --profile dist --bin wicketgate
	$(CARGO) build --release --bin bench
	$(CARGO) bench --workspace --bench parts
	target/release/bench all --gateway target/dist/wicketgate

manifests: ## Print the definitions into crds/ and write the copies in charts/ and deploy/
	$(CARGO) run --quiet --bin wicketgate -- crds --out crds
	deploy/copies.sh

fmt: ## Format everything
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path policies/Cargo.toml --all

clean-cache: ## Drop what the targets above installed into the checkout
	rm -rf $(CACHE)
