-- What tenants use. It outlives them. Sums of all proxies; a day is the sum of its hours in UTC.

CREATE TABLE pgusher.usage_hourly (
    tenant               text NOT NULL,
    -- when the hour begins
    hour                 timestamptz NOT NULL,
    queries              bigint NOT NULL DEFAULT 0,
    transactions         bigint NOT NULL DEFAULT 0,
    -- of these, those that ran on a replica
    replica_transactions bigint NOT NULL DEFAULT 0,
    rows                 bigint NOT NULL DEFAULT 0,
    client_bytes         bigint NOT NULL DEFAULT 0,
    server_bytes         bigint NOT NULL DEFAULT 0,
    -- microseconds for which a server was lent, and of waiting for one
    server_time_us       bigint NOT NULL DEFAULT 0,
    wait_time_us         bigint NOT NULL DEFAULT 0,
    -- most clients at the same time at one proxy
    connections_peak     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, hour)
);

-- For who removes what is too old.
CREATE INDEX usage_hourly_hour ON pgusher.usage_hourly (hour);

CREATE TABLE pgusher.usage_error (
    tenant   text NOT NULL,
    hour     timestamptz NOT NULL,
    -- a SQLSTATE; "other" for what is not told apart
    sqlstate text NOT NULL,
    count    bigint NOT NULL,
    PRIMARY KEY (tenant, hour, sqlstate)
);

CREATE INDEX usage_error_hour ON pgusher.usage_error (hour);

-- The last batch of each process. It is written with its rows, so that a batch whose commit was not
-- known is not added twice.
CREATE TABLE pgusher.usage_batch (
    process    uuid PRIMARY KEY,
    sequence   bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);

-- Bytes that a tenant's data takes in its cluster, measured there; the last measurement of an hour.
CREATE TABLE pgusher.usage_storage (
    tenant      text NOT NULL,
    hour        timestamptz NOT NULL,
    bytes       bigint NOT NULL,
    measured_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, hour)
);

CREATE INDEX usage_storage_hour ON pgusher.usage_storage (hour);
