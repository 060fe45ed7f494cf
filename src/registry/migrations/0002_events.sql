-- What happened, by whom, from where. Append-only, and chained: each event's hash covers the one
-- before it, so a changed, missing or inserted event shows. `pgusher audit verify` recomputes it.

CREATE TABLE pgusher.event (
    -- without gaps: it is given under the lock that makes the chain
    seq       bigint PRIMARY KEY,
    id        uuid NOT NULL UNIQUE,
    -- microseconds since 1970
    at_us     bigint NOT NULL,
    tenant    text,
    kind      text NOT NULL,
    -- "operator:<user>", "token:<id>", "key:<id>", "proxy"
    actor     text NOT NULL,
    address   text NOT NULL DEFAULT '',
    -- {"field": {"before": …, "after": …}}: folded in order they give the record. No secret.
    changes   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(changes) = 'object'),
    -- what else is worth knowing
    facts     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(facts) = 'object'),
    previous  bytea NOT NULL,
    hash      bytea NOT NULL
);
CREATE INDEX event_tenant ON pgusher.event (tenant, seq);
CREATE INDEX event_kind ON pgusher.event (kind, seq);

-- What is hashed: every field with its length before it, so that no two events look alike.
CREATE FUNCTION pgusher.event_text(e pgusher.event) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog AS $$
    SELECT string_agg(length(field) || ':' || field, ',' ORDER BY place)
    FROM unnest(ARRAY[e.seq::text, e.id::text, e.at_us::text, coalesce(e.tenant, ''), e.kind, e.actor,
        e.address, e.changes::text, e.facts::text]) WITH ORDINALITY AS fields (field, place)
$$;

CREATE FUNCTION pgusher.chain() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    last pgusher.event;
BEGIN
    -- One at a time, until the end of the transaction: the chain is in the order of commits.
    PERFORM pg_advisory_xact_lock(7202411);
    SELECT * INTO last FROM pgusher.event ORDER BY seq DESC LIMIT 1;
    NEW.seq := coalesce(last.seq, 0) + 1;
    NEW.previous := coalesce(last.hash, '\x'::bytea);
    NEW.hash := sha256(NEW.previous || convert_to(pgusher.event_text(NEW), 'UTF8'));
    RETURN NEW;
END
$$;
CREATE TRIGGER chain BEFORE INSERT ON pgusher.event FOR EACH ROW EXECUTE FUNCTION pgusher.chain();

CREATE FUNCTION pgusher.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed or removed' USING ERRCODE = '42501';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON pgusher.event
    FOR EACH STATEMENT EXECUTE FUNCTION pgusher.refuse();
