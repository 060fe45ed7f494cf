//! Tier `schema`: a schema of its own in a database that it shares.

use super::{Place, logins, plan::Step, text::fill};
use crate::sql::{quoted_literal, quoted_name};

const SCHEMA: &str = include_str!("sql/schema.sql");
const READER: &str = include_str!("sql/reader.sql");

/// The steps.
pub(super) fn steps(place: &Place) -> Vec<Step> {
    let inside =
        logins::role_statements(place) + &logins::setting_statements(place) + &statements(place);
    vec![
        Step::new(
            "make the tenant's roles and schema",
            &place.database,
            inside,
        ),
        Step::let_connect(place),
    ]
}

/// The statements that make the schema in the database where they are run.
pub(super) fn statements(place: &Place) -> String {
    let (Some(schema), Some(login)) = (&place.schema, &place.login) else {
        return String::new();
    };
    let (role, name) = (quoted_name(&login.role), quoted_name(schema));
    let (role_text, schema_text) = (quoted_literal(&login.role), quoted_literal(schema));
    let reader = place.read_only_login.as_ref();
    let reader_name = reader.map(|login| quoted_name(&login.role));
    let values = [
        ("schema", name.as_str()),
        ("schema_text", &schema_text),
        ("role", &role),
        ("role_text", &role_text),
        ("reader", reader_name.as_deref().unwrap_or("")),
    ];
    let mut statements = fill(SCHEMA, &values);
    if reader_name.is_some() {
        statements += &fill(READER, &values);
    }
    statements
}
