//! An attack as a value: what the attacker does, and what would be a leak.

use crate::{
    queue::Queue,
    scene::{Scene, Who},
};
use std::fmt;

/// How tenants are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Each has a database.
    Database,
    /// Each has a schema of one database.
    Schema,
    /// They share tables; each has a login role.
    Row,
    /// They share tables and login roles.
    Shared,
}

impl Tier {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Row => "row",
            Self::Shared => "shared",
        }
    }

    /// Whether tables are shared.
    pub fn is_row(self) -> bool {
        matches!(self, Self::Row | Self::Shared)
    }
}

/// Every tier.
pub const ALL: &[Tier] = &[Tier::Database, Tier::Schema, Tier::Row, Tier::Shared];
/// A login role of one's own: slots refuse LISTEN.
pub const LOGINS: &[Tier] = &[Tier::Database, Tier::Schema, Tier::Row];
/// A schema or a database of one's own.
pub const OWN: &[Tier] = &[Tier::Database, Tier::Schema];
/// Shared tables.
pub const ROWS: &[Tier] = &[Tier::Row, Tier::Shared];
/// A shared database.
pub const TOGETHER: &[Tier] = &[Tier::Schema, Tier::Row, Tier::Shared];
/// A database of one's own.
pub const DATABASE: &[Tier] = &[Tier::Database];
/// A schema of one's own.
pub const SCHEMA: &[Tier] = &[Tier::Schema];

/// What sharing a server shows or costs, whatever is closed: no hole, so provisioning doesn't tell it.
pub const LIMITS: &[(&str, &str)] = &[
    (
        "R1",
        "names of roles and databases, which are opaque, are seen",
    ),
    (
        "R2",
        "how much there is in shared tables, of all tenants together, is seen",
    ),
    (
        "R3",
        "tenants share locks' memory, disk, processors, and the oldest snapshot",
    ),
    (
        "R4",
        "timing, the position of the log and the number of transactions are seen",
    ),
    (
        "R5",
        "who may only read shares channels, advisory locks and locks of tables with its own tenant, not with others",
    ),
];

/// What the attacker is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The victim's data.
    Read,
    /// To change the victim's data or how its sessions behave.
    Write,
    /// To lock the victim out.
    Block,
    /// To learn what the victim does or has.
    Observe,
    /// To be taken for the victim, or for more than one is.
    Impersonate,
    /// To leave something on a connection for the next, or to find what the last one left.
    Leave,
    /// To bring the protocol out of step.
    Bytes,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Block => "block",
            Self::Observe => "observe",
            Self::Impersonate => "impersonate",
            Self::Leave => "leave",
            Self::Bytes => "bytes",
        })
    }
}

/// One move.
#[derive(Clone, Copy)]
pub enum Step {
    /// The attacker says this.
    A(&'static str),
    /// The victim says this, in the session that it has had from the beginning.
    V(&'static str),
    /// The victim says this in a statement with a name.
    Prepared(&'static str),
    /// The attacker leaves and comes again.
    Again,
    /// The attacker waits for its own notification `fence`, so that all sent before has come.
    Fence,
    /// The victim waits for its own notification `fence`.
    VictimFence,
}

/// Startup parameters, as bytes.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// What the attacker does. Whatever it is: a leak is when the attacker has heard the victim's
/// canary, or the victim finds something changed, can't go on, or hears what it never asked for.
#[derive(Clone, Copy)]
pub enum Act {
    /// Statements; errors don't matter.
    Sql(&'static [&'static str]),
    /// Moves of both.
    Script(&'static [Step]),
    /// Statements, the last of which must fail.
    Refused(&'static [&'static str]),
    /// After some statements, two whose answers must not differ: one names what the victim has,
    /// one what nobody has.
    Tell(&'static [&'static str], &'static str, &'static str),
    /// A measure that must not change with what the victim does.
    Gauge(&'static str, &'static [&'static str]),
    /// Bytes after the login.
    Bytes(fn(&Scene<'_>) -> Vec<u8>),
    /// Startup parameters in place of one's own, with one's own key.
    Login(fn(&Scene<'_>) -> Parameters),
    /// Locks that PostgreSQL takes before it checks.
    Queue(Queue),
    /// Something else; what was found is the leak.
    Own(fn(&mut Scene<'_>) -> Option<String>),
}

/// An attack.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// What it is after.
    pub class: Class,
    /// Where it makes sense.
    pub tiers: &'static [Tier],
    /// What is done.
    pub act: Act,
    /// The hole that it shows, by the name under which provisioning tells it (`hole NAME`), or the
    /// stated limit of sharing a server ([`LIMITS`]). It is printed, and is no leak.
    pub residual: Option<&'static str>,
    /// The same, where a key of the victim's own that only reads shows it.
    pub residual_of_reader: Option<&'static str>,
    /// Why it succeeds in no naive set-up.
    pub unproven: Option<&'static str>,
    /// It is for who has a key of the victim's own that only reads, and for nobody else.
    pub is_readers: bool,
}

impl Attack {
    /// An attack.
    pub const fn new(name: &'static str, class: Class, tiers: &'static [Tier], act: Act) -> Self {
        Self {
            name,
            class,
            tiers,
            act,
            residual: None,
            residual_of_reader: None,
            unproven: None,
            is_readers: false,
        }
    }

    /// It is for who may read the victim's data, and no more.
    pub const fn reader(mut self) -> Self {
        self.is_readers = true;
        self
    }

    /// Whether it is to be tried by this attacker on this tier. Who may read all is after the rest.
    pub fn is_for(&self, who: Who, tier: Tier) -> bool {
        let is_after_more = !matches!(self.class, Class::Read | Class::Observe);
        self.tiers.contains(&tier)
            && match who {
                Who::Other => !self.is_readers,
                Who::OwnReader => is_after_more,
            }
    }

    /// It shows a stated limit.
    pub const fn residual(mut self, limit: &'static str) -> Self {
        self.residual = Some(limit);
        self
    }

    /// It shows a stated limit to who may read the victim's data anyway.
    pub const fn residual_of_reader(mut self, limit: &'static str) -> Self {
        self.residual_of_reader = Some(limit);
        self
    }

    /// It can't succeed in a naive set-up either.
    pub const fn unproven(mut self, why: &'static str) -> Self {
        self.unproven = Some(why);
        self
    }

    /// Whether it can be done inside one transaction.
    pub fn has_variant_in_transaction(&self) -> bool {
        let Act::Sql(statements) = self.act else {
            return false;
        };
        let mut statements = statements.iter();
        self.class != Class::Leave && !statements.any(|sql| sql.starts_with("begin"))
    }
}
