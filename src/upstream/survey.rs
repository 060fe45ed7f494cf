//! Which of a tenant's functions may leave session state behind that a statement's text doesn't name.
//!
//! PostgreSQL tells bodies and dependencies; from them follow, for each kind of state, the names that
//! a text must contain for it to be left, or that any statement may leave it (through a trigger, a
//! view, a default, a policy, …). Where bodies can't be read every function of the tenant's counts.

use super::{AskError, Server, Suspicion, clean::Row};
use aho_corasick::{AhoCorasick, BuildError};
use std::time::Duration;

/// How long a server may take to tell; it reads the catalog of functions once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More suspected functions than this are not held by name: then every statement is suspected.
const NAMES_MAX: usize = 2000;

/// What a survey found.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What any statement may leave.
    everywhere: Suspicion,
    /// What a statement that writes may leave.
    on_write: Suspicion,
    /// What a statement may leave whose text has one of these names.
    names: Option<Names>,
    /// Whether there is nothing to suspect.
    is_quiet: bool,
    is_known: bool,
    /// Names of the tenant's own settings that functions set.
    pub customs: Vec<Box<str>>,
    /// Whether `pg_locks` can be read.
    pub sees_locks: bool,
}

#[derive(Debug, Clone)]
struct Names {
    finder: AhoCorasick,
    kinds: Vec<Suspicion>,
    /// The first so many are names; those behind them are words of writing statements.
    count: usize,
}

/// Words of statements that write.
const WRITES: [&str; 6] = ["insert", "update", "delete", "merge", "copy", "truncate"];

impl Default for Survey {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Survey {
    /// Before anything is known: any statement may leave anything.
    pub fn unknown() -> Self {
        Self {
            is_known: false,
            everywhere: Suspicion::NONE,
            on_write: Suspicion::NONE,
            names: None,
            is_quiet: false,
            customs: Vec::new(),
            sees_locks: false,
        }
    }

    /// Whether there is no function that leaves anything.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether a survey was made at all; else a server must be asked for everything.
    #[inline]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// What a statement may leave through functions, as far as they are known.
    #[inline]
    pub fn suspects(&self, text: &[u8]) -> Suspicion {
        if self.is_quiet {
            return Suspicion::NONE;
        }
        let mut suspicion = self.everywhere;
        if let Some(names) = &self.names {
            suspicion |= names.suspects(text, self.on_write);
        }
        suspicion
    }

    fn new(found: &[Found], sees_locks: bool) -> Result<Self, BuildError> {
        let all = |kinds: fn(&Found) -> Suspicion| {
            found
                .iter()
                .map(kinds)
                .fold(Suspicion::NONE, Suspicion::with)
        };
        let mut everywhere = all(|f| f.everywhere);
        let on_write = all(|f| f.on_write);
        if found.len() > NAMES_MAX {
            everywhere |= all(|f| f.kinds);
        }
        let names = if found.is_empty() || found.len() > NAMES_MAX {
            None
        } else {
            Some(Names::new(found)?)
        };
        Ok(Self {
            everywhere,
            on_write,
            is_quiet: names.is_none() && everywhere.is_empty(),
            is_known: true,
            names,
            customs: Vec::new(),
            sees_locks,
        })
    }
}

impl Names {
    fn new(found: &[Found]) -> Result<Self, BuildError> {
        // A name in Unicode escapes is not seen: such a text may mean any of them.
        let names = found.iter().map(|f| f.name.as_str()).chain(["u&\""]);
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(names.chain(WRITES))?;
        let all = found.iter().fold(Suspicion::NONE, |all, f| all | f.kinds);
        let kinds = found.iter().map(|f| f.kinds).chain([all]).collect();
        Ok(Self {
            finder,
            kinds,
            count: found.len() + 1,
        })
    }

