//! As whom to log in at `PostgreSQL`, and with which password.

use super::{Check, Checked, open};
use crate::{
    config::{
        error::{Fault, Problem},
        location::At,
        raw,
        units::SecretText,
    },
    tenant::{Login, Secret},
};
use std::{
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// A file of passwords is no password file.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// The three ways to give a password: at most one is used.
pub(super) struct Source<'a> {
    pub(super) names: [&'static str; 3],
    pub(super) inline: Option<&'a SecretText>,
    pub(super) variable: Option<&'a str>,
    pub(super) file: Option<&'a Path>,
}

impl Check<'_> {
    /// The login for keys that read and write.
    pub(super) fn login(&mut self, at: At<'_>, tenant: &raw::Tenant) -> Checked<Login> {
        let source = Source {
            names: ["password", "password_env", "password_file"],
            inline: tenant.password.as_ref(),
            variable: tenant.password_env.as_deref(),
            file: tenant.password_file.as_deref(),
        };
        let password = self.password(at, &source);
        let missing = Fault::Missing("give the role to log in as at PostgreSQL");
        let role = self.sql_name(at.key("role"), tenant.role.as_deref(), missing);
        Ok(Login {
            role: role?,
            password: password?,
        })
    }

    /// The login for keys that only read, if there is one.
    pub(super) fn read_only_login(
        &mut self,
        at: At<'_>,
        tenant: &raw::Tenant,
    ) -> Checked<Option<Login>> {
        let source = Source {
            names: [
                "read_only_password",
                "read_only_password_env",
                "read_only_password_file",
            ],
            inline: tenant.read_only_password.as_ref(),
            variable: tenant.read_only_password_env.as_deref(),
            file: tenant.read_only_password_file.as_deref(),
        };
        let password = self.password(at, &source)?;
        if tenant.read_only_role.is_none() && password.is_none() {
            return Ok(None);
        }
        let missing = Fault::Missing("the read-only password needs its role");
        let role = tenant.read_only_role.as_deref();
        let role = self.sql_name(at.key("read_only_role"), role, missing)?;
        Ok(Some(Login { role, password }))
    }

    /// A name that PostgreSQL can have.
    pub(super) fn sql_name(
        &mut self,
        at: At<'_>,
        name: Option<&str>,
        missing: Fault,
    ) -> Checked<Box<str>> {
        let Some(name) = name else {
            return self.problem(at, missing);
        };
        if name.is_empty() || name.len() > 63 || name.contains('\0') {
            let value = name.to_owned();
            return self.problem(at, Fault::SqlName { value });
        }
        Ok(name.into())
    }

    /// What one of the three ways gives; `None` when none of them is used.
    pub(super) fn password(&mut self, at: At<'_>, source: &Source<'_>) -> Checked<Option<Secret>> {
        let [inline, variable, file] = source.names;
        let (at, secret) = match (source.inline, source.variable, source.file) {
            (None, None, None) => return Ok(None),
            (Some(text), None, None) => (at.key(inline), text.0.clone()),
            (None, Some(name), None) => {
                let at = at.key(variable);
                let Some(text) = (self.environment)(name) else {
                    let name = name.to_owned();
                    return self.problem(at, Fault::Environment { name });
                };
                (at, Secret::new(text))
            }
            (None, None, Some(path)) => (at.key(file), self.password_file(at.key(file), path)?),
            (Some(_), Some(_), _) => {
                return self.problem(at.key(variable), Fault::Excludes(inline));
            }
            (Some(_), None, Some(_)) => {
                return self.problem(at.key(file), Fault::Excludes(inline));
            }
            (None, Some(_), Some(_)) => {
                return self.problem(at.key(file), Fault::Excludes(variable));
            }
        };
        if secret.expose().is_empty() {
            return self.problem(at, Fault::EmptySecret);
        }
        if secret.expose().contains('\0') {
            return self.problem(at, Fault::Nul);
        }
        Ok(Some(secret))
    }

    fn password_file(&mut self, at: At<'_>, path: &Path) -> Checked<Secret> {
        let path = self.directory.join(path);
        match read_password(&path) {
            Ok((secret, is_world_readable)) => {
                if is_world_readable {
                    let warning = Problem::new(at, Fault::WorldReadable { path });
                    self.warnings.push(warning);
                }
                Ok(secret)
            }
            Err(source) => self.problem(at, Fault::File { path, source }),
        }
    }
}

/// The password in a file, without its last newline; and whether every user can read it.
fn read_password(path: &Path) -> io::Result<(Secret, bool)> {
    let file = open(path)?;
    let is_world_readable = file.metadata()?.permissions().mode() & 0o004 != 0;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    Ok((Secret::new(password.to_owned()), is_world_readable))
}
