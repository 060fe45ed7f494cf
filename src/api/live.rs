//! What the data plane of this process knows of a tenant now.

use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// The sessions and servers of a tenant in this process, now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct LiveTenant {
    /// Clients that are logged in.
    pub clients: u64,
    /// Of these, those that wait for a server.
    pub clients_waiting: u64,
    /// Server connections that are lent.
    pub servers_active: u64,
    /// Server connections that are not.
    pub servers_idle: u64,
    /// Server connections that sessions keep.
    pub servers_pinned: u64,
    /// Transactions of the clients that are logged in now, since each one's login.
    pub transactions: u64,
    /// Statements of the same.
    pub queries: u64,
    /// Bytes from the same clients.
    pub client_bytes: u64,
    /// Bytes to them.
    pub server_bytes: u64,
}

/// Who can be asked for it.
pub trait Live: fmt::Debug + Send + Sync + 'static {
    /// What is known of a tenant; all zeros where it has neither session nor server. Must not block.
    fn tenant(&self, id: &str) -> LiveTenant;
}

/// A process without a data plane.
#[derive(Debug)]
pub struct NothingLive;

impl Live for NothingLive {
    fn tenant(&self, _id: &str) -> LiveTenant {
        LiveTenant::default()
    }
}
