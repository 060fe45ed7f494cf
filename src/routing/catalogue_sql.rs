//! The questions that a [`super::Catalogue`] is made of, as SQL.
//!
//! Each is one Query whose last result counts: rows of kind, schema, name and whether it is free to
//! run on a standby ([`super::Fact`]). Asked as the role that logged in.

use super::Builtins;
use crate::sql::quoted_literal;

/// Stands before each question: the path and the role are the client's, and set aside for the
/// transaction that a Query is.
const ASIDE: &str = "SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;SET LOCAL jit=off;";

/// Functions of PostgreSQL's own that are volatile, and mean the same on any server.
const SAME_ANYWHERE: &str = "random random_normal clock_timestamp timeofday gen_random_uuid uuidv4 \
    uuidv7 pg_sleep pg_sleep_for pg_sleep_until";

/// Functions that aren't volatile, and yet tell of one server or session, take a number that only the
/// primary gives, or read what they are given as a value.
const NOT_ANYWHERE: &str = "inet_server_addr inet_server_port inet_client_addr inet_client_port \
    pg_backend_pid pg_conf_load_time pg_postmaster_start_time pg_current_snapshot pg_current_xact_id \
    pg_current_xact_id_if_assigned txid_current txid_current_if_assigned txid_current_snapshot \
    pg_cursor pg_prepared_statement pg_get_replication_slots pg_replication_origin_oid \
    pg_listening_channels pg_show_all_settings \
    pg_tablespace_databases pg_walfile_name pg_walfile_name_offset ts_rewrite ts_stat crosstab \
    crosstab2 crosstab3 crosstab4 crosstabn connectby xpath_table";

/// The same, by how their names begin or end.
const NOT_ANYWHERE_LIKE: &str = r"'^(pg_stat_(?!istics)|dblink)|_to_xml'";

/// What a role may see of a database's definitions: a row of two booleans, for [`Sight`].
pub const SIGHT: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_rewrite','SELECT'),\
    pg_catalog.has_column_privilege('pg_catalog.pg_policy','polqual','SELECT')";

/// What [`SIGHT`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Whether the definitions of views can be read. Else every view is the primary's.
    pub views: bool,
    /// Whether the expressions of policies can be read. Else a function of PostgreSQL's own in one
    /// isn't seen; those of the tenant's are.
    pub policies: bool,
}

/// Which part of a database is a tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Database,
    /// The schemas that its role may use.
    Schemas,
}

/// The question for what comes with PostgreSQL: the same in all databases of a server, so once per
/// version of a server. Some 3000 rows.
pub fn builtins_sql() -> String {
    let functions = functions(&[]);
    let all = Sight {
        views: true,
        policies: true,
    };
    let relations = relations("k.oid<16384 AND n.nspname<>'pg_toast'", all, "false");
    format!(
        "{ASIDE}WITH RECURSIVE fn AS MATERIALIZED {functions},{relations}
        SELECT 'f',nspname,proname,bool_and(free) FROM fn WHERE oid<16384 AND prokind<>'p' GROUP BY 2,3
        UNION ALL SELECT 'o',n.nspname,o.oprname,bool_and(coalesce(f.free,false))
            FROM pg_operator o JOIN pg_namespace n ON n.oid=o.oprnamespace LEFT JOIN fn f ON f.oid=o.oprcode
            WHERE o.oid<16384 GROUP BY 2,3
        UNION ALL SELECT DISTINCT 'r',r.nspname,r.relname,false FROM bound b JOIN rel r ON r.oid=b.oid"
    )
}

