-- Numbers of a tenant's own in place of sequences, whose values would show how much others write and
-- which anyone could use up. A row is locked until the end of the transaction that took a number.
CREATE TABLE data.pgusher_counter (
    tenant_id text NOT NULL DEFAULT ctl.tenant(),
    name      text NOT NULL CHECK (length(name) <= 200),
    value     bigint NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
ALTER TABLE data.pgusher_counter OWNER TO pgusher_data;
ALTER TABLE data.pgusher_counter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY,
    ALTER tenant_id SET STATISTICS 0, ALTER name SET STATISTICS 0, ALTER value SET STATISTICS 0;
CREATE POLICY tenant ON data.pgusher_counter TO PUBLIC
    USING (tenant_id = (SELECT ctl.tenant())) WITH CHECK (tenant_id = (SELECT ctl.tenant()));
GRANT SELECT (tenant_id, name, value), INSERT (tenant_id, name, value), UPDATE (value) ON data.pgusher_counter TO pgusher_del;
CREATE TRIGGER refuse_read_only BEFORE INSERT OR UPDATE OR DELETE ON data.pgusher_counter FOR EACH STATEMENT
    WHEN (session_user OPERATOR(pg_catalog.^@) 'r_' OR session_user OPERATOR(pg_catalog.^@) 'q_')
    EXECUTE FUNCTION ctl.refuse_read_only();
CREATE FUNCTION ctl.next_number(counter text) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO data.pgusher_counter AS c (tenant_id, name, value) VALUES (ctl.tenant(), counter, 1)
    ON CONFLICT (tenant_id, name) DO UPDATE SET value = c.value + 1 RETURNING value;
END;
ALTER FUNCTION ctl.next_number(text) OWNER TO pgusher_del;
REVOKE ALL ON FUNCTION ctl.next_number(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ctl.next_number(text) TO PUBLIC
