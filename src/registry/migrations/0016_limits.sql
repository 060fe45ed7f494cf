-- Transactions in an hour, by the name of proxy.toml; NULL or 0: no limit.

ALTER TABLE pgusher.tenant
    ADD COLUMN transactions_per_hour integer CHECK (transactions_per_hour BETWEEN 0 AND 1000000000);

ALTER TABLE pgusher.api_key
    ADD COLUMN transactions_per_hour integer CHECK (transactions_per_hour BETWEEN 0 AND 1000000000);
