-- Who keeps copies is told of every change of a tenant, its keys or its cluster. The number is
-- taken while the tenant's row is locked, so for one tenant the numbers are in the order of commits.

CREATE FUNCTION pgusher.tell_tenant() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_notify('pgusher_changes',
            json_build_object('tenant', OLD.id, 'generation', nextval('pgusher.generation'))::text);
        RETURN OLD;
    END IF;
    NEW.generation := nextval('pgusher.generation');
    NEW.updated_at := clock_timestamp();
    PERFORM pg_notify('pgusher_changes',
        json_build_object('tenant', NEW.id, 'generation', NEW.generation)::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON pgusher.tenant
    FOR EACH ROW EXECUTE FUNCTION pgusher.tell_tenant();

CREATE FUNCTION pgusher.tell_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    -- That a key was used changes nothing for who keeps a copy.
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'last_used_at' = to_jsonb(OLD) - 'last_used_at' THEN
        RETURN NULL;
    END IF;
    UPDATE pgusher.tenant SET updated_at = now()
        WHERE id IN (CASE WHEN TG_OP <> 'INSERT' THEN OLD.tenant END, CASE WHEN TG_OP <> 'DELETE' THEN NEW.tenant END);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON pgusher.api_key
    FOR EACH ROW EXECUTE FUNCTION pgusher.tell_key();

CREATE FUNCTION pgusher.tell_cluster() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_notify('pgusher_changes',
            json_build_object('cluster', OLD.name, 'generation', nextval('pgusher.generation'))::text);
        RETURN OLD;
    END IF;
    NEW.generation := nextval('pgusher.generation');
    NEW.updated_at := clock_timestamp();
    PERFORM pg_notify('pgusher_changes',
        json_build_object('cluster', NEW.name, 'generation', NEW.generation)::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON pgusher.cluster
    FOR EACH ROW EXECUTE FUNCTION pgusher.tell_cluster();

CREATE FUNCTION pgusher.tell_slot_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE pgusher.cluster SET updated_at = now()
        WHERE name IN (CASE WHEN TG_OP <> 'INSERT' THEN OLD.cluster END, CASE WHEN TG_OP <> 'DELETE' THEN NEW.cluster END);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON pgusher.slot_key
    FOR EACH ROW EXECUTE FUNCTION pgusher.tell_slot_key();
