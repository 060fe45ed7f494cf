#!/usr/bin/env bash
# Run once by the PostgreSQL image, when it has made the primary: lets the replica stream from it.
set -euo pipefail

printf 'host replication pgusher_replica samenet scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
