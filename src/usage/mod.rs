//! What tenants use, counted where it happens.
//!
//! A session's own task adds to its [`Counters`] without a locked instruction, and without asking
//! the clock. A [`Meter`] gathers a tenant's sessions when it is asked, those that are open
//! included; what it has given out once it gives out never again. The [`Book`] has the meters of all
//! tenants, an [`Outbox`] what is still to be written somewhere, a [`Board`] which tenants use most,
//! a [`Month`] how much of a monthly quota is left. Nothing here does I/O.

mod board;
mod book;
mod calendar;
mod counters;
mod errors;
mod figures;
mod histogram;
mod meter;
mod month;
mod outbox;
mod quota;

pub use board::{Board, Line, Lines};
pub use book::Book;
pub use calendar::{Calendar, to_the_minute};
pub use counters::Counters;
pub use errors::{ERROR_KINDS_MAX, Errors, SqlStateCode};
pub use figures::Figures;
pub use histogram::{BOUNDS_US, Spread};
pub use meter::{Amount, Meter, Reading, Total};
pub use month::Month;
pub use outbox::{BATCH_ROWS_MAX, Batch, Outbox, Row};
pub use quota::{Level, Monthly, Quota, Standing};