    fn suspects(&self, text: &[u8], on_write: Suspicion) -> Suspicion {
        let mut suspicion = Suspicion::NONE;
        for found in self.finder.find_overlapping_iter(text) {
            let at = found.pattern().as_usize();
            let is_part = |byte: Option<&u8>| {
                byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$')
            };
            let before = found.start().checked_sub(1).and_then(|at| text.get(at));
            if is_part(before) || is_part(text.get(found.end())) && at + 1 != self.count {
                continue;
            }
            suspicion |= match self.kinds.get(at) {
                Some(kinds) => *kinds,
                None => on_write,
            };
        }
        suspicion
    }
}

/// A suspected function.
struct Found {
    name: String,
    kinds: Suspicion,
    everywhere: Suspicion,
    on_write: Suspicion,
}

impl Server {
    /// Asks for the functions that this server's role can reach. Also returns what PostgreSQL had to
    /// say meanwhile: notifications, changes of its configuration.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn survey(&mut self) -> Result<(Survey, Vec<u8>), AskError> {
        let mut asides = Vec::new();
        let sight = self.look(SIGHT, &mut asides).await?;
        let sees = |at: usize| {
            let cell = sight.first().and_then(|row| row.get(at));
            matches!(cell, Some(Some(text)) if **text == *b"t")
        };
        let rows = self.look(&functions(sees(0)), &mut asides).await?;
        let found: Option<Vec<Found>> = rows.iter().map(Found::read).collect();
        let mut found = found.ok_or(AskError::Protocol)?;
        let direct = if sees(2) {
            self.look(DIRECT, &mut asides).await?
        } else {
            self.look(VIEWS, &mut asides).await?
        };
        let direct: Option<Vec<Found>> = direct.iter().map(Found::read).collect();
        found.extend(direct.ok_or(AskError::Protocol)?);
        let mut survey = Survey::new(&found, sees(1)).map_err(|_error| AskError::Protocol)?;
        if !survey.is_quiet {
            let mut rows = Vec::new();
            for (is_seen, question) in [(sees(0), CUSTOMS), (sees(2), CUSTOMS_OF_VIEWS)] {
                if is_seen {
                    rows.extend(self.look(question, &mut asides).await?);
                }
            }
            let name = |row: &Row| {
                let name = row.first()?.as_deref()?;
                std::str::from_utf8(name).ok().map(Into::into)
            };
            survey.customs = rows.iter().filter_map(name).collect();
        }
        Ok((survey, asides))
    }

    async fn look(&mut self, sql: &str, asides: &mut Vec<u8>) -> Result<Vec<Row>, AskError> {
        let answer = self.ask_rows(sql, TIMEOUT).await?;
        asides.extend(answer.asides);
        self.is_outdated |= answer.is_outdated;
        Ok(answer.rows)
    }
}

impl Found {
    /// Name, what it leaves, what it leaves anywhere, what it leaves on writes.
    fn read(row: &Row) -> Option<Self> {
        let text = |at: usize| std::str::from_utf8(row.get(at)?.as_deref()?).ok();
        let kinds = |at: usize| Some(Suspicion::from_bits(text(at)?.parse().ok()?));
        Some(Self {
            name: text(0)?.to_owned(),
            kinds: kinds(1)?,
            everywhere: kinds(2)?,
            on_write: kinds(3)?,
        })
    }
}

/// Whether bodies can be read, and locks.
const SIGHT: &str = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_proc','prosrc','SELECT'),\
    pg_catalog.has_function_privilege('pg_catalog.pg_lock_status()','EXECUTE'),\
    pg_catalog.has_table_privilege('pg_catalog.pg_rewrite','SELECT') AND pg_catalog.has_table_privilege('pg_catalog.pg_policy','SELECT')";

/// Relations whose views, rules, policies, defaults or constraints call one of PostgreSQL's own
/// functions that leave something: no function of the tenant's stands between.
const DIRECT: &str = "SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;
    WITH cause(name,kinds) AS (VALUES ('set_config',1025),('pg_advisory_lock',8),('pg_advisory_lock_shared',8),
        ('pg_try_advisory_lock',8),('pg_try_advisory_lock_shared',8),('setseed',128),('currval',256),('lastval',256)),
    called AS (SELECT ':funcid '||p.oid||' ' AS sign,c.kinds FROM pg_proc p JOIN cause c ON c.name=p.proname
        WHERE p.pronamespace='pg_catalog'::regnamespace),
    expression AS (
        SELECT ev_class AS oid,ev_action::text||coalesce(ev_qual::text,'') AS tree,false AS on_write FROM pg_rewrite WHERE oid>=16384
        UNION ALL SELECT polrelid,concat(polqual::text,polwithcheck::text),false FROM pg_policy
        UNION ALL SELECT adrelid,adbin::text,true FROM pg_attrdef
        UNION ALL SELECT conrelid,conbin::text,true FROM pg_constraint WHERE conbin IS NOT NULL),
    found AS (SELECT e.oid,e.on_write,c.kinds FROM expression e JOIN called c ON strpos(e.tree,c.sign)>0)
    SELECT k.relname,bit_or(f.kinds),bit_or(CASE WHEN f.on_write THEN 0 ELSE f.kinds END),bit_or(CASE WHEN f.on_write THEN f.kinds ELSE 0 END)
    FROM found f JOIN pg_class k ON k.oid=f.oid WHERE has_schema_privilege(k.relnamespace,'USAGE') GROUP BY k.relname";

