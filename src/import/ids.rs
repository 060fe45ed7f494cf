//! Tenant ids from the names that others gave.

use super::ImportError;
use crate::tenant::TenantId;
use std::collections::BTreeMap;

/// Longest id.
const LENGTH_MAX: usize = 63;

/// The ids given so far, and by whose name.
pub(super) struct Ids<'a> {
    chosen: &'a BTreeMap<String, String>,
    taken: BTreeMap<String, String>,
}

impl<'a> Ids<'a> {
    /// `chosen`: ids that the operator gives names of his choice.
    pub(super) fn new(chosen: &'a BTreeMap<String, String>) -> Self {
        Self {
            chosen,
            taken: BTreeMap::new(),
        }
    }

    /// The id of a name. `owner` is what is said when another has it.
    ///
    /// # Errors
    /// [`ImportError::Collision`] or [`ImportError::Id`].
    pub(super) fn take(&mut self, name: &str, owner: &str) -> Result<TenantId, ImportError> {
        let text = self
            .chosen
            .get(name)
            .cloned()
            .unwrap_or_else(|| normalised(name));
        let id = TenantId::new(&text).map_err(|problem| ImportError::Id {
            name: name.to_owned(),
            problem,
        })?;
        if let Some(first) = self.taken.insert(text.clone(), owner.to_owned()) {
            return Err(ImportError::Collision {
                id: text,
                first,
                second: owner.to_owned(),
            });
        }
        Ok(id)
    }
}

/// Lower case, and `_` for what an id can't have.
pub(super) fn normalised(name: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' => c,
        _ => '_',
    };
    name.chars().map(letter).take(LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_an_id_and_two_of_one_id_are_refused_with_both_names() {
        let chosen = BTreeMap::from([("shop 2".to_owned(), "second".to_owned())]);
        let mut ids = Ids::new(&chosen);
        let mut take = |name: &str| ids.take(name, &format!("database {name:?}"));
        assert_eq!(take("My.Shop ä").unwrap().as_str(), "my_shop__");
        assert_eq!(take("shop 2").unwrap().as_str(), "second");
        assert_eq!(take("shop_2").unwrap().as_str(), "shop_2");
        let error = take("Shop_2").unwrap_err().to_string();
        for part in ["\"Shop_2\"", "\"shop_2\"", "--id"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(matches!(take(""), Err(ImportError::Id { .. })));
    }
}
