//! What tenants use, counted where it happens.
//!
//! A session's own task adds to its [`Counters`] without a locked instruction, and without asking
//! the clock. A [`Meter`] gathers a tenant's sessions when it is asked, those that are open
//! included; what it has given out once it gives out never again. The [`Book`] has the meters of all
//! tenants, an [`Outbox`] what is still to be written somewhere, a [`Board`] which tenants use most.
//! Nothing here does I/O.

mod board;
mod book;
mod counters;
mod errors;
mod figures;
mod histogram;
mod meter;
mod outbox;

pub use board::{Board, Line, Lines};
pub use book::Book;
pub use counters::Counters;
pub use errors::{ERROR_KINDS_MAX, Errors, SqlStateCode};
pub use figures::Figures;
pub use histogram::{BOUNDS_US, Spread};
pub use meter::{Amount, Meter, Reading, Total};
pub use outbox::{BATCH_ROWS_MAX, Batch, Outbox, Row};
