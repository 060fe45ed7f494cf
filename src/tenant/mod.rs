//! Who is served: the vocabulary that every other module speaks. No I/O.
//!
//! A [`Tenant`] says where its data lives ([`Placement`]), as whom ([`Login`]), what it may use
//! ([`Limits`], [`Timeouts`]) and which [`ApiKey`]s open it. A [`Cluster`] is one PostgreSQL
//! primary with its replicas. Both are immutable values behind an `Arc`: a change is a new value
//! in the [`Directory`], which is all that the data plane may ask.

mod cluster;
mod directory;
mod fullness;
mod id;
mod key;
mod limits;
mod place;
mod plan;
mod record;
mod secret;
mod slots;
mod uses;

pub use cluster::{Address, Cluster, Replica, RunningLimit, Standbys, UpstreamTls, Watch};
pub use directory::{Directory, DirectoryError, Lookup};
pub use fullness::Fullness;
pub use id::{ClusterName, IdError, KeyId, TenantId};
pub use key::{ApiKey, KeyRefusal, Scope, ScramVerifier, VerifierError};
pub use limits::{Caps, Consistency, Limits, ReadTarget, Reads, Timeouts};
pub use place::{Login, Pinning, Placement, PoolMode, Tier, UnknownName};
pub use plan::{CUSTOM, Plan, Plans, Terms};
pub use record::{Status, Tenant};
pub use secret::Secret;
pub use slots::{SLOT_RESET, SlotKey, SlotKeyError, Slots};
pub use uses::{KeyName, KeyUses, TooOften};
