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

/// Views of PostgreSQL's own that show nothing but its tables.
const COMMON_VIEWS: &str = "pg_tables pg_views pg_matviews pg_indexes pg_rules pg_policies pg_roles \
    pg_user pg_group pg_stats pg_publication_tables pg_timezone_names pg_timezone_abbrevs";

/// What a role may see of a database's definitions: a row of two booleans, for [`Sight`].
pub const SIGHT: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_rewrite','SELECT'),\
    pg_catalog.has_column_privilege('pg_catalog.pg_policy','polqual','SELECT')";

/// What [`SIGHT`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Whether the definitions of views can be read. Else views of the role's own are bound to the
    /// primary, and others' (an operator's) by the functions and relations that `pg_depend` knows: not
    /// by functions of PostgreSQL's own.
    pub views: bool,
    /// Whether the expressions of policies can be read. Else they count as others' views do.
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
pub fn builtins_sql(sight: Sight) -> String {
    let functions = functions(&[]);
    let unseen = if sight.views {
        "false".to_owned()
    } else {
        format!(
            "k.relkind='v' AND k.nspname='pg_catalog' AND k.relname NOT IN ({})",
            list(COMMON_VIEWS)
        )
    };
    let policies = false;
    let sight = Sight { policies, ..sight };
    let part = "k.oid<16384 AND n.nspname<>'pg_toast'";
    let relations = relations(part, sight, &unseen, "false");
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
    let unseen = if sight.views {
        "false"
    } else {
        "k.relkind='v' AND pg_has_role(k.relowner,'MEMBER')"
    };
    // A view may stand on what its reader may not use, so those schemas count, too.
    let part = "k.oid>=16384 AND n.nspname!~'^pg_(toast|temp)'";
    let known = format!("relname IN ({})", bound.join(","));
    let relations = relations(part, sight, unseen, &known);
    let sees_relation = sees("r.schema");
    let (sees_function, sees_operator, sees_type) = (
        sees("pronamespace"),
        sees("o.oprnamespace"),
        sees("t.typnamespace"),
    );
    let limit = super::FACTS_MAX + 1;
    format!(
        "{ASIDE}WITH RECURSIVE fn AS NOT MATERIALIZED {functions},{relations},
    domain(oid) AS (
        SELECT c.contypid FROM used u JOIN pg_constraint c ON c.oid=u.oid
            WHERE u.class='pg_constraint'::regclass AND c.contypid<>0
        UNION SELECT casttarget FROM pg_cast c JOIN fn f ON f.oid=c.castfunc WHERE c.oid>=16384 AND NOT f.free
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
        UNION ALL SELECT DISTINCT 'r',r.nspname,r.relname,false FROM bound b JOIN rel r ON r.oid=b.oid WHERE {sees_relation}
        UNION ALL SELECT 't',n.nspname,t.typname,false FROM domain d JOIN pg_type t ON t.oid=d.oid
            JOIN pg_namespace n ON n.oid=t.typnamespace WHERE {sees_type}
        UNION ALL SELECT DISTINCT 'c','','',false FROM pg_cast c JOIN fn f ON f.oid=c.castfunc
            WHERE c.oid>=16384 AND NOT f.free AND (castcontext='i' OR casttarget='json'::regtype)) facts LIMIT {limit}"
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
/// `used` are rules, policies and checks that call one that isn't free, as `pg_depend` knows them: all
/// but functions of PostgreSQL's own. `unseen` is a condition for what is bound as it can't be seen,
/// `known` one for what is known to be of PostgreSQL's own.
fn relations(part: &str, sight: Sight, unseen: &str, known: &str) -> String {
    let none = "SELECT NULL::oid,NULL::text WHERE false";
    let views = if sight.views {
        "SELECT k.oid,r.ev_action::text FROM rel k JOIN pg_rewrite r ON r.ev_class=k.oid
            WHERE k.relkind='v' AND r.ev_type='1'"
    } else {
        none
    };
    let policies = if sight.policies {
        "SELECT k.oid,p.polqual::text FROM rel k JOIN pg_policy p ON p.polrelid=k.oid WHERE p.polcmd IN ('r','*')"
    } else {
        none
    };
    format!(
        "rel AS MATERIALIZED (SELECT k.oid,n.nspname,k.relname,k.relkind,k.relpersistence,k.relowner,n.oid AS schema FROM pg_class k
            JOIN pg_namespace n ON n.oid=k.relnamespace WHERE k.relkind IN ('r','v','m','f','p','S') AND {part}),
    tree(oid,tree) AS MATERIALIZED ({views} UNION ALL {policies}),
    part AS MATERIALIZED (SELECT t.oid,m[1] AS word,m[2]::oid AS part
        FROM tree t,regexp_matches(t.tree,E':(funcid|opfuncid|aggfnoid|winfnoid|relid) (\\\\d+)','g') m),
    rule(oid,view) AS MATERIALIZED (SELECT d.objid,d.refobjid FROM pg_depend d JOIN pg_class k ON k.oid=d.refobjid
        WHERE d.classid='pg_rewrite'::regclass AND d.refclassid='pg_class'::regclass AND d.deptype='i' AND k.relkind='v'),
    used(class,oid) AS MATERIALIZED (SELECT d.classid,d.objid FROM pg_depend d LEFT JOIN pg_operator o
            ON d.refclassid='pg_operator'::regclass AND o.oid=d.refobjid
        JOIN fn f ON f.oid=CASE WHEN d.refclassid='pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
        WHERE d.classid IN ('pg_rewrite'::regclass,'pg_policy'::regclass,'pg_constraint'::regclass)
            AND d.refclassid IN ('pg_proc'::regclass,'pg_operator'::regclass) AND NOT f.free),
    edge(oid,part) AS MATERIALIZED (SELECT oid,part FROM part WHERE word='relid'
        UNION SELECT r.view,d.refobjid FROM pg_depend d JOIN rule r ON r.oid=d.objid
            WHERE d.classid='pg_rewrite'::regclass AND d.refclassid='pg_class'::regclass AND d.refobjid<>r.view
        UNION SELECT inhparent,inhrelid FROM pg_inherits),
    bound(oid) AS (
        SELECT k.oid FROM rel k WHERE k.relkind IN ('f','S') OR k.relpersistence<>'p' OR {unseen}
        UNION SELECT p.oid FROM part p JOIN fn f ON f.oid=p.part WHERE p.word<>'relid' AND NOT f.free
        UNION SELECT r.view FROM used u JOIN rule r ON r.oid=u.oid WHERE u.class='pg_rewrite'::regclass
        UNION SELECT p.polrelid FROM used u JOIN pg_policy p ON p.oid=u.oid
            WHERE u.class='pg_policy'::regclass AND p.polcmd IN ('r','*')
        UNION SELECT oid FROM pg_class WHERE oid<16384 AND {known}
        UNION SELECT e.oid FROM bound b JOIN edge e ON e.part=b.oid)"
    )
}
