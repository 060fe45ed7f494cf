//! Statements from files, with names and values put in.

/// Takes an advisory lock until the end of the transaction, where the admin may: changes of one
/// row of a catalogue by several at once fail, so they come one after the other. Who may not tries
/// again.
pub(super) const ONE_AT_A_TIME: &str = "DO $lock$ BEGIN
    IF pg_catalog.has_function_privilege('pg_catalog.pg_advisory_xact_lock(bigint)', 'EXECUTE') THEN
        PERFORM pg_catalog.pg_advisory_xact_lock(7202412);
    END IF;
END $lock$;\n";

/// Puts values where their names stand in braces. Values are quoted already: names by
/// `sql::quoted_name`, texts by `sql::quoted_literal`.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        filled.push_str(before);
        let inner = from.get(1..).unwrap_or_default();
        let named = inner.split_once('}');
        let value = named.and_then(|(name, after)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((*value, after))
        });
        if let Some((value, after)) = value {
            filled.push_str(value);
            rest = after;
        } else {
            filled.push('{');
            rest = inner;
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_once() {
        let values = [("a", "{b}"), ("b", "x")];
        assert_eq!(fill("{a} '{}' {b}{c} {", &values), "{b} '{}' x{c} {");
    }
}
