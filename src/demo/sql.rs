//! A connection to one of the private servers, and the statements that are run there.

use anyhow::{Context as _, bail};
use std::net::Ipv4Addr;
use tokio_postgres::{Client, Config, NoTls};

/// Whom to be, where.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) database: &'a str,
}

impl Target<'_> {
    /// Logs in. The connection ends when the client is dropped.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(self.port)
            .user(self.user)
            .password(self.password)
            .dbname(self.database)
            .application_name("pgusher demo");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the demo broke");
            }
        });
        Ok(client)
    }

    /// As a URL that `psql` takes.
    pub(super) fn url(&self) -> String {
        url(self.user, self.password, self.port, self.database)
    }
}

/// `postgres://user:password@127.0.0.1:port/database`, percent-encoded.
pub(super) fn url(user: &str, password: &str, port: u16, database: &str) -> String {
    format!(
        "postgres://{}:{}@127.0.0.1:{port}/{}",
        encode(user),
        encode(password),
        encode(database)
    )
}

/// Runs the statements of a file with `{name}`s filled in. `what` is for the message.
pub(super) async fn run(
    client: &Client,
    what: &str,
    template: &str,
    values: &[(&str, &str)],
) -> anyhow::Result<()> {
    let statements = fill(template, values)?;
    let result = client.batch_execute(&statements).await;
    result.with_context(|| format!("can't {what}"))
}

/// Puts values where their names stand in braces. Only values that mean themselves both as a name
/// and inside a literal are taken, so nothing needs quoting.
fn fill(template: &str, values: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if value.is_empty() || !value.chars().all(is_plain) {
            bail!("the value of {name} is not plain");
        }
        text = text.replace(&format!("{{{name}}}"), value);
    }
    Ok(text)
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    encoded
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16)
        .expect("four bits")
        .to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_values_are_filled_in() {
        let filled = fill("ROLE {role} '{role}'", &[("role", "t_a2")]).unwrap();
        assert_eq!(filled, "ROLE t_a2 't_a2'");
        for bad in ["", "a b", "a'", "A", "a;"] {
            assert!(fill("{role}", &[("role", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_percent_encoded() {
        assert_eq!(
            url("a", "p@/:%é", 6432, "d b"),
            "postgres://a:p%40%2F%3A%25%C3%A9@127.0.0.1:6432/d%20b"
        );
    }
}
