#!/usr/bin/env bash
# What `make demo` does, how long that takes here, and what comes next.
if [ -d target/release/deps ] && [ -d target/policies ]; then
  compiling="about a minute, as most of it has been compiled before"
else
  compiling="about a quarter of an hour on two cores the first time; later about a minute"
fi
cat <<TEXT
The demo plays 2,400 requests of conversations through the gateway over eleven simulated engines, and swaps the routing
policy twice in mid-traffic. Nothing leaves this machine but downloads of crates.

  1. compile the routing policies to WebAssembly, then the gateway and the engines with optimisation:
     $compiling
  2. play the trace: 75 seconds, a line every five
  3. three tables: per part of the trace, per engine, per policy

TEXT
