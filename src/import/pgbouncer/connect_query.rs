//! `connect_query`: where it only sets things, the settings are what it means.

/// The settings of a text that is nothing but `SET name = value`; `None` for any other.
pub(super) fn settings(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains("--") || text.contains("/*") || text.contains('$') || text.contains('\\') {
        return None;
    }
    let mut settings = Vec::new();
    for statement in statements(text)? {
        let statement = statement.trim();
        if !statement.is_empty() {
            settings.push(setting(statement)?);
        }
    }
    (!settings.is_empty()).then_some(settings)
}

/// The parts between semicolons that stand outside quotes.
fn statements(text: &str) -> Option<Vec<&str>> {
    let mut is_quoted = false;
    let parts = text.split(|c| {
        is_quoted ^= c == '\'';
        c == ';' && !is_quoted
    });
    let parts = parts.collect();
    (!text.contains('"') && text.matches('\'').count().is_multiple_of(2)).then_some(parts)
}

fn setting(statement: &str) -> Option<(String, String)> {
    let rest = word(statement, "set")?;
    let rest = word(rest, "session").unwrap_or(rest);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let end = rest.find(|c| !is_name(c))?;
    let (name, rest) = rest.split_at(end);
    // These words are syntax there, or no settings.
    let is_other = ["local", "session", "time", "transaction", "role"];
    if name.is_empty()
        || is_other
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    {
        return None;
    }
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').or_else(|| word(rest, "to"))?.trim();
    let value = if let Some(quoted) = value.strip_prefix('\'') {
        let (value, rest) = super::super::ini::doubled(quoted, '\'')?;
        // In a list a quoted comma is part of a name.
        (rest.is_empty() && !value.contains(',')).then_some(value)?
    } else {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-+, ".contains(c);
        let words = value.split(',').all(|part| {
            let part = part.trim();
            !part.is_empty() && !part.contains(' ')
        });
        let is_default = value.eq_ignore_ascii_case("default");
        (words && !is_default && value.chars().all(is_plain)).then(|| value.to_owned())?
    };
    Some((name.to_owned(), value))
}

/// What is behind a word and a space.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = text.split_at_checked(word.len())?;
    let is_it = first.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace);
    is_it.then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn what_only_sets_becomes_settings() {
        let all =
            settings("set enable_seqscan=off; SET SESSION search_path TO a, b;set x.y = 'it''s'");
        let all = all.unwrap();
        let pairs: Vec<_> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("enable_seqscan", "off"),
                ("search_path", "a, b"),
                ("x.y", "it's")
            ]
        );
        assert_eq!(settings("set a = 'b;c'").unwrap()[0].1, "b;c");
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "select 1",
            "set a = 1; select 1",
            "set role app",
            "set role = app",
            "set local a = 1",
            "set time zone 'UTC'",
            "set a = default",
            "set a = 'b' -- c",
            "set search_path = 'a, b'",
            "set search_path = \"A\"",
            "set a = b c",
            "set a = 'b",
            "",
            ";",
        ] {
            assert_eq!(settings(text), None, "{text}");
        }
    }
}
