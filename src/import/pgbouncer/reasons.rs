//! Why a key of `[pgbouncer]` has no counterpart.

/// For keys that are told when they are there.
pub(super) const REASONS: &[(&str, &str)] = &[
    (
        "admin_users",
        "not taken over: pgusher has no console that these users could log in to",
    ),
    (
        "stats_users",
        "not taken over: pgusher has no console; its numbers are at admin.listen, /metrics",
    ),
    (
        "application_name_add_host",
        "not taken over: application_name reaches PostgreSQL as the client gave it",
    ),
    (
        "auth_dbname",
        "not taken over: there is no auth_query whose database it could be",
    ),
    (
        "auth_hba_file",
        "not taken over: give each key its addresses in \"allow\"",
    ),
    (
        "auth_ident_file",
        "not taken over: clients log in as a tenant, not as a system user",
    ),
    (
        "auth_ldap_options",
        "not taken over: every client needs a key of its tenant",
    ),
    (
        "auth_query",
        "not taken over: users that are not in the auth_file have no key; make each one: pgusher key create",
    ),
    (
        "auth_user",
        "not taken over: users that are not in the auth_file have no key; make each one: pgusher key create",
    ),
    (
        "autodb_idle_timeout",
        "not needed: pools that nobody uses go by themselves",
    ),
    (
        "cancel_wait_timeout",
        "not needed: a cancel request does not wait for a place in the pool",
    ),
    (
        "client_tls_ciphers",
        "not taken over: pgusher uses the secure ciphers of TLS 1.2 and 1.3",
    ),
    (
        "client_tls13_ciphers",
        "not taken over: pgusher uses the secure ciphers of TLS 1.3",
    ),
    (
        "client_tls_dheparams",
        "not taken over: pgusher uses elliptic curves",
    ),
    (
        "client_tls_ecdhcurve",
        "not taken over: pgusher uses the usual curves",
    ),
    (
        "client_tls_protocols",
        "not taken over: pgusher uses TLS 1.2 and 1.3",
    ),
    (
        "server_tls_ciphers",
        "not taken over: pgusher uses the secure ciphers of TLS 1.2 and 1.3",
    ),
    (
        "server_tls13_ciphers",
        "not taken over: pgusher uses the secure ciphers of TLS 1.3",
    ),
    (
        "server_tls_protocols",
        "not taken over: pgusher uses TLS 1.2 and 1.3",
    ),
    (
        "conffile",
        "not needed: pgusher is given its file with --config",
    ),
    (
        "disable_pqexec",
        "not taken over: pgusher takes the simple protocol as well",
    ),
    (
        "dns_max_ttl",
        "not taken over: names are resolved by the system for each connection",
    ),
    (
        "dns_nxdomain_ttl",
        "not taken over: names are resolved by the system for each connection",
    ),
    (
        "dns_zone_check_period",
        "not taken over: names are resolved by the system for each connection",
    ),
    (
        "resolv_conf",
        "not taken over: names are resolved by the system",
    ),
    (
        "ignore_startup_parameters",
        "not needed: pgusher gives startup parameters to PostgreSQL instead of ignoring them; name in \"forced\" what clients may not set",
    ),
    (
        "track_extra_parameters",
        "not needed: pgusher carries every setting of a session along",
    ),
    ("job_name", "not taken over: it names a Windows service"),
    ("service_name", "not taken over: it names a Windows service"),
    ("listen_backlog", "not taken over: pgusher has its own"),
    ("log_connections", "not taken over: see proxy.log_level"),
    ("log_disconnections", "not taken over: see proxy.log_level"),
    ("log_pooler_errors", "not taken over: see proxy.log_level"),
    (
        "log_stats",
        "not taken over: numbers are at admin.listen, /metrics",
    ),
    (
        "stats_period",
        "not taken over: numbers are at admin.listen, /metrics",
    ),
    ("logfile", "not taken over: pgusher logs to stderr"),
    ("syslog", "not taken over: pgusher logs to stderr"),
    ("syslog_facility", "not taken over: pgusher logs to stderr"),
    ("syslog_ident", "not taken over: pgusher logs to stderr"),
    ("verbose", "not taken over: see proxy.log_level"),
    ("pidfile", "not taken over: pgusher stays in the foreground"),
    (
        "user",
        "not taken over: start pgusher as the user that it should be",
    ),
    (
        "login_notify_message",
        "not taken over: pgusher sends no notice at login",
    ),
    (
        "query_wait_notify",
        "not taken over: a client that waits gets no notice",
    ),
    (
        "max_packet_size",
        "not taken over: a message may be as long as PostgreSQL takes it",
    ),
    (
        "peer_id",
        "not taken over: pgusher does not pass cancel requests on to other processes",
    ),
    (
        "so_reuseport",
        "not needed: one pgusher uses all cores, see proxy.workers",
    ),
    ("pkt_buf", "not taken over: pgusher has buffers of its own"),
    (
        "sbuf_loopcnt",
        "not taken over: pgusher has buffers of its own",
    ),
    (
        "pool_idle_timeout",
        "not needed: pools that nobody uses go by themselves",
    ),
    (
        "scram_iterations",
        "not taken over: a verifier has the iterations that it was made with, 4096 for plain passwords",
    ),
    (
        "server_fast_close",
        "not taken over: a changed cluster ends sessions at the end of their transaction",
    ),
    (
        "server_login_retry",
        "not taken over: pgusher tries again with a growing pause",
    ),
    (
        "server_reset_query",
        "not needed: pgusher finds out what a session left, and resets that",
    ),
    (
        "server_reset_query_always",
        "not needed: pgusher finds out what a session left, and resets that",
    ),
    (
        "server_round_robin",
        "not taken over: the server that was used last is used first",
    ),
    ("suspend_timeout", "not taken over: there is no SUSPEND"),
    (
        "tcp_defer_accept",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_keepalive",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_keepcnt",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_keepidle",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_keepintvl",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_socket_buffer",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "tcp_user_timeout",
        "not taken over: pgusher sets TCP options itself",
    ),
    (
        "unix_socket_mode",
        "not taken over: the socket file gets its mode from the umask",
    ),
    (
        "unix_socket_group",
        "not taken over: the socket file gets the group of the process",
    ),
];
