-- How many statements run at the same time on each server of a cluster, by the name of proxy.toml; NULL or 0:
-- no limit.

ALTER TABLE pgusher.cluster
    ADD COLUMN max_running_statements integer CHECK (max_running_statements BETWEEN 0 AND 100000);
