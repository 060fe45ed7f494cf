//! The questions of a [`super::survey`], as SQL.
//!
//! Asked with PostgreSQL's own names before any others, and as the role that logged in.

use super::Suspicion;

/// Stands before each question: the path and the role are the client's, and set aside for the
/// transaction that a Query is.
const ASIDE: &str = "SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;SET LOCAL jit=off;";

/// Whether bodies can be read; locks; rules and policies.
pub(super) const SIGHT: &str = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_proc','prosrc','SELECT'),\
    pg_catalog.has_function_privilege('pg_catalog.pg_lock_status()','EXECUTE'),\
    pg_catalog.has_table_privilege('pg_catalog.pg_rewrite','SELECT') AND pg_catalog.has_table_privilege('pg_catalog.pg_policy','SELECT')";

/// PostgreSQL's own functions that leave something, and those that run SQL they are given.
fn causes() -> String {
    let named = |kinds: Suspicion, names: &str| {
        let rows = names
            .split(' ')
            .map(|name| format!("('{name}',{})", kinds.bits()));
        rows.collect::<Vec<_>>().join(",")
    };
    [
        named(Suspicion::SETTINGS | Suspicion::UNSEEN, "set_config"),
        named(
            Suspicion::LOCKS,
            "pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared",
        ),
        named(Suspicion::SEED, "setseed"),
        named(Suspicion::SEQUENCES, "currval lastval"),
        named(
            Suspicion::DYNAMIC,
            "query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml table_to_xml \
             table_to_xml_and_xmlschema schema_to_xml schema_to_xml_and_xmlschema database_to_xml \
             database_to_xml_and_xmlschema ts_stat ts_rewrite crosstab crosstab2 crosstab3 crosstab4 \
             crosstabn connectby xpath_table",
        ),
    ]
    .join(",")
}

/// What calls a cause without a function of the tenant's between: views, rules, policies, defaults,
/// constraints, conditions of triggers, operators, casts. Rows of name (or none), kinds, kinds that any
/// statement may leave, kinds that a writing one may.
pub(super) fn direct(scope: Scope) -> String {
    let (causes, links) = (causes(), Suspicion::LINKS.bits());
    let settings = (Suspicion::SETTINGS | Suspicion::UNSEEN).bits();
    let sees = scope.sees("n.oid");
    format!(
        "{ASIDE}WITH cause(name,kinds) AS (VALUES {causes}),
    function AS MATERIALIZED (SELECT p.oid,c.kinds FROM pg_proc p JOIN cause c ON c.name=p.proname
        UNION ALL SELECT p.oid,{links} FROM pg_proc p WHERE p.proname LIKE 'dblink%'),
    called AS MATERIALIZED (SELECT ':funcid '||f.oid||' ' AS sign,f.kinds FROM function f
        UNION ALL SELECT ':relid '||'pg_catalog.pg_settings'::regclass::oid||' ',{settings}),
    expression AS MATERIALIZED (
        SELECT ev_class AS relation,NULL::oid AS schema,ev_action::text||coalesce(ev_qual::text,'') AS tree,false AS on_write FROM pg_rewrite WHERE oid>=16384
        UNION ALL SELECT polrelid,NULL,concat(polqual::text,polwithcheck::text),false FROM pg_policy
        UNION ALL SELECT adrelid,NULL,adbin::text,true FROM pg_attrdef
        UNION ALL SELECT tgrelid,NULL,tgqual::text,true FROM pg_trigger WHERE tgqual IS NOT NULL
        UNION ALL SELECT conrelid,NULL,conbin::text,true FROM pg_constraint WHERE conbin IS NOT NULL AND conrelid<>0
        UNION ALL SELECT NULL,connamespace,conbin::text,false FROM pg_constraint WHERE conbin IS NOT NULL AND conrelid=0
        UNION ALL SELECT NULL,typnamespace,typdefaultbin::text,false FROM pg_type WHERE typdefaultbin IS NOT NULL AND typtype='d'
        UNION ALL SELECT stxrelid,NULL,stxexprs::text,false FROM pg_statistic_ext WHERE stxexprs IS NOT NULL),
    found AS (SELECT e.relation,e.schema,e.on_write,c.kinds FROM expression e JOIN called c ON strpos(e.tree,c.sign)>0
        UNION ALL SELECT NULL,o.oprnamespace,false,f.kinds FROM pg_operator o JOIN function f ON f.oid=o.oprcode
        UNION ALL SELECT NULL,11::oid,false,f.kinds FROM pg_cast o JOIN function f ON f.oid=o.castfunc)
    SELECT k.relname,bit_or(f.kinds),bit_or(CASE WHEN f.on_write THEN 0 ELSE f.kinds END),bit_or(CASE WHEN f.on_write THEN f.kinds ELSE 0 END)
    FROM found f LEFT JOIN pg_class k ON k.oid=f.relation LEFT JOIN pg_namespace n ON n.oid=coalesce(k.relnamespace,f.schema)
    WHERE {sees} GROUP BY k.relname"
    )
}

