-- Plans: bundles of limits and monthly quotas, by the names of proxy.toml; 0 is no limit. A plan of
-- this table stands over one of the same name in a proxy's file, and that over a preset.

CREATE TABLE pgusher.plan (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9_-]{1,63}$' AND name <> 'custom'),
    terms      jsonb NOT NULL CHECK (jsonb_typeof(terms) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION pgusher.tell_plan() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('pgusher_changes', json_build_object('plan',
        CASE WHEN TG_OP = 'DELETE' THEN OLD.name ELSE NEW.name END,
        'generation', nextval('pgusher.generation'))::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON pgusher.plan
    FOR EACH ROW EXECUTE FUNCTION pgusher.tell_plan();

-- Who was given no plan is limited by none. Rows that are there keep theirs.
ALTER TABLE pgusher.tenant
    ALTER COLUMN plan SET DEFAULT 'custom',
    -- NULL: as the plan says; 0: no limit
    ADD COLUMN queries_per_month      bigint CHECK (queries_per_month BETWEEN 0 AND 1000000000000000),
    ADD COLUMN transactions_per_month bigint CHECK (transactions_per_month BETWEEN 0 AND 1000000000000000),
    ADD COLUMN trial_ends_at          timestamptz;

-- Which quotas were reached in which month (when it begins), so that each is told of once.
CREATE TABLE pgusher.quota_reached (
    tenant     text NOT NULL,
    quota      text NOT NULL,
    level      text NOT NULL CHECK (level IN ('soft', 'hard')),
    month      timestamptz NOT NULL,
    reached_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, quota, level, month)
);

CREATE INDEX quota_reached_month ON pgusher.quota_reached (month);
