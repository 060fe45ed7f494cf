//! A tenant's keys: what its users proved themselves with, where that can be kept.

use super::{
    super::{
        ids::normalised,
        keys,
        userlist::{Proof, User},
    },
    ImportError, Toml,
};
use crate::tenant::{ScramVerifier, Secret};

/// A key of a tenant.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) verifier: ScramVerifier,
    pub(super) max_clients: Option<u64>,
    /// The key itself, where it was made here.
    pub(super) new: Option<Secret>,
    /// Why the old password can't be used.
    pub(super) why_new: Option<&'static str>,
}

impl Key {
    pub(super) fn write(&self, toml: &mut Toml) {
        let mut line = format!(
            "  {{ id = {}, verifier = {}",
            toml::Value::from(self.id.as_str()),
            toml::Value::from(self.verifier.to_string())
        );
        if let Some(clients) = self.max_clients {
            line = format!("{line}, max_client_connections = {clients}");
        }
        line.push_str(" },");
        toml.line(&line);
    }
}

/// The keys of these users. All share salt and iterations: those of the most verifiers.
pub(super) fn keys(users: &[&User]) -> Result<Vec<Key>, ImportError> {
    let mut like = shared(users).cloned();
    let mut made: Vec<Key> = Vec::with_capacity(users.len());
    for user in users {
        let (verifier, new, why_new) = match &user.proof {
            Proof::Scram(verifier) if like.as_ref().is_some_and(|like| fits(like, verifier)) => {
                (verifier.clone(), None, None)
            }
            Proof::Plain(password) => (keys::verifier_of(password, like.as_ref())?, None, None),
            other => {
                let key = keys::create(like.as_ref())?;
                (key.verifier, Some(key.text), Some(why(other)))
            }
        };
        like.get_or_insert_with(|| verifier.clone());
        made.push(Key {
            id: id(&user.name, &made),
            user: user.name.clone(),
            verifier,
            max_clients: None,
            new,
            why_new,
        });
    }
    Ok(made)
}

fn why(proof: &Proof) -> &'static str {
    match proof {
        Proof::Scram(_) => {
            "its SCRAM verifier has another salt than those of the tenant's other users, and a tenant's keys share one"
        }
        Proof::Md5 => "an md5 hash can't be used with SCRAM",
        Proof::Unreadable => "its SCRAM verifier can't be read",
        Proof::None | Proof::Plain(_) => "it has no password in the auth_file",
    }
}

fn fits(one: &ScramVerifier, other: &ScramVerifier) -> bool {
    (one.iterations, &one.salt) == (other.iterations, &other.salt)
}

/// The verifier whose salt most others have; the first of them.
fn shared<'a>(users: &[&'a User]) -> Option<&'a ScramVerifier> {
    let verifiers: Vec<_> = users
        .iter()
        .filter_map(|user| match &user.proof {
            Proof::Scram(verifier) => Some(verifier),
            _ => None,
        })
        .collect();
    let count = |one: &ScramVerifier| verifiers.iter().filter(|other| fits(one, other)).count();
    // The last of several maxima is taken: from the end, that is the first.
    verifiers.iter().rev().copied().max_by_key(|one| count(one))
}

fn id(user: &str, others: &[Key]) -> String {
    let wish = normalised(user);
    let wish = if wish.is_empty() {
        "key".to_owned()
    } else {
        wish
    };
    let is_taken = |id: &str| others.iter().any(|key| key.id == id);
    if !is_taken(&wish) {
        return wish;
    }
    let stem: String = wish.chars().take(56).collect();
    let ids = (2..).map(|number| format!("{stem}-{number}"));
    ids.into_iter().find(|id| !is_taken(id)).unwrap_or(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scram(password: &str, like: Option<&ScramVerifier>) -> ScramVerifier {
        keys::verifier_of(&Secret::new(password.to_owned()), like).unwrap()
    }

    #[test]
    fn the_salt_of_most_is_kept_and_plain_passwords_follow() {
        let alone = scram("a", None);
        let pair = scram("b", None);
        let users = [
            ("alone", Proof::Scram(alone)),
            ("b", Proof::Scram(pair.clone())),
            ("B", Proof::Scram(scram("c", Some(&pair)))),
            ("plain", Proof::Plain(Secret::new("p".into()))),
            ("hash", Proof::Md5),
        ]
        .map(|(name, proof)| User {
            name: name.into(),
            proof,
        });
        let users: Vec<&User> = users.iter().collect();
        let keys = keys(&users).unwrap();
        assert!(keys.iter().all(|key| fits(&key.verifier, &pair)));
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["alone", "b", "b-2", "plain", "hash"]);
        let new: Vec<_> = keys.iter().map(|key| key.new.is_some()).collect();
        assert_eq!(new, [true, false, false, false, true]);
        assert!(keys[0].why_new.unwrap().contains("another salt"));
        assert!(keys[3].verifier == scram("p", Some(&pair)));
        let shown = keys[4].new.as_ref().unwrap();
        assert!(keys[4].verifier == scram(shown.expose(), Some(&pair)));
    }

    #[test]
    fn of_equal_salts_the_first_is_kept() {
        let users = ["a", "b"].map(|name| User {
            name: name.into(),
            proof: Proof::Scram(scram(name, None)),
        });
        let users: Vec<&User> = users.iter().collect();
        let keys = keys(&users).unwrap();
        assert!(keys[0].new.is_none() && keys[1].new.is_some());
    }
}
