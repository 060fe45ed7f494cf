-- How many statements run at the same time on each server of a cluster is found, by the names of proxy.toml; NULL:
-- it is unless max_running_statements is given, and 2.

ALTER TABLE pgusher.cluster
    ADD COLUMN adaptive_running_statements boolean,
    ADD COLUMN min_running_statements integer CHECK (min_running_statements BETWEEN 1 AND 100000);
