//! What a client asks for in its StartupMessage: `options` parsed, our own words taken out, the
//! rest carried as settings of the session. Nothing goes to PostgreSQL as it came.

use crate::{
    auth::Method,
    tenant::{PoolMode, ReadTarget, Tenant},
    upstream::Settings,
    wire::{Refusal, SqlState, StartupPacket},
};
use std::str::FromStr as _;

/// Settings that a client may give at startup.
const SETTINGS_MAX: usize = 64;

/// Why the parameters can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A replication connection.
    #[error("replication connections are not supported")]
    Replication,
    /// A command-line option other than a setting.
    #[error("unsupported command-line option in \"options\": {0}")]
    Option(String),
    /// A setting of ours that there isn't.
    #[error("unrecognized configuration parameter \"{0}\"")]
    UnknownOwn(String),
    /// A value that a setting of ours can't have.
    #[error("invalid value for parameter \"{name}\": \"{value}\"")]
    OwnValue {
        /// The setting.
        name: String,
        /// The value.
        value: String,
    },
    /// A setting that the operator forces.
    #[error("permission denied to set parameter \"{0}\"")]
    Forced(String),
    /// A name that no setting can have.
    #[error("invalid configuration parameter name \"{0}\"")]
    Name(String),
    /// Too many settings.
    #[error("too many startup parameters")]
    TooMany,
}

impl ParameterError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        let sqlstate = match self {
            Self::NoUser => SqlState::UNAUTHORIZED,
            Self::Replication => SqlState::UNSUPPORTED,
            Self::Option(_) | Self::TooMany => SqlState::PROTOCOL,
            Self::UnknownOwn(_) => SqlState("42704"),
            Self::OwnValue { .. } => SqlState::INVALID_VALUE,
            Self::Forced(_) => SqlState::FORBIDDEN,
            Self::Name(_) => SqlState("42602"),
        };
        Refusal::fatal(sqlstate, self.to_string())
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// The tenant's id.
    pub user: Box<str>,
    /// The database; the user's name when it is left out.
    pub database: Box<str>,
    /// How servers are lent, if not as the tenant has it.
    pub pool_mode: Option<PoolMode>,
    /// Where its statements run, if not as the tenant has it.
    pub target: Option<ReadTarget>,
    /// How it proves its key.
    pub method: Method,
    /// Settings of the session.
    pub settings: Settings,
}

impl Wishes {
    /// From a StartupMessage.
    ///
    /// # Errors
    /// [`ParameterError`].
    pub fn new(packet: &StartupPacket) -> Result<Self, ParameterError> {
        let user = packet.parameter("user").filter(|user| !user.is_empty());
        let user = user.ok_or(ParameterError::NoUser)?;
        let database = packet.parameter("database").filter(|name| !name.is_empty());
        let mut wishes = Self {
            user: user.into(),
            database: database.unwrap_or(user).into(),
            pool_mode: None,
            target: None,
            method: Method::Scram,
            settings: Settings::default(),
        };
        // As in PostgreSQL, parameters of their own count more than those in options.
        if let Some(options) = packet.parameter("options") {
            for (name, value) in parse_options(options)? {
                wishes.wish(&name, &value)?;
            }
        }
        for (name, value) in &packet.parameters {
            match &**name {
                "user" | "database" | "options" => {}
                "replication" if is_off(value) => {}
                "replication" => return Err(ParameterError::Replication),
                _ => wishes.wish(name, value)?,
            }
        }
        Ok(wishes)
    }

    fn wish(&mut self, name: &str, value: &str) -> Result<(), ParameterError> {
        let lower = name.to_ascii_lowercase();
        if let Some(own) = lower.strip_prefix("pgusher.") {
            return self.wish_own(own, value);
        }
        // Also keeps the SQL that sets them the same in every client encoding.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
        if name.is_empty() || !name.chars().all(is_allowed) {
            return Err(ParameterError::Name(name.to_owned()));
        }
        self.settings = self.settings.with(name, Some(value));
        if self.settings.iter().count() > SETTINGS_MAX {
            return Err(ParameterError::TooMany);
        }
        Ok(())
    }

    fn wish_own(&mut self, own: &str, value: &str) -> Result<(), ParameterError> {
        let bad_value = || ParameterError::OwnValue {
            name: format!("pgusher.{own}"),
            value: value.to_owned(),
        };
        match own {
            "pool_mode" => {
                self.pool_mode = Some(PoolMode::from_str(value).map_err(|_error| bad_value())?);
            }
            "target" => {
                self.target = Some(ReadTarget::from_str(value).map_err(|_error| bad_value())?);
            }
            "auth" => {
                self.method = match value {
                    "scram" => Method::Scram,
                    "password" => Method::Password,
                    _ => return Err(bad_value()),
                };
            }
            _ => return Err(ParameterError::UnknownOwn(format!("pgusher.{own}"))),
        }
        Ok(())
    }

