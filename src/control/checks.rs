//! What several use cases ask of what they are given.

use super::ControlError;
use sqlx::PgConnection;

/// Names and the like, in bytes.
const TEXT_BYTES_MAX: usize = 200;
/// RFC 5321.
const EMAIL_BYTES_MAX: usize = 254;

pub(super) fn invalid(field: &str, problem: impl Into<String>) -> ControlError {
    ControlError::Invalid {
        field: field.to_owned(),
        problem: problem.into(),
    }
}

/// A text that PostgreSQL can keep, of a length that people read.
pub(super) fn text(field: &str, text: &str) -> Result<(), ControlError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(invalid(
            field,
            format!("it has more than {TEXT_BYTES_MAX} bytes"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "it has a control character"));
    }
    Ok(())
}

/// An e-mail address in the one form that it is kept in: lower case, without spaces around it.
pub(super) fn email(text: &str) -> Result<String, ControlError> {
    let email = text.trim().to_lowercase();
    let parts = email.rsplit_once('@');
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    let is_email = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && email.chars().all(is_plain);
    if !is_email || email.len() > EMAIL_BYTES_MAX {
        return Err(invalid("email", "it is no e-mail address"));
    }
    Ok(email)
}

/// That a tenant is there, and that nobody else changes what belongs to it until the transaction
/// ends.
pub(super) async fn tenant(db: &mut PgConnection, id: &str) -> Result<(), ControlError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT status FROM pgusher.tenant WHERE id = $1 FOR NO KEY UPDATE")
            .bind(id)
            .fetch_optional(db)
            .await?;
    match found.as_deref() {
        Some("terminated") => Err(ControlError::Conflict(format!(
            "tenant {id:?} is terminated"
        ))),
        Some(_) => Ok(()),
        None => Err(ControlError::NotFound {
            what: "tenant",
            id: id.to_owned(),
        }),
    }
}

/// That a tenant is there, to be looked at.
pub(super) async fn seen(db: &mut PgConnection, id: &str) -> Result<(), ControlError> {
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pgusher.tenant WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    let there = found.map(|_one| ());
    there.ok_or_else(|| ControlError::NotFound {
        what: "tenant",
        id: id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        assert_eq!(email(" Ann@Acme.Example ").unwrap(), "ann@acme.example");
        for wrong in [
            "",
            "ann",
            "@acme",
            "ann@",
            "a b@c",
            "a\0@c",
            &format!("{}@c", "a".repeat(300)),
        ] {
            assert!(email(wrong).is_err(), "{wrong}");
        }
    }
}
