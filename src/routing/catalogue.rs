//! What the names in statements are, in one database.

use super::{
    Reason,
    names::{Name, Names},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use thiserror::Error;

/// More facts about a tenant's database aren't held: everything goes to the primary then.
pub const FACTS_MAX: usize = 50_000;

/// Why rows make no catalogue.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CatalogueError {
    /// A row isn't what was asked for.
    #[error("a row of the catalogue can't be read")]
    Row,
    /// More than [`FACTS_MAX`].
    #[error("more than {FACTS_MAX} facts")]
    TooMany,
}

/// One row of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<'r> {
    kind: Kind,
    schema: &'r str,
    name: &'r str,
    is_free: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    Operator,
    /// A relation that is bound to the primary.
    Relation,
    /// A type that is.
    Type,
    /// A function that is, and that `a.b` may call.
    Attribute,
    /// There is a cast with a function that is, and that isn't written out.
    Cast,
}

impl<'r> Fact<'r> {
    /// From the four columns of a row in text format.
    ///
    /// # Errors
    /// [`CatalogueError::Row`].
    pub fn from_columns(columns: [Option<&'r [u8]>; 4]) -> Result<Self, CatalogueError> {
        let text = |at: usize| {
            let column = columns.get(at).copied().flatten()?;
            std::str::from_utf8(column).ok()
        };
        let read = || {
            let kind = match text(0)? {
                "f" => Kind::Function,
                "o" => Kind::Operator,
                "r" => Kind::Relation,
                "t" => Kind::Type,
                "a" => Kind::Attribute,
                "c" => Kind::Cast,
                _ => return None,
            };
            Some(Self {
                kind,
                schema: text(1)?,
                name: text(2)?,
                is_free: text(3)? == "t",
            })
        };
        read().ok_or(CatalogueError::Row)
    }
}

/// Names, each with the schemas that have it and whether it is free there: of several functions of
/// one name, the worst counts.
#[derive(Debug, Default)]
struct Known(HashMap<Box<str>, Vec<(Arc<str>, bool)>>);

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unknown,
    Free,
    Bound,
}

impl Standing {
    /// The worse of two, where what is unknown to one counts as the other has it.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Bound, _) | (_, Self::Bound) => Self::Bound,
            (Self::Free, _) | (_, Self::Free) => Self::Free,
            _ => Self::Unknown,
        }
    }
}

impl Known {
    fn insert(&mut self, schemas: &mut HashSet<Arc<str>>, fact: &Fact<'_>) {
        let schema = if let Some(known) = schemas.get(fact.schema) {
            Arc::clone(known)
        } else {
            let new: Arc<str> = fact.schema.into();
            schemas.insert(Arc::clone(&new));
            new
        };
        let all = self.0.entry(fact.name.into()).or_default();
        all.push((schema, fact.is_free));
    }

    fn standing(&self, name: &Name) -> Standing {
        let Some(all) = self.0.get(&name.name) else {
            return Standing::Unknown;
        };
        let meant = all.iter().filter(|(schema, _)| {
            let asked = name.schema.as_deref();
            asked.is_none_or(|asked| asked == &**schema)
        });
        meant.fold(Standing::Unknown, |standing, (_, is_free)| {
            standing.with(if *is_free {
                Standing::Free
            } else {
                Standing::Bound
            })
        })
    }

    fn has(&self, name: &Name) -> bool {
        self.standing(name) != Standing::Unknown
    }
}

/// What one answer says.
#[derive(Debug, Default)]
struct Facts {
    functions: Known,
    operators: Known,
    /// Only what is bound to the primary.
    relations: Known,
    /// Likewise.
    types: Known,
    /// Likewise.
    attributes: HashSet<Box<str>>,
    has_cast: bool,
}

impl Facts {
    fn read<'r>(
        facts: impl IntoIterator<Item = Result<Fact<'r>, CatalogueError>>,
    ) -> Result<Self, CatalogueError> {
        let mut all = Self::default();
        let mut schemas = HashSet::new();
        for (at, fact) in facts.into_iter().enumerate() {
            let fact = fact?;
            if at >= FACTS_MAX {
                return Err(CatalogueError::TooMany);
            }
            match fact.kind {
                Kind::Function => all.functions.insert(&mut schemas, &fact),
                Kind::Operator => all.operators.insert(&mut schemas, &fact),
                Kind::Relation => all.relations.insert(&mut schemas, &fact),
                Kind::Type => all.types.insert(&mut schemas, &fact),
                Kind::Attribute => {
                    all.attributes.insert(fact.name.into());
                }
                Kind::Cast => all.has_cast = true,
            }
        }
        Ok(all)
    }
}

