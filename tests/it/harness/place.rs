//! A tenant's place in PostgreSQL: a database or a schema, and the roles that use it.

use super::{Client, Connect, postgres::Endpoint};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// The password of every role that a test makes.
pub const ROLE_PASSWORD: &str = "role's \"pass\" wörd";

/// How PostgreSQL lets a role in. The group is named in `pg_hba.conf`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// SCRAM-SHA-256.
    Scram,
    /// MD5.
    Md5,
    /// The password in clear text.
    Password,
    /// Without asking.
    Trust,
    /// SCRAM-SHA-256, only over TLS.
    ScramOverTls,
}

impl Login {
    fn group(self) -> Option<&'static str> {
        match self {
            Self::Scram => None,
            Self::Md5 => Some("by_md5"),
            Self::Password => Some("by_password"),
            Self::Trust => Some("by_trust"),
            Self::ScramOverTls => Some("by_tls"),
        }
    }
}

/// A database or a schema of a role. It goes when the last clone is dropped.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    database: String,
    schema: Option<String>,
    role: String,
}

fn next_name(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{kind}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn create_role(admin: &mut Client, role: &str, login: Login) {
    let encryption = if login == Login::Md5 {
        "md5"
    } else {
        "scram-sha-256"
    };
    admin.exec(&format!("set password_encryption = '{encryption}'"));
    let password = quoted(ROLE_PASSWORD);
    admin.exec(&format!("create role {role} login password {password}"));
    if let Some(group) = login.group() {
        admin.exec(&format!("grant {group} to {role}"));
    }
}

impl Place {
    /// A new role with a schema of its name in the shared database: to the role it looks like a
    /// database of its own, and it takes a hundredth of the time.
    pub fn room(endpoint: &Endpoint, login: Login) -> Self {
        let name = next_name("place");
        let mut admin = endpoint.admin_of("shared");
        create_role(&mut admin, &name, login);
        admin.exec(&format!("create schema {name} authorization {name}"));
        Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            database: "shared".into(),
            schema: None,
            role: name,
        }))
    }

    /// A new database with a new role that owns it.
    pub fn database(endpoint: &Endpoint, login: Login) -> Self {
        let name = next_name("place");
        let mut admin = endpoint.admin();
        create_role(&mut admin, &name, login);
        admin.exec(&format!("create database {name} owner {name}"));
        admin.exec(&format!("revoke connect on database {name} from public"));
        Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            database: name.clone(),
            schema: None,
            role: name,
        }))
    }

    /// A new schema in the shared database, with a new role that owns it.
    pub fn schema(endpoint: &Endpoint) -> Self {
        let name = next_name("place");
        let schema = format!("{name}_schema");
        let mut admin = endpoint.admin_of("shared");
        create_role(&mut admin, &name, Login::Scram);
        admin.exec(&format!("create schema {schema} authorization {name}"));
        Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            database: "shared".into(),
            schema: Some(schema),
            role: name,
        }))
    }

    /// The database.
    pub fn database_name(&self) -> &str {
        &self.0.database
    }

    /// The schema, when the place is one.
    pub fn schema_name(&self) -> Option<&str> {
        self.0.schema.as_deref()
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.0.role
    }

    /// The PostgreSQL that it is in.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Adds a role that may only read what the owner makes from now on, and returns its name.
    pub fn add_reader(&self) -> String {
        let (role, reader) = (self.role(), format!("{}_reader", self.role()));
        let mut admin = self.admin();
        create_role(&mut admin, &reader, Login::Scram);
        admin.exec(&format!(
            "grant connect on database {} to {reader}",
            self.database_name()
        ));
        admin.exec(&format!(
            "alter default privileges for role {role} grant select on tables to {reader}"
        ));
        reader
    }

    /// A superuser's connection to this database.
    pub fn admin(&self) -> Client {
        self.0.endpoint.admin_of(&self.0.database)
    }

    /// A connection to PostgreSQL itself, as the tenant's role.
    pub fn direct(&self) -> Connect {
        let options = self
            .schema_name()
            .map(|schema| format!("-c search_path={schema}"));
        let connect = Connect::to(self.0.endpoint.address())
            .user(&self.0.role)
            .database(&self.0.database)
            .password(ROLE_PASSWORD);
        match options {
            Some(options) => connect.options(&options),
            None => connect,
        }
    }

    /// The pids of the server connections of the tenant's role.
    pub fn server_pids(&self, admin: &mut Client) -> Vec<String> {
        let role = self.role();
        admin.values(&format!(
            "select pid from pg_stat_activity where usename = '{role}' order by backend_start"
        ))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A test that fails drops this while it unwinds: a second panic would end the process.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| {
            if self.database == self.role
                && let Some(mut admin) = self.endpoint.admin_if_up()
            {
                admin.query(&format!("drop database {} with (force)", self.database));
            }
        }));
        drop(dropped);
    }
}
