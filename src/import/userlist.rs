//! PgBouncer's `auth_file`: who may log in, and with what.

use super::{ImportError, ini};
use crate::tenant::{ScramVerifier, Secret};
use std::path::Path;

/// What proves a user. Not printable.
pub(super) enum Proof {
    /// The password itself.
    Plain(Secret),
    /// A verifier that we can keep.
    Scram(ScramVerifier),
    /// `md5…`: nothing that SCRAM can use can be made of it.
    Md5,
    /// `SCRAM-SHA-256$…` that can't be read.
    Unreadable,
    /// An empty password: PgBouncer trusts, or asks somebody else.
    None,
}

/// A user of the file.
pub(super) struct User {
    pub(super) name: String,
    pub(super) proof: Proof,
}

impl User {
    /// The password, where the file has it.
    pub(super) fn password(&self) -> Option<&Secret> {
        match &self.proof {
            Proof::Plain(password) => Some(password),
            _ => None,
        }
    }
}

/// Reads the file. A name that comes twice has what comes last.
///
/// # Errors
/// [`ImportError::Syntax`] with the line, without its contents.
pub(super) fn read(path: &Path) -> Result<Vec<User>, ImportError> {
    let text = zeroize::Zeroizing::new(ini::text_of(path)?);
    let mut users: Vec<User> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let (name, secret) = fields(line).ok_or_else(|| ImportError::Syntax {
            spot: format!("{}:{}", path.display(), index + 1),
            problem: "a line is \"user\" \"password\", both in double quotes",
        })?;
        let proof = proof(secret);
        match users.iter_mut().find(|user| user.name == name) {
            Some(user) => user.proof = proof,
            None => users.push(User { name, proof }),
        }
    }
    Ok(users)
}

/// What stands behind the second field is of no meaning.
fn fields(line: &str) -> Option<(String, String)> {
    let (name, rest) = ini::doubled(line.strip_prefix('"')?, '"')?;
    let (_, rest) = rest.split_once('"')?;
    let (secret, _) = ini::doubled(rest, '"')?;
    Some((name, secret))
}

fn proof(secret: String) -> Proof {
    let is_md5 = |rest: &str| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    if secret.is_empty() {
        Proof::None
    } else if secret.strip_prefix("md5").is_some_and(is_md5) {
        Proof::Md5
    } else if secret.starts_with("SCRAM-SHA-256$") {
        secret.parse().map_or(Proof::Unreadable, Proof::Scram)
    } else {
        Proof::Plain(Secret::new(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Vec<User>, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("userlist.txt");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn every_form_of_a_password_is_told_apart() {
        let list = users(
            ";c\n\"a\" \"it\"\"s\" more\n\n\"b\"\"c\"\t\"md5ab8b744ff66bee42dc47bae34ca17959\"\n\
             \"d\" \"\"\n\"e\" \"SCRAM-SHA-256$x\"\n\"f\" \"old\"\n\"f\" \"md5 is no hash\"\n",
        )
        .unwrap();
        let names: Vec<_> = list.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["a", "b\"c", "d", "e", "f"]);
        assert_eq!(list[0].password().unwrap().expose(), "it\"s");
        assert!(matches!(list[1].proof, Proof::Md5));
        assert!(matches!(list[2].proof, Proof::None));
        assert!(matches!(list[3].proof, Proof::Unreadable));
        assert_eq!(list[4].password().unwrap().expose(), "md5 is no hash");
    }

    #[test]
    fn a_broken_line_is_told_without_what_is_in_it() {
        for text in ["\"a\" hunter2\n", "a hunter2", "\"a\" \"hunter2"] {
            let error = users(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("userlist.txt:1"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