/// Where rules can't be read, every view may be such a one.
const VIEWS: &str = "SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;
    SELECT relname,1,0,0 FROM pg_class WHERE oid>=16384 AND relkind='v' AND has_schema_privilege(relnamespace,'USAGE')";

/// Settings with a dot that bodies name where they set one.
const CUSTOMS: &str = r"SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;SELECT DISTINCT m[1] FROM pg_proc p,
    regexp_matches(lower(p.prosrc),E'(?:set_config\\s*\\(\\s*''|\\yset\\s+(?:session\\s+|local\\s+)?)([a-z_][a-z0-9_$]*[.][a-z_][a-z0-9_$]*)','g') m
    WHERE p.oid>=16384 LIMIT 1000";

/// The same in views, policies and defaults.
const CUSTOMS_OF_VIEWS: &str = r"SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;SELECT DISTINCT m[1] FROM (
    SELECT pg_get_viewdef(oid) AS text FROM pg_class WHERE oid>=16384 AND relkind IN ('v','m')
    UNION ALL SELECT concat(pg_get_expr(polqual,polrelid),' ',pg_get_expr(polwithcheck,polrelid)) FROM pg_policy
    UNION ALL SELECT pg_get_expr(adbin,adrelid) FROM pg_attrdef) d,
    regexp_matches(lower(d.text),E'set_config\\(''([a-z_][a-z0-9_$]*[.][a-z_][a-z0-9_$]*)','g') m LIMIT 1000";

/// What a body must contain to leave a kind of state. `^`, `;` and block words stand before a
/// statement; comments are taken out first.
const SIGNS: [(Suspicion, &str); 13] = [
    (
        Suspicion::SETTINGS,
        r"set_config|pg_settings|(^|;|\y(begin|then|else|loop|atomic)\y|>>)\s*(set|reset)\y",
    ),
    (Suspicion::TEMP, r"temp"),
    (Suspicion::LOCKS, r"advisory"),
    (Suspicion::CHANNELS, r"listen"),
    (Suspicion::STATEMENTS, r"\y(prepare|deallocate)\y"),
    (Suspicion::CURSORS, r"\yhold\y"),
    (
        Suspicion::LIBRARY,
        r"(^|;|\y(begin|then|else|loop)\y|>>)\s*load\y",
    ),
    (Suspicion::SEED, r"setseed"),
    (Suspicion::SEQUENCES, r"\y(currval|lastval)\y"),
    (Suspicion::LINKS, r"dblink"),
    // What is made while it runs can't be read here.
    (Suspicion::DYNAMIC, r"\y(execute|discard)\y"),
    (Suspicion::UNSEEN, r"set_config\s*\(\s*[^''\s]"),
    (
        Suspicion::FUNCTIONS,
        r"\y(create|alter)\y.*\y(function|procedure|trigger|view|rule|policy|domain|operator|cast|extension)\y",
    ),
];

/// A call of `set_config` whose last argument is `true`: what it sets ends with its transaction. There
/// is nothing in it that could make its end another than it seems (comments, escapes, dollar quotes);
/// and a body is only taken for harmless if each of its words `set_config` begins such a call.
const LOCAL: &str = r#"E'set_config(\\s*\\((?:[^][()''"\\\\$/-]|[$][0-9]|''[^''\\\\]*''|[(](?:[^][()''"\\\\$/-]|[$][0-9]|''[^''\\\\]*'')*[)])*,\\s*true\\s*\\))'"#;

