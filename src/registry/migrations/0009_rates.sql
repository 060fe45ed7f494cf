-- What a tenant, and each of its keys, may do at the same time and in a second, by the names of
-- proxy.toml; NULL or 0: no limit. max_waiting: NULL is the default, 0 is nobody.

ALTER TABLE pgusher.tenant
    ADD COLUMN max_concurrent_queries  integer CHECK (max_concurrent_queries BETWEEN 0 AND 1000000),
    ADD COLUMN max_waiting             integer CHECK (max_waiting BETWEEN 0 AND 1000000),
    ADD COLUMN transactions_per_second integer CHECK (transactions_per_second BETWEEN 0 AND 1000000),
    ADD COLUMN bytes_per_second        bigint CHECK (bytes_per_second BETWEEN 0 AND 1000000000000),
    ADD COLUMN logins_per_second       integer CHECK (logins_per_second BETWEEN 0 AND 1000000);

ALTER TABLE pgusher.api_key
    ADD COLUMN max_concurrent_queries  integer CHECK (max_concurrent_queries BETWEEN 0 AND 1000000),
    ADD COLUMN transactions_per_second integer CHECK (transactions_per_second BETWEEN 0 AND 1000000),
    ADD COLUMN bytes_per_second        bigint CHECK (bytes_per_second BETWEEN 0 AND 1000000000000),
    ADD COLUMN logins_per_second       integer CHECK (logins_per_second BETWEEN 0 AND 1000000);
