-- Until when no transaction begins on the primary, for a planned change of it; NULL: it is not paused.

ALTER TABLE pgusher.cluster
    ADD COLUMN paused_until timestamptz;
