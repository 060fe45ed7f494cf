-- What the admin notes about a database. Nobody else may look.
CREATE SCHEMA IF NOT EXISTS pgusher;
CREATE TABLE IF NOT EXISTS pgusher.prepared (
    is_one         boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    level          int,
    profile        text,
    kind           text,
    server_version int
);
INSERT INTO pgusher.prepared DEFAULT VALUES ON CONFLICT DO NOTHING;
