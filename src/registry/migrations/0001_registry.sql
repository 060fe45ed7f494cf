-- The system of record. Everything stands in the schema pgusher, which belongs to the registry's
-- own login; nobody else needs a privilege here. Secrets are sealed before they come here.

CREATE SCHEMA IF NOT EXISTS pgusher;

-- Every change of a tenant, key or cluster takes the next number and is told on this channel, so
-- that whoever keeps a copy knows which copy is too old: {"tenant": "acme", "generation": 42}.
CREATE SEQUENCE pgusher.generation;

CREATE TABLE pgusher.cluster (
    name                   text PRIMARY KEY,
    -- postgres://host[:port], no user and no password in it
    primary_url            text NOT NULL,
    replica_urls           text[] NOT NULL DEFAULT '{}',
    region                 text,
    -- who makes and removes tenants there; the password is sealed for ("cluster:" name, "admin")
    admin_role             text NOT NULL,
    admin_password         bytea,
    -- disable | require | verify-ca | verify-full, and the path of the CA
    tls                    text NOT NULL DEFAULT 'disable'
        CHECK (tls IN ('disable', 'require', 'verify-ca', 'verify-full')),
    tls_ca                 text,
    max_server_connections integer NOT NULL DEFAULT 90 CHECK (max_server_connections BETWEEN 1 AND 100000),
    max_parallel_connects  integer NOT NULL DEFAULT 8 CHECK (max_parallel_connects BETWEEN 1 AND 10000),
    connect_timeout_ms     bigint NOT NULL DEFAULT 5000 CHECK (connect_timeout_ms > 0),
    -- strict | compatible: how its databases are hardened
    profile                text NOT NULL DEFAULT 'strict' CHECK (profile IN ('strict', 'compatible')),
    -- the databases that tenants of the tiers schema and row share there
    schema_database        text NOT NULL DEFAULT 'pgusher_schemas',
    row_database           text NOT NULL DEFAULT 'pgusher_rows',
    -- what hardening could not close there (an admin that is no superuser), told by verify
    open_holes             jsonb NOT NULL DEFAULT '[]',
    generation             bigint NOT NULL DEFAULT 0,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pgusher.tenant (
    id                     text PRIMARY KEY CHECK (id ~ '^[a-z0-9_-]{1,63}$'),
    name                   text NOT NULL,
    tier                   text NOT NULL CHECK (tier IN ('database', 'schema', 'row')),
    -- own: a login role of its own; shared: slots that many tenants use in turn (tier row only)
    variant                text NOT NULL DEFAULT 'own' CHECK (variant IN ('own', 'shared')),
    status                 text NOT NULL DEFAULT 'provisioning'
        CHECK (status IN ('provisioning', 'active', 'suspended', 'terminated')),
    owner_email            text,
    -- where: names that say nothing about who it is, fixed before anything is made in the cluster
    cluster                text NOT NULL REFERENCES pgusher.cluster (name),
    database_name          text NOT NULL,
    schema_name            text,
    -- the opaque word in all its names upstream, and its rows' tenant_id: [a-z2-7]{20}
    token                  text NOT NULL UNIQUE CHECK (token ~ '^[a-z2-7]{20}$'),
    role                   text NOT NULL,
    password               bytea,
    read_only_role         text,
    read_only_password     bytea,
    -- of all its keys' verifiers: SCRAM names the salt before it knows the key
    scram_salt             bytea NOT NULL,
    -- what [[tenants]] of proxy.toml may say from pool_mode on, by the same names; NULL: the default
    pool_mode              text CHECK (pool_mode IN ('session', 'transaction', 'statement')),
    pin                    text CHECK (pin IN ('allow', 'refuse')),
    pool_size              integer,
    min_pool_size          integer,
    max_client_connections integer,
    max_pinned_servers     integer,
    max_prepared_statements integer,
    -- milliseconds; 0 is none
    server_idle_timeout    bigint,
    server_lifetime        bigint,
    server_check_delay     bigint,
    query_wait_timeout     bigint,
    query_timeout          bigint,
    transaction_timeout    bigint,
    idle_transaction_timeout bigint,
    client_idle_timeout    bigint,
    -- {"name": "value"}
    settings               jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    forced                 text[] NOT NULL DEFAULT '{}',
    time_zone              text,
    tenant_setting         text,
    plan                   text NOT NULL DEFAULT 'starter',
    auto_update            boolean NOT NULL DEFAULT true,
    -- logo, colours, regulatory body, licence number, domain ...
    metadata               jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    -- the version of its templates
    template_version       bigint NOT NULL DEFAULT 0,
    -- what can't be closed for it, told by verify
    open_holes             jsonb NOT NULL DEFAULT '[]',
    -- terminated: what is left of it goes at this time
    remove_at              timestamptz,
    generation             bigint NOT NULL DEFAULT 0,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    CHECK (variant = 'own' OR tier = 'row')
);
CREATE INDEX tenant_status ON pgusher.tenant (status);
CREATE INDEX tenant_cluster ON pgusher.tenant (cluster);

CREATE TABLE pgusher.api_key (
    -- the id in the key itself: pgu_<id>_<secret><checksum>
    id                     text PRIMARY KEY CHECK (id ~ '^[a-z0-9_-]{1,63}$'),
    tenant                 text NOT NULL REFERENCES pgusher.tenant (id) ON DELETE CASCADE,
    name                   text NOT NULL DEFAULT '',
    -- of the whole key; NULL where only a verifier was ever known (imports)
    sha256                 bytea CHECK (length(sha256) = 32),
    verifier               text NOT NULL,
    scope                  text NOT NULL DEFAULT 'read_write' CHECK (scope IN ('read_write', 'read_only')),
    permissions            text[] NOT NULL DEFAULT '{}',
    -- CIDR; empty: everywhere
    allow                  text[] NOT NULL DEFAULT '{}',
    rate_limit_per_hour    integer,
    max_client_connections integer,
    not_before             timestamptz,
    expires_at             timestamptz,
    status                 text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    last_used_at           timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    revoked_at             timestamptz
);
CREATE INDEX api_key_tenant ON pgusher.api_key (tenant);

-- A tenant's configuration for its applications.
CREATE TABLE pgusher.entry (
    tenant     text NOT NULL REFERENCES pgusher.tenant (id) ON DELETE CASCADE,
    key        text NOT NULL CHECK (key ~ '^[a-zA-Z0-9_.-]{1,128}$'),
    kind       text NOT NULL CHECK (kind IN ('branding', 'feature', 'integration', 'security', 'billing')),
    -- one of the two: what is sensitive is sealed for ("tenant:" tenant, "entry:" key)
    value      jsonb,
    sealed     bytea,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key),
    CHECK ((value IS NULL) <> (sealed IS NULL))
);

