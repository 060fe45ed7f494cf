-- What a tenant may count on of its cluster's server connections, by the names of proxy.toml; NULL: the default.

ALTER TABLE pgusher.tenant
    ADD COLUMN guaranteed_servers integer CHECK (guaranteed_servers BETWEEN 0 AND 10000),
    ADD COLUMN weight             integer CHECK (weight BETWEEN 1 AND 1000);
