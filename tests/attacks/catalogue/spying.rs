//! To read how the victim's things are defined, what is known of its values, and what others say.

use crate::attack::{ALL, Act, Act::Sql, Attack, Class::Read, OWN, SCHEMA, TOGETHER};

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "function_source",
        Read,
        SCHEMA,
        Sql(&[
            "select prosrc from pg_proc where proname = 'whisper'",
            "select routine_definition from information_schema.routines",
            "select pg_get_functiondef(oid) from pg_proc where proname = 'whisper'",
        ]),
    ),
    Attack::new(
        "function_body",
        Read,
        SCHEMA,
        Sql(&[
            "select prosqlbody, proargdefaults from pg_proc where proname = 'murmur'",
            "select pg_get_function_sqlbody(oid) from pg_proc where proname = 'murmur'",
            "select pg_get_function_arg_default(oid, 1) from pg_proc where proname = 'murmur'",
        ]),
    ),
    Attack::new(
        "function_arguments",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_function_arguments(oid) from pg_proc where proname = 'murmur'",
            "select parameter_default from information_schema.parameters",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "view_definition",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_viewdef(oid) from pg_class where relname = 'glance'",
            "select definition from pg_views",
            "select definition from pg_matviews",
            "select view_definition from information_schema.views",
        ]),
    ),
    Attack::new(
        "rewrite_rules",
        Read,
        SCHEMA,
        Sql(&[
            "select ev_action, ev_qual from pg_rewrite",
            "select pg_get_ruledef(oid) from pg_rewrite",
            "select definition from pg_rules",
        ]),
    ),
    Attack::new(
        "column_defaults",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_expr(adbin, adrelid) from pg_attrdef",
            "select column_default from information_schema.columns",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "check_constraints",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_constraintdef(oid) from pg_constraint",
            "select pg_get_expr(conbin, conrelid) from pg_constraint",
            "select check_clause from information_schema.check_constraints",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "index_expressions",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_indexdef(indexrelid) from pg_index",
            "select pg_get_expr(indpred, indrelid) from pg_index",
            "select indexdef from pg_indexes",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "trigger_conditions",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_triggerdef(oid) from pg_trigger",
            "select tgqual from pg_trigger",
            "select action_condition from information_schema.triggers",
        ]),
    ),
    Attack::new(
        "policy_texts",
        Read,
        SCHEMA,
        Sql(&[
            "select qual, with_check from pg_policies",
            "select pg_get_expr(polqual, polrelid) from pg_policy",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "partition_bounds",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_expr(relpartbound, oid) from pg_class",
            "select pg_get_partition_constraintdef(oid) from pg_class",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "domain_defaults",
        Read,
        SCHEMA,
        Sql(&[
            "select typdefault from pg_type where typtype = 'd'",
            "select domain_default from information_schema.domains",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "statistics_expressions",
        Read,
        SCHEMA,
        Sql(&[
            "select pg_get_statisticsobjdef(oid) from pg_statistic_ext",
            "select pg_get_statisticsobjdef_expressions(oid) from pg_statistic_ext",
            "select expr from pg_stats_ext_exprs",
        ]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "publication_filters",
        Read,
        SCHEMA,
        Sql(&[
            "select rowfilter from pg_publication_tables",
            "select pg_get_expr(prqual, prrelid) from pg_publication_rel",
        ]),
    ),
    Attack::new(
        "comments",
        Read,
        SCHEMA,
        Sql(&[
            "select description from pg_description",
            "select obj_description({table_oid}, 'pg_class')",
            "select obj_description(oid) from pg_class where relname = 'drafts'",
        ]),
    )
    .residual("hole comments"),
    Attack::new(
        "trees_in_error_context",
        Read,
        SCHEMA,
        Sql(&[
            "set debug_print_parse = on; set client_min_messages = log; select * from {schema}.glance",
            "select {schema}.glance::text from {schema}.glance",
        ]),
    ),
    Attack::new(
        "planner_statistics",
        Read,
        TOGETHER,
        Sql(&[
            "select most_common_vals, histogram_bounds from pg_stats where schemaname <> 'pg_catalog'",
            "select stavalues1, stavalues2 from pg_statistic",
            "select * from pg_stats_ext",
        ]),
    ),
    Attack::new(
        "catalogue_statistics",
        Read,
        SCHEMA,
        Sql(&["analyze pg_catalog.pg_type; select most_common_vals, histogram_bounds from pg_stats where schemaname = 'pg_catalog'"]),
    )
    .residual("hole object_texts"),
    Attack::new(
        "role_settings",
        Read,
        OWN,
        Sql(&[
            "select setconfig from pg_db_role_setting",
            "select rolconfig from pg_roles",
            "select useconfig from pg_user",
        ]),
    ),
    Attack::new(
        "user_mappings",
        Read,
        TOGETHER,
        Act::Own(|scene| {
            let mapping = [
                "create extension if not exists postgres_fdw",
                "create server {schema}_far foreign data wrapper postgres_fdw options (host '{canary}')",
                "create user mapping for current_user server {schema}_far options (password '{canary}')",
            ];
            for sql in mapping {
                scene.stage.victim_says(sql);
            }
            scene.say("select srvoptions from pg_foreign_server");
            scene.say("select umoptions from pg_user_mappings");
            scene.stage.victim_says("drop server {schema}_far cascade");
            None
        }),
    ),
    Attack::new(
        "password_hashes",
        Read,
        ALL,
        Act::Refused(&["select rolname, rolpassword from pg_authid"]),
    ),
    Attack::new(
        "password_hashes_by_view",
        Read,
        ALL,
        Act::Refused(&["select * from pg_shadow"]),
    ),
    Attack::new(
        "key_table",
        Read,
        ALL,
        Act::Own(|scene| {
            // Keys that make tokens for slots stand in a table that nobody but the control role reads.
            let tables = scene
                .say(
                    "select format('select * from ctl.%I', relname) from pg_class \
            where relnamespace = to_regnamespace('ctl') and relkind in ('r', 'v')",
                )
                .values();
            let mut tables = tables
                .iter()
                .filter(|sql| !scene.say(sql).values().is_empty());
            tables.next().cloned()
        }),
    )
    .unproven("no naive set-up has such a table"),
    Attack::new(
        "sizes_by_catalogue",
        Read,
        SCHEMA,
        Act::Gauge(
            "select relname || ' ' || reltuples || ' ' || relpages from pg_class where relname = 'measured' and relnamespace = to_regnamespace('{schema}')",
            &[
                "insert into measured select n, 'more' from generate_series(1, 2000) n",
                "analyze measured",
            ],
        ),
    ),
];
