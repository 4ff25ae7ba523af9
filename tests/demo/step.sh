#!/usr/bin/env bash
# Runs a command that takes long and says much, and shows one line of progress instead. On a terminal the line is rewritten
# each second; elsewhere there is a line at the start and one at the end. If the command fails, all that it said follows.
#   step.sh "[1/3] routing policies" COMMAND...
set -u
what=$1
shift
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$@" >"$said" 2>&1 </dev/null &
pid=$!
trap 'kill "$pid" 2>/dev/null; wait "$pid"; exit 130' INT TERM

# Time since the start, and where the command is: how many crates are compiled, and its latest words.
progress() {
  local crates latest
  crates=$(grep -c '^ *Compiling ' "$said")
  latest=$(grep -v '^ *$' "$said" | tail -n 1 | tr -d '\r' | sed 's/^ *//' | cut -c1-40)
  printf '%s: %d:%02d%s%s' "$what" $((SECONDS / 60)) $((SECONDS % 60)) \
    "$([ "$crates" -gt 0 ] && echo ", $crates crates compiled so far")" "${latest:+, $latest}"
}

if [ -t 1 ]; then
  while kill -0 "$pid" 2>/dev/null; do
    printf '\r\033[K%s' "$(progress | cut -c1-"$(($(tput cols 2>/dev/null || echo 80) - 1))")"
    sleep 1
  done
  printf '\r\033[K'
else
  echo "$what ..."
fi
wait "$pid"
code=$?
took=$(printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)))
if [ "$code" -eq 0 ]; then
  echo "$what: done after $took"
else
  echo "$what: failed after $took with exit code $code. This is what it said:" >&2
  cat "$said" >&2
fi
exit "$code"