/// What comes with PostgreSQL. One for all databases of a server, and for all servers of a version.
#[derive(Debug)]
pub struct Builtins(Facts);

impl Builtins {
    /// From the answer to [`super::builtins_sql`].
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn new<'r>(
        facts: impl IntoIterator<Item = Result<Fact<'r>, CatalogueError>>,
    ) -> Result<Self, CatalogueError> {
        Ok(Self(Facts::read(facts)?))
    }

    /// Those of its relations that are bound to the primary.
    pub(super) fn bound_relations(&self) -> impl Iterator<Item = &str> {
        self.0.relations.0.keys().map(|name| &**name)
    }
}

/// What the names in statements are, in one database.
///
/// It holds until the database's definitions change. It is to be read again when the survey of the
/// tenant's functions is: before the first use, at the end of every transaction that may have changed
/// definitions, and every 30 s for what others changed. Each that is read has a higher generation.
#[derive(Debug)]
pub struct Catalogue {
    /// Below 2^56; 0 where nothing is known.
    generation: u64,
    known: Option<(Arc<Builtins>, Facts)>,
}

const GENERATION_MAX: u64 = (1 << 56) - 1;

impl Default for Catalogue {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Catalogue {
    /// Before anything is known, and where it is too much: every read goes to the primary.
    pub fn unknown() -> Self {
        Self {
            generation: 0,
            known: None,
        }
    }

    /// From the answer to [`super::catalogue_sql`]. The generation begins with 1, and is one that no
    /// earlier catalogue had whose verdicts the same [`super::Intents`] may hold.
    ///
    /// # Errors
    /// [`CatalogueError`]: then [`Catalogue::unknown`] takes its place.
    pub fn new<'r>(
        generation: u64,
        builtins: Arc<Builtins>,
        facts: impl IntoIterator<Item = Result<Fact<'r>, CatalogueError>>,
    ) -> Result<Self, CatalogueError> {
        let facts = Facts::read(facts)?;
        Ok(Self {
            generation: generation.clamp(1, GENERATION_MAX),
            known: Some((builtins, facts)),
        })
    }

    /// Which one it is.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// [`Reason::Read`], or the first found why a statement with these names isn't one.
    pub(super) fn reason(&self, names: &Names) -> Reason {
        let Some((builtins, own)) = &self.known else {
            return Reason::NoCatalogue;
        };
        let builtins = &builtins.0;
        if own.has_cast {
            return Reason::Type;
        }
        let functions = names.functions.iter().map(|name| {
            match (
                builtins.functions.standing(name),
                own.functions.standing(name),
            ) {
                (_, Standing::Bound) => Reason::Untrusted,
                (Standing::Bound, _) => Reason::Volatile,
                (Standing::Unknown, Standing::Unknown) => Reason::UnknownFunction,
                _ => Reason::Read,
            }
        });
        let operators = names.operators.iter().map(|name| {
            let builtin = builtins.operators.standing(name);
            match builtin.with(own.operators.standing(name)) {
                Standing::Free => Reason::Read,
                _ => Reason::Operator,
            }
        });
        let bound = |is_bound: bool, reason| if is_bound { reason } else { Reason::Read };
        let relations = names.relations.iter().map(|name| {
            let is_bound = builtins.relations.has(name) || own.relations.has(name);
            bound(is_bound, Reason::Relation)
        });
        let types = names.types.iter();
        let types = types.map(|name| bound(own.types.has(name), Reason::Type));
        let is_called = |name: &str| own.attributes.contains(name);
        let fields = names.fields.iter();
        let fields = fields.map(|name| bound(is_called(name), Reason::Untrusted));
        let constructs = names.constructs.iter().map(|name| {
            let all = own.functions.0.get(*name).map_or(&[][..], Vec::as_slice);
            bound(all.iter().any(|(_, free)| !free), Reason::Untrusted)
        });
        let mut all = functions
            .chain(operators)
            .chain(relations)
            .chain(types)
            .chain(fields)
            .chain(constructs);
        all.find(|reason| *reason != Reason::Read)
            .unwrap_or(Reason::Read)
    }
}
