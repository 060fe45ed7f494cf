//! Modules depend on each other in one direction only.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends when something is not as it should be"
)]

use std::{fmt, fs, path::Path};

/// Every module and what it may use, lower ones first: nothing may be used that stands below it in
/// this table. A new dependency is a decision, and is written down here.
const MODULES: [(&str, &[&str]); 28] = [
    // Who is served, and the protocol: words without I/O.
    ("tenant", &[]),
    ("wire", &[]),
    ("sql", &[]),
    ("routing", &["sql"]),
    ("usage", &["tenant"]),
    // The data plane.
    ("net", &[]),
    ("tls", &["tenant", "net"]),
    ("topology", &["tenant"]),
    (
        "upstream",
        &["tenant", "wire", "sql", "routing", "net", "tls"],
    ),
    ("notify", &["wire", "upstream"]),
    ("limits", &["tenant", "wire", "usage"]),
    (
        "sessions",
        &["tenant", "wire", "usage", "limits", "net", "upstream"],
    ),
    (
        "pool",
        &[
            "tenant", "wire", "routing", "tls", "topology", "upstream", "notify", "limits",
            "sessions",
        ],
    ),
    ("auth", &["tenant", "wire", "net"]),
    ("admission", &["tenant", "wire", "limits", "net", "auth"]),
    (
        "relay",
        &[
            "tenant", "wire", "sql", "usage", "net", "topology", "routing", "upstream", "notify",
            "sessions", "pool",
        ],
    ),
    (
        "frontend",
        &[
            "tenant",
            "wire",
            "routing",
            "usage",
            "net",
            "tls",
            "topology",
            "upstream",
            "notify",
            "sessions",
            "pool",
            "auth",
            "admission",
            "relay",
        ],
    ),
    // What the operator sees.
    ("crypto", &["tenant"]),
    ("config", &["tenant", "sql", "crypto"]),
    ("telemetry", &["config"]),
    // The control plane.
    (
        "registry",
        &["tenant", "sql", "usage", "config", "crypto", "telemetry"],
    ),
    ("provisioning", &["tenant", "sql"]),
    (
        "control",
        &[
            "tenant",
            "sql",
            "crypto",
            "config",
            "registry",
            "provisioning",
        ],
    ),
    (
        "import",
        &["tenant", "config", "crypto", "registry", "control"],
    ),
    ("api", &["tenant", "tls", "telemetry", "control"]),
    // Everything put together.
    (
        "app",
        &[
            "tenant",
            "usage",
            "net",
            "tls",
            "topology",
            "sessions",
            "pool",
            "auth",
            "admission",
            "frontend",
            "config",
            "telemetry",
            "registry",
            "control",
            "api",
        ],
    ),
    (
        "demo",
        &[
            "tenant",
            "config",
            "crypto",
            "registry",
            "provisioning",
            "control",
            "app",
        ],
    ),
    (
        "cli",
        &[
            "tenant",
            "tls",
            "config",
            "crypto",
            "telemetry",
            "registry",
            "provisioning",
            "control",
            "import",
            "app",
            "demo",
        ],
    ),
];

/// What relays bytes. It gets everything by value from `app`: it knows no file and no operator.
const DATA_PLANE: [&str; 16] = [
    "limits",
    "net",
    "wire",
    "sql",
    "routing",
    "usage",
    "tls",
    "topology",
    "upstream",
    "notify",
    "sessions",
    "pool",
    "auth",
    "admission",
    "relay",
    "frontend",
];

/// What the data plane never uses.
const ABOVE_DATA_PLANE: [&str; 11] = [
    "config",
    "crypto",
    "telemetry",
    "registry",
    "provisioning",
    "control",
    "import",
    "api",
    "app",
    "demo",
    "cli",
];

/// One use of a module in another.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    file: String,
    line: usize,
    module: String,
    used: String,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            module,
            used,
        } = self;
        write!(f, "{file}:{line}: `{module}` uses `{used}`")
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut uses = Vec::new();
    for path in rust_files(&src) {
        let file = path
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        uses.extend(uses_in(&file, &fs::read_to_string(&path).unwrap()));
    }
    assert!(uses.len() > 100, "only {} uses were found", uses.len());
    let violations = violations(&uses);
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
    for (module, may_use) in MODULES {
        for used in may_use {
            let is_used = uses
                .iter()
                .any(|one| one.module == module && one.used == *used);
            assert!(
                is_used,
                "`{module}` may use `{used}` and doesn't: take it out of the table"
            );
        }
    }
}

#[test]
fn the_table_is_complete_and_in_order() {
    let lib = include_str!("../src/lib.rs");
    let mut declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let mut known: Vec<&str> = MODULES.iter().map(|(module, _)| *module).collect();
    for (at, (module, may_use)) in MODULES.iter().enumerate() {
        for used in *may_use {
            assert!(
                known[..at].contains(used),
                "`{used}` stands above `{module}`"
            );
        }
        if DATA_PLANE.contains(module) {
            let mut above = may_use
                .iter()
                .filter(|used| ABOVE_DATA_PLANE.contains(used));
            assert_eq!(above.next(), None, "the data plane's `{module}`");
        }
    }
    declared.sort_unstable();
    known.sort_unstable();
    assert_eq!(declared, known, "src/lib.rs and the table");
}