/// Where rules can't be read, every view may be such a one.
pub(super) fn views(scope: Scope) -> String {
    let sees = scope.sees("relnamespace");
    format!("{ASIDE}SELECT relname,1,0,0 FROM pg_class WHERE oid>=16384 AND relkind='v' AND {sees}")
}

/// Settings with a dot that bodies name where they set one.
pub(super) fn customs() -> String {
    format!(
        "{ASIDE}{}",
        r"SELECT DISTINCT m[1] FROM pg_proc p,
    regexp_matches(lower(concat(p.prosrc,' ',pg_get_function_arguments(p.oid))),E'(?:set_config\\s*\\(\\s*''|\\yset\\s+(?:session\\s+|local\\s+)?)([a-z_][a-z0-9_$]*[.][a-z_][a-z0-9_$]*)','g') m
    WHERE p.oid>=16384 LIMIT 1000"
    )
}

/// The same in views, policies and defaults.
pub(super) fn customs_of_views() -> String {
    format!(
        "{ASIDE}{}",
        r"SELECT DISTINCT m[1] FROM (
    SELECT pg_get_viewdef(oid) AS text FROM pg_class WHERE oid>=16384 AND relkind IN ('v','m')
    UNION ALL SELECT concat(pg_get_expr(polqual,polrelid),' ',pg_get_expr(polwithcheck,polrelid)) FROM pg_policy
    UNION ALL SELECT pg_get_expr(adbin,adrelid) FROM pg_attrdef) d,
    regexp_matches(lower(d.text),E'set_config\\(''([a-z_][a-z0-9_$]*[.][a-z_][a-z0-9_$]*)','g') m LIMIT 1000"
    )
}

/// Whose functions and relations are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of the database: it is the tenant's own.
    Database,
    /// Those in schemas that the role may use: others are other tenants'.
    Schemas,
}

impl Scope {
    fn sees(self, schema: &str) -> String {
        match self {
            Self::Database => "true".to_owned(),
            Self::Schemas => {
                format!("coalesce(pg_catalog.has_schema_privilege({schema},'USAGE'),true)")
            }
        }
    }
}

/// Where a statement of a body begins: behind another, a block word, a label, a comment.
const BEGINS: &str = r"(^|;|\*/|--[^\n]*\n|\y(begin|then|else|loop|atomic)\y|>>)\s*";

