# shellcheck shell=bash
# Messages, the system's package manager, the C compiler. Sourced by scripts/setup.

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command in silence; what it said is shown when it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [[ $status != 0 ]]; then
    say "failed ($status): $*"
    tail -n 20 "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

as_root() {
  if [[ $EUID == 0 ]]; then "$@"; else sudo -n -- "$@"; fi
}

can_install() {
  has apt-get && { [[ $EUID == 0 ]] || { has sudo && sudo -n true 2>/dev/null; }; }
}

apt_updated=no
apt_update() {
  [[ $apt_updated == no ]] || return 0
  say "refreshing the package lists"
  quietly as_root apt-get -q update || return 1
  apt_updated=yes
}

apt_install() {
  say "installing packages: $*"
  quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}

# Can apt install package $1? (A name that others merely mention has no candidate.)
apt_has() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

ensure_compiler() {
  if has cc && has make; then return; fi
  if can_install && apt_update && apt_install gcc libc6-dev make; then
    if has cc && has make; then return; fi
  fi
  die "a C compiler (cc) and make are missing and can't be installed from here.
       As root: apt-get install gcc libc6-dev make (or what your system calls them)."
}
