//! PostgreSQL's SQL as text: tokens, statements and names. No parsing, no I/O, no policy.
//!
//! Texts come from strangers: every function is total, takes time linear in the text, and
//! allocates nothing but where it says so.

mod lexer;
mod name;
mod quote;
mod statements;
mod uses;

pub use lexer::{Kind, Token, Tokens, tokens};
pub use name::{NAME_BYTES_MAX, clipped, is_name_byte, quoted, unquoted};
pub use quote::{quoted_literal, quoted_name};
pub use statements::{Statements, statements};
pub use uses::{Use, may_use_statements, uses};
