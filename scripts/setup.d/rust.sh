# shellcheck shell=bash
# The Rust toolchain. Sourced by scripts/setup.

# Is version $1 at least $2?
version_ge() {
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Prints the version of cargo, if there is one that runs.
cargo_version() {
  cargo --version 2>/dev/null | awk '{ print $2; exit }'
}

rust_is_new_enough() {
  local found
  found=$(cargo_version) && [[ -n $found ]] && version_ge "$found" "$1"
}

rustup_install_stable() {
  say "installing the stable Rust toolchain by rustup"
  quietly rustup toolchain install stable --profile minimal --component clippy --component rustfmt || return 1
  rustup show active-toolchain >/dev/null 2>&1 || quietly rustup default stable
}

# Brings rustup: from the system's packages where they have it, else by its own installer.
install_rustup() {
  if can_install && apt_update && apt_has rustup && apt_install rustup; then return; fi
  if ! has curl && can_install; then
    apt_update && apt_install curl ca-certificates || return 1
  fi
  has curl || return 1
  say "fetching rustup from its own site"
  local installer status=0
  installer=$(mktemp)
  quietly curl --proto '=https' --tlsv1.2 -fsSL -o "$installer" https://sh.rustup.rs &&
    quietly sh "$installer" -y --no-modify-path --profile minimal --default-toolchain none || status=1
  rm -f "$installer"
  return "$status"
}

# Makes sure of cargo; $1 is the manifest that names the oldest version that will do.
ensure_rust() {
  local wanted
  wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$1")
  PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
  if ! rust_is_new_enough "$wanted"; then
    say "Rust $wanted or newer is needed, found: $(cargo_version || true)"
    has rustup || install_rustup || die "rustup can't be installed from here.
       Install Rust $wanted or newer by hand (https://rustup.rs), then run this again."
    rustup_install_stable || die "rustup could not install the stable toolchain (no network?)."
    rust_is_new_enough "$wanted" ||
      die "cargo is still older than $wanted; make the stable toolchain the default: rustup default stable"
  fi
  ensure_rust_components
}

# clippy and rustfmt are for scripts/test only, so their absence is told, not fatal.
ensure_rust_components() {
  local tool
  for tool in clippy fmt; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    if ! { has rustup && quietly rustup component add "${tool/#fmt/rustfmt}"; }; then
      say "cargo $tool is missing: building works, scripts/test will not"
    fi
  done
}
