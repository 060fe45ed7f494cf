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

# Is there a libclang, and are clang's own headers there? ("libclang-cpp" is something else.)
has_libclang() {
  local library header
  for library in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"/libclang*.so*} /usr/lib/llvm*/lib/libclang*.so* \
    /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* /usr/lib/libclang*.so* /usr/local/lib/libclang*.so*; do
    [[ -e $library && $library != *libclang-cpp* ]] || continue
    for header in /usr/lib/llvm*/lib/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h \
      /usr/local/lib/clang/*/include/stddef.h "${library%/*}"/clang/*/include/stddef.h; do
      [[ ! -e $header ]] || return 0
    done
  done
  return 1
}

ensure_libclang() {
  if has_libclang; then return; fi
  if can_install && apt_update && apt_install libclang-dev && has_libclang; then return; fi
  die "libclang is missing and can't be installed from here: the build reads the headers of
       PostgreSQL's SQL parser with it. As root: apt-get install libclang-dev (or clang-devel,
       clang); where it is somewhere else, name its folder in LIBCLANG_PATH."
}