CREATE TABLE pgusher.member (
    tenant     text NOT NULL REFERENCES pgusher.tenant (id) ON DELETE CASCADE,
    email      text NOT NULL CHECK (email = lower(email) AND email LIKE '%_@_%'),
    name       text NOT NULL DEFAULT '',
    role       text NOT NULL CHECK (role IN ('admin', 'manager', 'user', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, email)
);

-- Who may use the admin API. A token of a tenant reaches that tenant only.
CREATE TABLE pgusher.admin_token (
    id         text PRIMARY KEY,
    sha256     bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    name       text NOT NULL DEFAULT '',
    role       text NOT NULL CHECK (role IN ('admin', 'manager', 'user', 'viewer')),
    tenant     text REFERENCES pgusher.tenant (id) ON DELETE CASCADE,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- What a POST with an Idempotency-Key answered; kept for a day.
CREATE TABLE pgusher.idempotency (
    actor      text NOT NULL,
    key        text NOT NULL,
    request    bytea NOT NULL,
    -- sealed, as it may show a key once; NULL while the first is under way
    answer     bytea,
    status     integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);

-- Keys that bind a slot to a tenant, one for each database of the shared variant; sealed for
-- ("cluster:" cluster, "slots:" database).
CREATE TABLE pgusher.slot_key (
    cluster       text NOT NULL REFERENCES pgusher.cluster (name),
    database_name text NOT NULL,
    id            integer NOT NULL,
    sealed        bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, database_name, id)
);