/// What a body must contain to leave a kind of state.
const SIGNS: [(Suspicion, &str, bool); 15] = [
    (Suspicion::SETTINGS, r"set_config|pg_settings", false),
    (Suspicion::SETTINGS, r"(set|reset)\y", true),
    (Suspicion::TEMP, r"temp|\ycreate\y", false),
    (Suspicion::LOCKS, r"advisory", false),
    (Suspicion::CHANNELS, r"listen", false),
    (Suspicion::STATEMENTS, r"\y(prepare|deallocate)\y", false),
    (Suspicion::CURSORS, r"\yhold\y", false),
    (Suspicion::LIBRARY, r"load\y", true),
    (Suspicion::SEED, r"setseed", false),
    (Suspicion::SEQUENCES, r"\y(currval|lastval)\y", false),
    (Suspicion::LINKS, r"dblink", false),
    // What is made while it runs can't be read here.
    (
        Suspicion::DYNAMIC,
        r#"\y(execute|discard)\y|_to_xml|ts_stat|ts_rewrite|crosstab|connectby|u&""#,
        false,
    ),
    (
        Suspicion::UNSEEN,
        r"set_config\s*($|[^(\s]|\(\s*[^''\s])",
        false,
    ),
    (
        Suspicion::UNSEEN,
        r#"set\s+(session\s+|local\s+)?[^\s;=]*["\s/][^\s;=]*[.]"#,
        true,
    ),
    (
        Suspicion::FUNCTIONS,
        r"\y(create|alter)\y.*\y(function|procedure|aggregate|trigger|view|rule|policy|domain|operator|cast|extension)\y",
        false,
    ),
];

/// Words of statements that write.
pub(super) const WRITES: [&str; 7] = [
    "insert", "update", "delete", "merge", "copy", "truncate", "alter",
];

/// A call of `set_config` whose last argument is `true`: what it sets ends with its transaction. There
/// is nothing in it that could make its end another than it seems (comments, escapes, dollar quotes);
/// and a body is only taken for harmless if each of its words `set_config` begins such a call.
const LOCAL: &str = r#"E'set_config(\\s*\\((?:[^][()''"\\\\$/-]|[$][0-9]|''[^''\\\\]*''|[(](?:[^][()''"\\\\$/-]|[$][0-9]|''[^''\\\\]*'')*[)])*,\\s*true\\s*\\))'"#;

/// A pattern as a constant that means the same whatever `standard_conforming_strings` is.
fn pattern(pattern: &str) -> String {
    format!("E'{}'", pattern.replace('\\', "\\\\"))
}

/// Functions whose bodies contain signs.
pub(super) fn suspected(sees_bodies: bool, scope: Scope) -> String {
    if !sees_bodies {
        let all = Suspicion::DYNAMIC.bits();
        return functions("''::text", &all.to_string(), scope);
    }
    let signs = SIGNS.iter().map(|(kinds, sign, begins)| {
        let sign = if *begins {
            format!("{BEGINS}{sign}")
        } else {
            (*sign).to_owned()
        };
        let (sign, bits) = (pattern(&sign), kinds.bits());
        format!("CASE WHEN b.raw ~ {sign} THEN {bits} ELSE 0 END")
    });
    let signs = signs.collect::<Vec<_>>().join("|");
    functions(&body(), &known_language(&signs), scope)
}

/// Functions whose bodies write, where what is written may leave these kinds.
pub(super) fn writing(kinds: Suspicion, scope: Scope) -> String {
    let words = pattern(&format!(r"\y({})\y", WRITES.join("|")));
    let kinds = kinds.bits();
    let signs = format!("CASE WHEN b.raw ~ {words} THEN {kinds} ELSE 0 END");
    functions(&body(), &known_language(&signs), scope)
}

fn known_language(signs: &str) -> String {
    let all = Suspicion::DYNAMIC.bits();
    format!("CASE WHEN b.lanname IN ('sql','plpgsql','internal') THEN {signs} ELSE {all} END")
}