/// The question for what a tenant has in its database: all functions and operators that aren't
/// PostgreSQL's own, and those relations, domains and casts that keep a statement on the primary.
/// Functions of these schemas that aren't volatile are taken for what they say they are.
///
/// What comes with PostgreSQL ([`builtins_sql`]) is to be known by then.
pub fn catalogue_sql(builtins: &Builtins, reach: Reach, sight: Sight, trusted: &[&str]) -> String {
    let sees = |schema: &str| match reach {
        Reach::Database => "true".to_owned(),
        Reach::Schemas => format!("has_schema_privilege({schema},'USAGE')"),
    };
    let functions = functions(trusted);
    let bound: Vec<_> = (builtins.bound_relations().chain([""]))
        .map(quoted_literal)
        .collect();
    let relations = relations(
        &format!(
            "k.oid>=16384 AND n.nspname!~'^pg_(toast|temp)' AND {}",
            sees("n.oid")
        ),
        sight,
        &format!("relname IN ({})", bound.join(",")),
    );
    let (sees_function, sees_operator, sees_type) = (
        sees("pronamespace"),
        sees("o.oprnamespace"),
        sees("t.typnamespace"),
    );
    let limit = super::FACTS_MAX + 1;
    format!(
        "{ASIDE}WITH RECURSIVE fn AS NOT MATERIALIZED {functions},{relations},
    domain(oid) AS (
        SELECT c.contypid FROM pg_constraint c JOIN pg_depend d ON d.classid='pg_constraint'::regclass
            AND d.objid=c.oid AND d.refclassid='pg_proc'::regclass JOIN fn f ON f.oid=d.refobjid
            WHERE c.contypid<>0 AND NOT f.free
        UNION
        SELECT t.oid FROM domain x, LATERAL (
            SELECT oid FROM pg_type WHERE typbasetype=x.oid OR typelem=x.oid
            UNION ALL SELECT k.reltype FROM pg_attribute a JOIN pg_class k ON k.oid=a.attrelid
                WHERE a.atttypid=x.oid AND k.reltype<>0) t)
    SELECT * FROM (
        SELECT 'f',nspname,proname,bool_and(free) FROM fn
            WHERE oid>=16384 AND prokind<>'p' AND {sees_function} GROUP BY 2,3
        UNION ALL SELECT DISTINCT 'a',nspname,proname,false FROM fn JOIN pg_type t ON t.oid=first_argument
            WHERE fn.oid>=16384 AND NOT free AND least_arguments<=1 AND t.typtype IN ('c','p','d') AND {sees_function}
        UNION ALL SELECT 'o',n.nspname,o.oprname,bool_and(coalesce(f.free,false))
            FROM pg_operator o JOIN pg_namespace n ON n.oid=o.oprnamespace LEFT JOIN fn f ON f.oid=o.oprcode
            WHERE o.oid>=16384 AND {sees_operator} GROUP BY 2,3
        UNION ALL SELECT DISTINCT 'r',r.nspname,r.relname,false FROM bound b JOIN rel r ON r.oid=b.oid
        UNION ALL SELECT 't',n.nspname,t.typname,false FROM domain d JOIN pg_type t ON t.oid=d.oid
            JOIN pg_namespace n ON n.oid=t.typnamespace WHERE {sees_type}
        UNION ALL SELECT DISTINCT 'c','','',false FROM pg_cast c JOIN fn f ON f.oid=c.castfunc
            WHERE c.oid>=16384 AND NOT f.free) facts LIMIT {limit}"
    )
}

fn list(names: &str) -> String {
    let quoted = names.split(' ').map(quoted_literal);
    quoted.collect::<Vec<_>>().join(",")
}

