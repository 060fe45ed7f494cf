//! What pgusher does, seen from outside: the program, real PostgreSQL, real clients.
//!
//! One module a behaviour. Each test starts a proxy of its own; PostgreSQL is started once for all
//! of them, except where a test ends it. `PGUSHER_TEST_DIRECT=1` leaves the proxy out, which shows
//! what PostgreSQL itself answers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::exit,
    unreachable_pub,
    dead_code,
    reason = "a test ends when something is not as it should be"
)]

mod activation;
mod admin;
mod admin_tls;
mod api_access;
mod api_config;
mod api_desk;
mod api_document;
mod api_figures;
mod api_hostile;
mod api_once;
mod api_tenants;
mod audit;
mod auth;
mod bad_input;
mod big;
mod budget;
mod cancel;
mod changed_columns;
mod churn;
mod cluster_links;
mod cluster_pause;
mod cluster_reports;
mod concurrency;
mod concurrent_queries;
mod context;
mod control_clusters;
mod control_keys;
mod control_lifecycle;
mod control_tenants;
mod copy;
mod costs;
mod drivers;
mod encryption;
mod failure;
mod flood;
mod forgetting;
mod function_call;
mod harness;
mod hidden_state;
mod hostile_state;
mod hostile_timing;
mod hourly;
mod import;
mod import_registry;
mod import_served;
mod key_changes;
mod key_uses;
mod leavings;
mod listen;
mod listen_encodings;
mod listen_losses;
mod listen_own;
mod lock_watch;
mod many_commands;
mod migrate_tenants;
mod modes;
mod names_in_sql;
mod notify_hub;
mod operations;
mod own_settings;
mod pin_limits;
mod pins;
mod pipelining;
mod places;
mod plain_errors;
mod plans;
mod prepared;
mod profiles;
mod protect;
mod quotas;
mod random_sessions;
mod rates;
mod reads;
mod registry_changes;
mod registry_home;
mod registry_newcomers;
mod registry_outages;
mod relay_extended;
mod relay_simple;
mod reload;
mod replica_settings;
mod replicas;
mod resources;
mod restart;
mod routing;
mod running;
mod secrets;
mod server_voice;
mod setting_values;
mod settings;
mod shutdown;
mod slots;
mod sql_prepare;
mod startup;
mod storage;
mod storage_measured;
mod sweeps;
mod templates;
mod tenant_metrics;
mod tenants;
mod timeouts;
mod tools;
mod topology;
mod upstream;
mod usage;
mod verification;