/// The path and the role are the client's: they are set aside for the transaction that a Query is.
///
/// Suspected functions: direct ones, and those whose bodies name another; and where PostgreSQL
/// itself calls them.
fn functions(sees_bodies: bool) -> String {
    let all = Suspicion::DYNAMIC.bits();
    let (body, kinds) = if sees_bodies {
        let comments = r"E'--[^\n]*|/\\*.*?\\*/',' ','g'";
        let signs: Vec<String> = SIGNS
            .iter()
            .map(|(kinds, sign)| {
                // Means the same whatever standard_conforming_strings is.
                let sign = sign.replace('\\', "\\\\");
                format!(
                    "CASE WHEN b.raw ~ E'{sign}' OR b.bare ~ E'{sign}' THEN {} ELSE 0 END",
                    kinds.bits()
                )
            })
            .collect();
        let body = format!(
            "SELECT p.oid,p.proname,l.lanname,s.raw,pg_catalog.regexp_replace(s.raw,{comments}) AS bare \
             FROM own p JOIN pg_catalog.pg_language l ON l.oid=p.prolang,\
             LATERAL (SELECT pg_catalog.lower(pg_catalog.concat(p.prosrc,' ',pg_catalog.pg_get_function_sqlbody(p.oid))) AS text OFFSET 0) t,\
             LATERAL (SELECT CASE WHEN pg_catalog.strpos(t.text,'set_config')=0 THEN t.text WHEN pg_catalog.regexp_count(t.text,'set_config')=pg_catalog.regexp_count(t.text,{LOCAL}) \
             AND NOT EXISTS(SELECT FROM own o WHERE o.proname='set_config') THEN pg_catalog.regexp_replace(t.text,{LOCAL},E'\\\\1','g') ELSE t.text END AS raw OFFSET 0) s"
        );
        let signs = signs.join("|");
        (
            body,
            format!("CASE WHEN b.lanname IN ('sql','plpgsql') THEN {signs} ELSE {all} END"),
        )
    } else {
        (
            "SELECT p.oid,p.proname,''::text AS bare FROM own p".to_owned(),
            all.to_string(),
        )
    };
    let columns = if sees_bodies {
        "p.oid,p.proname,p.prolang,p.prosrc"
    } else {
        "p.oid,p.proname"
    };
    format!(
        r"SET LOCAL search_path=pg_catalog;SET LOCAL ROLE NONE;WITH RECURSIVE own AS MATERIALIZED (
            SELECT {columns} FROM pg_catalog.pg_proc p
            WHERE p.oid>=16384 AND p.prokind IN ('f','p','w')
            AND p.prolang NOT IN (SELECT oid FROM pg_catalog.pg_language WHERE lanname IN ('c','internal'))
            AND pg_catalog.has_schema_privilege(p.pronamespace,'USAGE')),
        body AS MATERIALIZED ({body}),
        direct AS (SELECT b.oid,b.proname,b.bare,{kinds} AS kinds FROM body b),
        reach AS (
            SELECT oid,proname,kinds FROM direct WHERE kinds<>0
            UNION
            SELECT d.oid,d.proname,r.kinds FROM reach r JOIN direct d
            ON pg_catalog.strpos(d.bare,pg_catalog.lower(r.proname::text))>0),
        known AS (SELECT oid,proname,pg_catalog.bit_or(kinds) AS kinds FROM reach GROUP BY oid,proname),
        exposed AS (
            SELECT k.oid,
            pg_catalog.bool_or(d.classid IN ('pg_catalog.pg_trigger'::regclass,'pg_catalog.pg_attrdef'::regclass,'pg_catalog.pg_constraint'::regclass)) AS on_write,
            pg_catalog.bool_or(d.classid NOT IN ('pg_catalog.pg_trigger'::regclass,'pg_catalog.pg_attrdef'::regclass,'pg_catalog.pg_constraint'::regclass)) AS anywhere
            FROM known k JOIN pg_catalog.pg_depend d
            ON d.refclassid='pg_catalog.pg_proc'::regclass AND d.refobjid=k.oid AND d.classid<>'pg_catalog.pg_proc'::regclass
            GROUP BY k.oid)
        SELECT k.proname,pg_catalog.bit_or(k.kinds),
            pg_catalog.bit_or(CASE WHEN e.anywhere THEN k.kinds ELSE 0 END),
            pg_catalog.bit_or(CASE WHEN e.on_write THEN k.kinds ELSE 0 END)
        FROM known k LEFT JOIN exposed e ON e.oid=k.oid GROUP BY k.proname"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, kinds: Suspicion) -> Found {
        Found {
            name: name.to_owned(),
            kinds,
            everywhere: Suspicion::NONE,
            on_write: Suspicion::NONE,
        }
    }

    #[test]
    fn a_function_is_suspected_where_its_name_stands() {
        let survey = Survey::new(&[found("f", Suspicion::TEMP)], true).unwrap();
        assert_eq!(survey.suspects(b"select F(1)"), Suspicion::TEMP);
        assert_eq!(survey.suspects(b"select \"f\"()"), Suspicion::TEMP);
        assert_eq!(survey.suspects(b"select if(1), f_2()"), Suspicion::NONE);
        assert_eq!(survey.suspects(b"select U&\"\\0066\"()"), Suspicion::TEMP);
    }

    #[test]
    fn what_a_trigger_leaves_is_suspected_of_writes_alone() {
        let mut trigger = found("audit", Suspicion::SETTINGS);
        trigger.on_write = Suspicion::SETTINGS;
        let survey = Survey::new(&[trigger], true).unwrap();
        assert_eq!(survey.suspects(b"INSERT INTO t"), Suspicion::SETTINGS);
        assert_eq!(survey.suspects(b"select 1"), Suspicion::NONE);
    }

    #[test]
    fn nothing_is_suspected_where_there_is_no_function() {
        let survey = Survey::new(&[], true).unwrap();
        assert!(survey.is_quiet());
        assert!(!Survey::unknown().is_known() && !Survey::unknown().is_quiet());
    }
}
