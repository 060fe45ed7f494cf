//! The figures that are counted, once as numbers and once as counters of a session.

use super::{errors::Kinds, histogram::Timings, month::Tally};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was used. Each only ever grows.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Figures {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Figures {
            /// Adds to each.
            pub fn add(&mut self, more: &Self) {
                $(self.$name = self.$name.saturating_add(more.$name);)*
            }

            /// How much each is above what was seen before; those that are not: nothing.
            pub(super) fn above(&self, seen: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(seen.$name),)* }
            }

            /// Names and values.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// Plain additions by the session's own task; anyone may read them.
        #[derive(Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            pub(super) born: Instant,
            /// Since when a server is lent, in microseconds from then, plus one; 0: none is.
            pub(super) lent_since: AtomicU64,
            pub(super) errors: OnceLock<Box<Kinds>>,
            /// What is counted in the tenant's month.
            pub(super) tally: Tally,
            /// When the transaction that is measured next began: microseconds from then.
            pub(super) began: AtomicU64,
            /// How many transactions are measured.
            pub(super) measured: AtomicU64,
            /// Where they are, of its tenant's.
            pub(super) timings: OnceLock<Arc<Timings>>,
        }

        impl Default for Counters {
            fn default() -> Self {
                Self {
                    $($name: AtomicU64::new(0),)*
                    born: Instant::now(),
                    lent_since: AtomicU64::new(0),
                    errors: OnceLock::new(),
                    tally: Tally::default(),
                    began: AtomicU64::new(0),
                    measured: AtomicU64::new(0),
                    timings: OnceLock::new(),
                }
            }
        }

        impl Counters {
            pub(super) fn plain(&self) -> Figures {
                Figures { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

figures! {
    /// Statements: Query, Execute and FunctionCall messages.
    queries,
    /// Transactions that ended.
    transactions,
    /// Of these, those that ran on a replica.
    replica_transactions,
    /// Rows that commands were said to return or to change.
    rows,
    /// Bytes from the client.
    client_bytes,
    /// Bytes from the server.
    server_bytes,
    /// Microseconds for which a server was lent.
    server_time_us,
    /// Microseconds of waiting for one.
    wait_time_us,
}

impl Figures {
    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}
