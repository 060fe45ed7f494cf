//! The names that a statement uses.

use std::collections::HashSet;

/// A name as PostgreSQL keeps it (folded, cut, without quotes), with its schema if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name<T = Box<str>> {
    /// `None` where the search path decides.
    pub schema: Option<T>,
    /// The name itself.
    pub name: T,
}

/// More names than this aren't looked up; the statement goes to the primary.
pub(super) const NAMES_MAX: usize = 512;

/// What a read uses, each once; what it all is, a [`super::Catalogue`] tells.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) functions: Box<[Name]>,
    pub(super) relations: Box<[Name]>,
    pub(super) operators: Box<[Name]>,
    pub(super) types: Box<[Name]>,
    /// Last parts of `a.b`, which may be the call `b(a)`.
    pub(super) fields: Box<[Box<str>]>,
    /// What is grammar in PostgreSQL 16 to 18, and may be a function where it is older.
    pub(super) constructs: Box<[&'static str]>,
}

/// The same while it is found.
#[derive(Default)]
pub(super) struct Found<'t> {
    pub(super) functions: HashSet<Name<&'t str>>,
    pub(super) relations: HashSet<Name<&'t str>>,
    pub(super) operators: HashSet<Name<&'t str>>,
    pub(super) types: HashSet<Name<&'t str>>,
    pub(super) fields: HashSet<&'t str>,
    pub(super) constructs: HashSet<&'static str>,
}

impl Found<'_> {
    /// How many.
    pub(super) fn len(&self) -> usize {
        let named = [
            &self.functions,
            &self.relations,
            &self.operators,
            &self.types,
        ];
        named.iter().map(|set| set.len()).sum::<usize>() + self.fields.len()
    }

    pub(super) fn into_names(self) -> Names {
        let kept = |set: HashSet<Name<&str>>| {
            set.into_iter()
                .map(|one| Name {
                    schema: one.schema.map(Into::into),
                    name: one.name.into(),
                })
                .collect()
        };
        Names {
            functions: kept(self.functions),
            relations: kept(self.relations),
            operators: kept(self.operators),
            types: kept(self.types),
            fields: self.fields.into_iter().map(Into::into).collect(),
            constructs: self.constructs.into_iter().collect(),
        }
    }
}

impl Names {
    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        let named = [
            &self.functions,
            &self.relations,
            &self.operators,
            &self.types,
        ];
        let named = named.iter().flat_map(|all| all.iter()).map(|one| {
            size_of::<Name>() + one.name.len() + one.schema.as_ref().map_or(0, |s| s.len())
        });
        let fields = self
            .fields
            .iter()
            .map(|one| size_of::<Box<str>>() + one.len());
        named.sum::<usize>() + fields.sum::<usize>()
    }
}
