//! One connection to PostgreSQL: dialled, logged in, its state known at every moment.
//!
//! A [`Server`] is what a pool lends. It knows what it was asked and has not answered
//! ([`Replies`]), which statements it has ([`Prepared`]), which settings stand on it
//! ([`Settings`]) and whether anything else may have been left on it. From that, and from
//! nothing else, follows whether it is clean.

mod catalogue;
mod clean;
mod convert;
mod dial;
mod endpoint;
mod error;
mod inventory;
mod prepared;
mod replies;
mod server;
mod settings;
mod slot;
mod statement;
mod survey;
mod survey_sql;
mod suspicion;

pub use catalogue::CatalogueAsk;
pub use clean::{AskError, Report, Said};
pub use dial::{Welcome, dial};
pub use endpoint::Endpoint;
pub use error::UpstreamError;
pub use inventory::{Inventory, LISTENS, Sight};
pub use prepared::Prepared;
pub use replies::{Change, Closing, Expect, Lost, Making, Name, Replies, Reply, Verdict};
pub use server::{CancelInFlight, Identity, Numbers, Server, TxStatus};
pub use settings::Settings;
pub use slot::{Binding, Slot, SlotPlace};
pub use statement::{Statement, StatementId, Statements, Told};
pub use survey::Survey;
pub use survey_sql::Scope as SurveyScope;
pub use suspicion::Suspicion;