/// What `fn` is: every function, and whether it is free. Where few of them matter it is not made in
/// whole.
fn functions(trusted: &[&str]) -> String {
    let (same, not) = (list(SAME_ANYWHERE), list(NOT_ANYWHERE));
    let trusted = trusted.iter().map(|schema| quoted_literal(schema));
    let trusted: Vec<_> = trusted.chain(["'pg_catalog'".to_owned()]).collect();
    let trusted = trusted.join(",");
    // Only a superuser makes functions in C, and extensions are what their authors say.
    format!(
        "(SELECT p.oid,n.nspname,p.proname,p.pronamespace,p.prokind,
            p.proargtypes[0] AS first_argument,CASE WHEN p.pronargs=0 THEN 2 ELSE p.pronargs-p.pronargdefaults END AS least_arguments,
            CASE WHEN p.proname IN ({not}) OR p.proname ~ {NOT_ANYWHERE_LIKE} THEN false
            WHEN p.oid<16384 AND p.proname IN ({same}) THEN true
            WHEN p.provolatile='v' THEN false
            ELSE p.oid<16384 OR n.nspname IN ({trusted}) OR l.lanname IN ('c','internal') AND p.prokind<>'a'
                OR EXISTS(SELECT FROM pg_depend d WHERE d.classid='pg_proc'::regclass AND d.objid=p.oid
                    AND d.refclassid='pg_extension'::regclass AND d.deptype='e') END AS free
            FROM pg_proc p JOIN pg_namespace n ON n.oid=p.pronamespace JOIN pg_language l ON l.oid=p.prolang)"
    )
}

/// `rel`: relations of a part of the database; `bound`: those of them that keep a statement on the
/// primary. Foreign tables and sequences differ on a standby, unlogged and temporary tables aren't
/// there; views and policies may call functions; a table is read with its partitions and children.
/// `bound` is a condition for what is known to be so of PostgreSQL's own.
fn relations(part: &str, sight: Sight, bound: &str) -> String {
    let views = if sight.views {
        "SELECT k.oid,r.ev_action::text AS tree FROM rel k JOIN pg_rewrite r ON r.ev_class=k.oid
            WHERE k.relkind='v' AND r.ev_type='1'"
    } else {
        "SELECT NULL::oid,NULL::text WHERE false"
    };
    let policies = if sight.policies {
        "SELECT k.oid,p.polqual::text FROM rel k JOIN pg_policy p ON p.polrelid=k.oid"
    } else {
        "SELECT NULL::oid,NULL::text WHERE false"
    };
    let unseen = if sight.views {
        "false"
    } else {
        "k.relkind='v'"
    };
    format!(
        "rel AS MATERIALIZED (SELECT k.oid,n.nspname,k.relname,k.relkind,k.relpersistence FROM pg_class k
            JOIN pg_namespace n ON n.oid=k.relnamespace WHERE k.relkind IN ('r','v','m','f','p','S') AND {part}),
    tree(oid,tree) AS MATERIALIZED ({views} UNION ALL {policies}),
    part AS MATERIALIZED (SELECT t.oid,m[1] AS word,m[2]::oid AS part
        FROM tree t,regexp_matches(t.tree,E':(funcid|opfuncid|aggfnoid|winfnoid|relid) (\\\\d+)','g') m),
    edge(oid,part) AS MATERIALIZED (SELECT oid,part FROM part WHERE word='relid'
        UNION SELECT r.ev_class,d.refobjid FROM pg_depend d JOIN {rules} r ON r.oid=d.objid
            WHERE d.classid='pg_rewrite'::regclass AND d.refclassid='pg_class'::regclass AND d.refobjid<>r.ev_class
        UNION SELECT inhparent,inhrelid FROM pg_inherits),
    bound(oid) AS (
        SELECT k.oid FROM rel k WHERE k.relkind IN ('f','S') OR k.relpersistence<>'p' OR {unseen}
        UNION SELECT p.oid FROM part p JOIN fn f ON f.oid=p.part WHERE p.word<>'relid' AND NOT f.free
        UNION SELECT k.oid FROM rel k JOIN pg_policy p ON p.polrelid=k.oid JOIN pg_depend d
            ON d.classid='pg_policy'::regclass AND d.objid=p.oid AND d.refclassid='pg_proc'::regclass
            JOIN fn f ON f.oid=d.refobjid WHERE NOT f.free
        UNION SELECT oid FROM pg_class WHERE oid<16384 AND {bound}
        UNION SELECT e.oid FROM bound b JOIN edge e ON e.part=b.oid)",
        rules = if sight.views {
            "pg_rewrite"
        } else {
            "(SELECT NULL::oid AS oid,NULL::oid AS ev_class)"
        },
    )
}
