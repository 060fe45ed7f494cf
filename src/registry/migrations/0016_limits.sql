-- Transactions in an hour, by the name of proxy.toml; NULL or 0: no limit. How long a client may take nothing of
-- its answer, in milliseconds; NULL is the default, 0 is no limit.

ALTER TABLE pgusher.tenant
    ADD COLUMN transactions_per_hour integer CHECK (transactions_per_hour BETWEEN 0 AND 1000000000),
    ADD COLUMN client_write_timeout  bigint;

ALTER TABLE pgusher.api_key
    ADD COLUMN transactions_per_hour integer CHECK (transactions_per_hour BETWEEN 0 AND 1000000000);
