-- How much storage a tenant may take, in bytes; NULL or 0: no limit.
ALTER TABLE pgusher.tenant
    ADD COLUMN max_storage_bytes bigint CHECK (max_storage_bytes BETWEEN 0 AND 1000000000000000);

-- How much each tenant took when it was measured last. Proxies are told by NOTIFY, as of a change of the
-- tenant, where it matters.
CREATE TABLE pgusher.storage (
    tenant      text PRIMARY KEY REFERENCES pgusher.tenant ON DELETE CASCADE,
    bytes       bigint NOT NULL,
    -- in tables that it shares with others (tier row)
    rows        bigint,
    measured_at timestamptz NOT NULL,
    -- how full it is, as was told by an event: 0 without a limit, 1 below 80 %, 2 near, 3 full
    fullness    smallint NOT NULL DEFAULT 0 CHECK (fullness BETWEEN 0 AND 3)
);

-- What was measured before, so that nobody is measured again for it.
INSERT INTO pgusher.storage (tenant, bytes, measured_at)
    SELECT DISTINCT ON (s.tenant) s.tenant, s.bytes, s.measured_at
    FROM pgusher.usage_storage s JOIN pgusher.tenant t ON t.id = s.tenant
    ORDER BY s.tenant, s.hour DESC;