/// All that a function says: its body, defaults and settings; of an aggregate, what it calls.
fn body() -> String {
    format!(
        "(SELECT CASE WHEN pg_catalog.strpos(t.text,'set_config')=0 THEN t.text
            WHEN pg_catalog.regexp_count(t.text,'set_config')=pg_catalog.regexp_count(t.text,{LOCAL})
            AND NOT EXISTS(SELECT FROM own o WHERE o.proname='set_config')
            THEN pg_catalog.regexp_replace(t.text,{LOCAL},E'\\\\1','g') ELSE t.text END
        FROM (SELECT pg_catalog.lower(pg_catalog.concat(CASE WHEN p.prokind='a' THEN
            (SELECT pg_catalog.concat_ws(' ',a.aggtransfn,a.aggfinalfn,a.aggcombinefn,a.aggserialfn,a.aggdeserialfn,
                a.aggmtransfn,a.aggminvtransfn,a.aggmfinalfn) FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid=p.oid)
            ELSE p.prosrc END,' ',pg_catalog.pg_get_function_sqlbody(p.oid),' ',pg_catalog.pg_get_function_arguments(p.oid),
            ' ',p.proconfig::pg_catalog.text)) AS text OFFSET 0) t)"
    )
}

/// Suspected functions: direct ones, and those whose bodies name another; and where PostgreSQL
/// itself calls them. Rows as those of [`direct`].
fn functions(body: &str, kinds: &str, scope: Scope) -> String {
    let sees = scope.sees("p.pronamespace");
    format!(
        r"{ASIDE}WITH RECURSIVE own AS MATERIALIZED (
            SELECT p.oid,p.proname,p.prolang FROM pg_proc p
            WHERE p.oid>=16384 AND {sees} AND (p.prokind='a' OR p.prolang NOT IN (SELECT oid FROM pg_language WHERE lanname IN ('c','internal')))),
        body AS MATERIALIZED (SELECT p.oid,p.proname,l.lanname,{body} AS raw
            FROM own o JOIN pg_proc p ON p.oid=o.oid JOIN pg_language l ON l.oid=o.prolang),
        direct AS MATERIALIZED (SELECT b.oid,b.proname,b.raw,{kinds} AS kinds FROM body b),
        name AS MATERIALIZED (SELECT DISTINCT lower(proname::text) AS name FROM own),
        odd AS MATERIALIZED (SELECT name FROM name WHERE name ~ '[^a-z0-9_$]' OR octet_length(name)>=63),
        word AS MATERIALIZED (
            SELECT DISTINCT d.oid,n.name FROM direct d,regexp_matches(d.raw,'[a-z0-9_$]+','g') w(found)
            JOIN name n ON n.name=w.found[1]
            UNION
            SELECT d.oid,o.name FROM odd o JOIN direct d ON strpos(d.raw,o.name)>0),
        reach AS (
            SELECT oid,proname,kinds FROM direct WHERE kinds<>0
            UNION
            SELECT d.oid,d.proname,r.kinds FROM reach r JOIN word w ON w.name=lower(r.proname::text)
            JOIN direct d ON d.oid=w.oid),
        known AS MATERIALIZED (SELECT oid,proname,bit_or(kinds) AS kinds FROM reach GROUP BY oid,proname),
        caller AS (
            SELECT k.oid,d.classid IN ('pg_trigger'::regclass,'pg_attrdef'::regclass)
                OR d.classid='pg_constraint'::regclass AND EXISTS(SELECT FROM pg_constraint c WHERE c.oid=d.objid AND c.conrelid<>0) AS writes
            FROM known k JOIN pg_depend d
            ON d.refclassid='pg_proc'::regclass AND d.refobjid=k.oid AND d.classid<>'pg_proc'::regclass),
        exposed AS (SELECT oid,bool_or(writes) AS on_write,bool_or(NOT writes) AS anywhere FROM caller GROUP BY oid)
        SELECT k.proname,bit_or(k.kinds),
            bit_or(CASE WHEN e.anywhere THEN k.kinds ELSE 0 END),
            bit_or(CASE WHEN e.on_write THEN k.kinds ELSE 0 END)
        FROM known k LEFT JOIN exposed e ON e.oid=k.oid GROUP BY k.proname"
    )
}
