//! The settings that clients change, and how.

use super::chance::Chance;

/// Where a setting's values come from.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these, spelt as SHOW spells them.
    Of(&'static [&'static str]),
    /// Any text: the client's own mark.
    Marks,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name.
    pub name: &'static str,
    /// Whether PostgreSQL reports it.
    pub is_reported: bool,
    /// Its values.
    pub values: Values,
}

const fn setting(name: &'static str, values: Values) -> Setting {
    Setting {
        name,
        is_reported: false,
        values,
    }
}

const fn reported(name: &'static str, values: Values) -> Setting {
    Setting {
        name,
        is_reported: true,
        values,
    }
}

/// All of them. Those with a dot PostgreSQL does not list.
pub const SETTINGS: [Setting; 19] = [
    setting("work_mem", Values::Of(&["1111kB", "2222kB", "3MB", "5MB"])),
    setting("statement_timeout", Values::Of(&["1h", "2h", "3h"])),
    setting("lock_timeout", Values::Of(&["1h", "2h"])),
    setting("enable_seqscan", Values::Of(&["off", "on"])),
    setting("extra_float_digits", Values::Of(&["0", "2", "3"])),
    setting(
        "search_path",
        Values::Of(&[
            "alt, \"$user\", public",
            "\"$user\", public, alt",
            "\"$user\", pg_catalog, public",
        ]),
    ),
    setting(
        "default_transaction_isolation",
        Values::Of(&["repeatable read", "read committed"]),
    ),
    reported("application_name", Values::Marks),
    reported(
        "DateStyle",
        Values::Of(&["SQL, DMY", "German, DMY", "Postgres, MDY", "ISO, YMD"]),
    ),
    reported("IntervalStyle", Values::Of(&["iso_8601", "sql_standard"])),
    reported(
        "TimeZone",
        Values::Of(&["Asia/Kathmandu", "Pacific/Chatham", "Europe/Berlin"]),
    ),
    reported("client_encoding", Values::Of(&["LATIN1", "UTF8"])),
    reported("standard_conforming_strings", Values::Of(&["off", "on"])),
    setting("app.x", Values::Marks),
    setting("app.y", Values::Marks),
    setting("app.bound", Values::Marks),
    setting("app.trigger", Values::Marks),
    setting("app.view", Values::Marks),
    setting("app.hidden", Values::Marks),
];

/// Those that SET may name: the others are set by functions, triggers and views alone.
pub const SET: usize = 15;

impl Setting {
    /// Whether it is the tenant's own.
    pub fn is_custom(&self) -> bool {
        self.name.contains('.')
    }

    /// A value.
    pub fn value(&self, chance: &mut Chance, mark: &str) -> String {
        match self.values {
            Values::Of(values) => chance.pick(values).to_owned(),
            Values::Marks => mark.to_owned(),
        }
    }
}

/// One query for the values of all of them, and of who the client is.
pub fn question() -> String {
    let values = SETTINGS.map(|setting| {
        let name = setting.name;
        if setting.is_custom() {
            format!("coalesce(current_setting('{name}', true), '')")
        } else {
            format!("current_setting('{name}')")
        }
    });
    format!(
        "select concat_ws('|', {}, current_setting('role'), current_user)",
        values.join(", ")
    )
}
