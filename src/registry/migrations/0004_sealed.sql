-- strict | compatible | sealed: how a cluster's databases are hardened
ALTER TABLE pgusher.cluster
    DROP CONSTRAINT cluster_profile_check,
    ADD CONSTRAINT cluster_profile_check CHECK (profile IN ('strict', 'compatible', 'sealed'));
