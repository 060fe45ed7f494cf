#!/usr/bin/env bash
# Makes this container a hot standby of the primary: copies it at the first start, then streams.
set -euo pipefail

primary=${PRIMARY:-host=primary port=5432}

if [[ ! -s $PGDATA/PG_VERSION ]]; then
  # Copied beside and renamed, so that a copy that was interrupted is never taken for a whole one.
  copy=$PGDATA.copy
  rm -rf "$copy"
  mkdir -p "$(dirname "$PGDATA")"
  pg_basebackup --dbname "$primary user=pgusher_replica" --no-password --pgdata "$copy" \
    --slot replica --write-recovery-conf --checkpoint fast
  chmod 0700 "$copy"
  rm -rf "$PGDATA"
  mv "$copy" "$PGDATA"
fi

exec postgres "$@"