#[test]
fn a_violation_is_found_however_it_is_written() {
    let found = |file: &str, text: &str| violations(&uses_in(file, text));
    let bad = [
        ("wire/frame.rs", "use crate::tenant::Tenant;"),
        (
            "wire/frame.rs",
            "use crate::{\n  wire::{self, tag},\n  net::Flow,\n};",
        ),
        ("relay/mod.rs", "fn f() { crate::config::Config::load() }"),
        ("relay/mod.rs", "use super::frontend::Frontend;"),
        (
            "relay/names.rs",
            "mod tests { use super::super::super::cli::main; }",
        ),
        (
            "pool/mod.rs",
            "pub(in crate::pool) use crate :: relay :: Relay;",
        ),
        ("nowhere/mod.rs", "use crate::tenant::Tenant;"),
    ];
    for (file, text) in bad {
        assert_eq!(found(file, text).len(), 1, "{file}: {text}");
    }
    let good = [
        (
            "wire/frame.rs",
            "// use crate::net::Flow;\n/* crate::net */ \"crate::net\";",
        ),
        (
            "relay/names.rs",
            "use super::{Relay, client::Client}; use crate::relay::Client;",
        ),
        (
            "relay/mod.rs",
            "use crate::{net::{Flow, Buffer}, pool}; mod tests { use super::*; }",
        ),
        ("lib.rs", "pub mod cli;"),
    ];
    for (file, text) in good {
        assert_eq!(found(file, text), Vec::<String>::new(), "{text}");
    }
    let told = found(
        "relay/mod.rs",
        "\n\nuse crate::{\n    net,\n    app::App,\n};",
    );
    assert_eq!(
        told,
        ["relay/mod.rs:5: `relay` uses `app`, which it may not"]
    );
}

fn violations(uses: &[Use]) -> Vec<String> {
    let is_allowed = |one: &Use| {
        let row = MODULES.iter().find(|(module, _)| *module == one.module);
        row.is_some_and(|(_, may_use)| may_use.contains(&one.used.as_str()))
    };
    let refused = uses.iter().filter(|one| !is_allowed(one));
    refused
        .map(|one| format!("{one}, which it may not"))
        .collect()
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Every other module that a file uses, through `crate::` or through enough `super::`.
fn uses_in(file: &str, text: &str) -> Vec<Use> {
    let Some((module, _)) = file.split_once('/') else {
        // `lib.rs` declares the modules, `main.rs` calls them.
        return Vec::new();
    };
    // `relay/mod.rs` is one `super` away from the root, `relay/names.rs` two.
    let depth = file.split('/').count() - usize::from(file.ends_with("mod.rs"));
    let tokens = tokens(text);
    let word = |at: usize| tokens.get(at).map_or("", |(word, _)| word.as_str());
    let mut inline = Vec::new();
    let mut braces = 0;
    let mut uses = Vec::new();
    for at in 0..tokens.len() {
        match word(at) {
            "{" => {
                braces += 1;
                if at >= 2 && word(at - 2) == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces -= 1;
            }
            "crate" => uses.extend(roots(&tokens, at)),
            "super" if at < 2 || word(at - 2) != "super" => {
                let supers = (0..tokens.len())
                    .take_while(|n| word(at + 2 * n) == "super")
                    .count();
                if supers == depth + inline.len() {
                    uses.extend(roots(&tokens, at + 2 * (supers - 1)));
                }
            }
            _ => {}
        }
    }
    let named = uses.into_iter().filter(|(used, _)| used != module);
    named
        .filter(|(used, _)| used.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|(used, line)| Use {
            file: file.to_owned(),
            line,
            module: module.to_owned(),
            used,
        })
        .collect()
}

/// The first names behind `crate::`, one or a group of them.
fn roots(tokens: &[(String, usize)], root: usize) -> Vec<(String, usize)> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|(token, _)| token == word);
    if !is(root + 1, "::") {
        return Vec::new();
    }
    if !is(root + 2, "{") {
        return tokens.get(root + 2).cloned().into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0;
    for at in root + 2..tokens.len() {
        if is(at, "}") {
            depth -= 1;
        }
        let begins = is(at, "{") && depth == 0 || is(at, ",") && depth == 1;
        if is(at, "{") {
            depth += 1;
        }
        if begins && !is(at + 1, "}") {
            found.extend(tokens.get(at + 1).cloned());
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Words, `::` and single characters with their lines; without comments, strings and spaces.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let text = without_comments_and_strings(text);
    let mut tokens: Vec<(String, usize)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let end = match rest.find(|c| !is_word(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => rest.chars().next().map_or(0, char::len_utf8),
                end => end,
            };
            tokens.push((rest[..end].to_owned(), at + 1));
            rest = rest[end..].trim_start();
        }
    }
    tokens
}

/// Blanks comments and string literals, and keeps the lines.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_bytes(rest)
        } else if ["'\"'", "'{'", "'}'", "'/'"]
            .iter()
            .any(|c| rest.starts_with(c))
        {
            3
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        out.push(' ');
        rest = &rest[skipped..];
    }
    out
}

fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
