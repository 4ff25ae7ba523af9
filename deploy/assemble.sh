#!/usr/bin/env bash
# Makes the image's root file system without a container engine, from a local build, and starts the binary in it:
#   deploy/assemble.sh DIR [WICKETGATE ARGUMENTS...]
#
# What is copied where, the user and the entry point are read from the last stage of deploy/Dockerfile, so that the two
# cannot differ. BINARY (default target/release/wicketgate) and POLICIES (default target/policies) stand for what the
# earlier stages build. Libraries are those that the binary asks for, which the base image brings.
# Without arguments for the binary, the root is only made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?"usage: deploy/assemble.sh DIR [ARGUMENTS...]"}
shift
binary=${BINARY:-$here/../target/release/wicketgate}
policies=${POLICIES:-$here/../target/policies}

[ -x "$binary" ] || { echo "no binary at $binary: \`make build\` makes it, or set BINARY" >&2; exit 1; }
if [ -e "$root" ] && [ -n "$(ls -A "$root")" ]; then
    echo "$root is not empty" >&2
    exit 1
fi
mkdir -p "$root"

# The last stage, one instruction a line.
stage=$(sed -e ':a' -e '/\\$/N; s/\\\n//; ta' "$here/Dockerfile" | awk '/^FROM /{s=""} {s=s $0 "\n"} END{printf "%s", s}')

copy() { # SOURCE-IN-STAGE DESTINATION
    case $1 in
    /wicketgate) install -D -m 755 "$binary" "$root$2" ;;
    /src/target/policies/*) mkdir -p "$root$2" && cp "$policies"/${1##*/} "$root$2" ;;
    *) echo "deploy/Dockerfile copies $1, which this script does not know" >&2; exit 1 ;;
    esac
}
while read -r _ from source destination; do
    case $from in --from=*) copy "$source" "$destination" ;; *) echo "COPY without --from" >&2; exit 1 ;; esac
done < <(grep '^COPY ' <<<"$stage")

# What the base image brings: the loader and the libraries, users, a place for temporary files.
for library in $(ldd "$binary" | grep -o '/[^ )]*'); do
    install -D "$(readlink -f "$library")" "$root$library"
done
mkdir -p "$root"/{etc,proc,dev} && install -d -m 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"

[ $# -gt 0 ] || exit 0
entry=$(sed -n 's/^ENTRYPOINT \["\(.*\)"\]$/\1/p' <<<"$stage")
user=$(sed -n 's/^USER //p' <<<"$stage")
if [ "$(id -u)" = 0 ]; then
    exec chroot --userspec="$user" "$root" "$entry" "$@"
fi
# Whoever is not root is root in a user namespace, of which only that user exists.
exec unshare --user --map-root-user --root="$root" "$entry" "$@"
