#!/bin/sh
# Prints the command that runs a PgBouncer fit for comparison (one line, to be split at spaces).
#
# PgBouncer knows prepared statements in transaction mode from 1.21 on. Taken, in this order:
#   1. $PGBOUNCER_BIN, whatever its version;
#   2. the system's pgbouncer, when it is new enough;
#   3. a newer Debian release's package with the libraries it needs, unpacked into the cache folder
#      and run with that release's own loader. Nothing is installed and apt's state isn't touched:
#      apt gets a configuration of its own that points at the mirror which this machine already uses.
#
# usage: benches/pgbouncer.sh [cache folder]        (default: .cache/pgbouncer in the project)
#   PGUSHER_BENCH_DEBIAN   the release to take it from (default: trixie)
#
# Needs apt, dpkg-deb and GNU coreutils for 3. Idempotent: a second run only prints.
set -eu

release=${PGUSHER_BENCH_DEBIAN:-trixie}
oldest=1.21
cache=${1:-$(cd "$(dirname "$0")/.." && pwd)/.cache/pgbouncer}

say() { echo "pgbouncer.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# version COMMAND…: "1.24.1" out of "PgBouncer 1.24.1", or nothing.
version() { "$@" --version 2>/dev/null | sed -n 's/^PgBouncer \([0-9.]*\).*/\1/p'; }

# is_new_enough VERSION
is_new_enough() {
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$oldest" "$1" | sort -V | head -n 1)" = "$oldest" ]
}

# The mirror of Debian itself (not security, not third parties) in this machine's apt.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 2>/dev/null |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# libraries PACKAGE: the lib* packages that it needs, directly or through others of them.
libraries() {
    seen=" "
    todo=$1
    while [ -n "$todo" ]; do
        next=
        for package in $todo; do
            for found in $(apt-cache depends --important "$package" |
                sed -n 's/^  *\(Pre\)\{0,1\}Depends: \(lib[^ <>]*\)$/\2/p'); do
                case $seen in *" $found "*) continue ;; esac
                seen="$seen$found "
                next="$next $found"
            done
        done
        todo=$next
    done
    echo "$seen"
}

unpack() {
    for tool in apt-get apt-cache dpkg-deb; do
        command -v "$tool" >/dev/null ||
            die "no PgBouncer >= $oldest here, and without $tool none can be had: set PGBOUNCER_BIN"
    done
    uri=$(mirror)
    [ -n "$uri" ] || uri=$(apt-get update >&2 && mirror)
    [ -n "$uri" ] || die "apt of this machine has no Debian mirror: set PGBOUNCER_BIN"

    work=$cache/apt
    rm -rf "$work" "$root.new"
    mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$root.new"
    : >"$work/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] && signed="[signed-by=$keyring] " || signed=
    echo "deb $signed$uri $release main" >"$work/sources.list"
    cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
    export APT_CONFIG="$work/apt.conf"
    say "reading the package list of $release"
    apt-get -q update >&2
    say "downloading pgbouncer and its libraries"
    # shellcheck disable=SC2046 # package names, to be split
    (cd "$work/debs" && apt-get -q download pgbouncer $(libraries pgbouncer) >&2)
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$root.new"
    done
    rm -rf "$root" "$work"
    mv "$root.new" "$root"
}

# The command for the unpacked tree: loader, library folders, binary.
unpacked() {
    binary=$root/usr/sbin/pgbouncer
    loader=$(find "$root/usr/lib" -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
    [ -x "$binary" ] && [ -n "$loader" ] || return 1
    folders=$(find "$root/usr/lib" -name '*.so.*' -exec dirname {} + | sort -u | paste -sd: -)
    echo "$loader --library-path $folders $binary"
}

if [ -n "${PGBOUNCER_BIN:-}" ]; then
    [ -n "$(version "$PGBOUNCER_BIN")" ] || die "PGBOUNCER_BIN=$PGBOUNCER_BIN does not run"
    echo "$PGBOUNCER_BIN"
    exit
fi
system=$(command -v pgbouncer || command -v /usr/sbin/pgbouncer || true)
if [ -n "$system" ] && is_new_enough "$(version "$system")"; then
    echo "$system"
    exit
fi
case $cache in *" "*) die "the cache folder's path has a space: $cache" ;; esac
root=$cache/$release
[ -x "$root/usr/sbin/pgbouncer" ] || unpack
command=$(unpacked) || die "the unpacked package in $root is not complete: remove it and try again"
# shellcheck disable=SC2086 # a command line, to be split
is_new_enough "$(version $command)" || die "the PgBouncer of $release is older than $oldest"
echo "$command"