    /// Checks the settings against what the tenant's operator forces.
    ///
    /// # Errors
    /// [`ParameterError::Forced`].
    pub fn check(&self, tenant: &Tenant) -> Result<(), ParameterError> {
        let forced = |name: &str| tenant.forced.iter().any(|f| f.eq_ignore_ascii_case(name));
        // A role is an identity, not a setting; PostgreSQL decides about SET ROLE later.
        let identity = |name: &str| {
            ["role", "session_authorization"]
                .iter()
                .any(|n| n.eq_ignore_ascii_case(name))
        };
        match self
            .settings
            .iter()
            .find(|(name, _)| forced(name) || identity(name))
        {
            Some((name, _)) => Err(ParameterError::Forced(name.to_owned())),
            None => Ok(()),
        }
    }
}

fn is_off(value: &str) -> bool {
    ["false", "off", "no", "0"]
        .iter()
        .any(|off| off.eq_ignore_ascii_case(value))
}

/// Splits `options` as PostgreSQL does (`pg_split_opts`): by white space, backslash escapes; then
/// `-c name=value`, `-cname=value` and `--name=value`.
fn parse_options(options: &str) -> Result<Vec<(String, String)>, ParameterError> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if let Some(long) = word.strip_prefix("--") {
            Some(long.to_owned())
        } else if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").map(ToOwned::to_owned)
        };
        let setting = setting
            .as_deref()
            .and_then(|setting| setting.split_once('='));
        let (name, value) = setting.ok_or_else(|| ParameterError::Option(word.clone()))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = options.chars().peekable();
    while chars.next_if(char::is_ascii_whitespace).is_some() {}
    while chars.peek().is_some() {
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_ascii_whitespace()) {
            word.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        words.push(word);
        while chars.next_if(char::is_ascii_whitespace).is_some() {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(parameters: &[(&str, &str)]) -> StartupPacket {
        StartupPacket {
            minor: 0,
            parameters: parameters
                .iter()
                .map(|(n, v)| ((*n).into(), (*v).into()))
                .collect(),
            unknown_options: Vec::new(),
        }
    }

    #[test]
    fn options_are_split_as_postgresql_splits_them() {
        let options = r"-c a.b=1 -cx=two\ words  --work-mem=4MB -c e=";
        let expected = [
            ("a.b", "1"),
            ("x", "two words"),
            ("work_mem", "4MB"),
            ("e", ""),
        ]
        .map(own);
        assert_eq!(parse_options(options).unwrap(), expected);
        for bad in ["-d 5", "-c", "-c name", "word", "--flag"] {
            assert!(parse_options(bad).is_err(), "{bad}");
        }
    }

    fn own((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn our_own_words_are_taken_out() {
        let wishes = Wishes::new(&packet(&[
            ("user", "acme"),
            ("options", "-c pgusher.pool_mode=session -c TimeZone=UTC"),
            ("TimeZone", "CET"),
        ]))
        .unwrap();
        assert_eq!(wishes.pool_mode, Some(PoolMode::Session));
        assert_eq!(wishes.settings.value("timezone"), Some("CET"));
        assert_eq!(&*wishes.database, "acme");
        let refused = |parameters| Wishes::new(&packet(parameters)).unwrap_err();
        assert_eq!(refused(&[("database", "x")]), ParameterError::NoUser);
        assert_eq!(
            refused(&[("user", "a"), ("replication", "true")]),
            ParameterError::Replication
        );
        assert!(matches!(
            refused(&[("user", "a"), ("options", "-c pgusher.nope=1")]),
            ParameterError::UnknownOwn(_)
        ));
    }

    #[test]
    fn a_session_may_want_its_statements_on_one_kind_of_server() {
        let target = |options: &str| {
            Wishes::new(&packet(&[("user", "acme"), ("options", options)])).map(|it| it.target)
        };
        assert_eq!(target("-c pgusher.pool_mode=session"), Ok(None));
        for wanted in [ReadTarget::Auto, ReadTarget::Primary, ReadTarget::Replica] {
            let options = format!("-c pgusher.target={}", wanted.as_str());
            assert_eq!(target(&options), Ok(Some(wanted)));
        }
        let refusal = target("-c pgusher.target=standby").unwrap_err().refusal();
        let told = "invalid value for parameter \"pgusher.target\": \"standby\"";
        assert_eq!(refusal, Refusal::fatal(SqlState::INVALID_VALUE, told));
    }

    proptest! {
        #[test]
        fn arbitrary_options_never_panic(options in ".{0,80}") {
            drop(parse_options(&options));
        }
    }
}
