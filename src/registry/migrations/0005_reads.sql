-- How replicas are used, by the names of proxy.toml; NULL: the default. Times are milliseconds; a
-- limit of 0 is none.

ALTER TABLE pgusher.cluster
    ADD COLUMN primary_weight        integer CHECK (primary_weight BETWEEN 0 AND 1000),
    ADD COLUMN replica_lag_max       bigint CHECK (replica_lag_max >= 0),
    ADD COLUMN replica_lag_bytes_max bigint CHECK (replica_lag_bytes_max >= 0),
    ADD COLUMN replica_fallback      boolean,
    ADD COLUMN replica_slow_start    bigint CHECK (replica_slow_start >= 0),
    ADD COLUMN watch_interval        bigint CHECK (watch_interval BETWEEN 10 AND 60000),
    ADD COLUMN watch_timeout         bigint CHECK (watch_timeout BETWEEN 10 AND 60000);

ALTER TABLE pgusher.tenant
    ADD COLUMN read_splitting boolean,
    ADD COLUMN consistency    text CHECK (consistency IN ('tenant', 'session', 'eventual')),
    ADD COLUMN failover_hold  bigint CHECK (failover_hold >= 0),
    -- postgres://host[:port], some of the cluster's; NULL: all of them
    ADD COLUMN read_replicas  text[];
