//! Where the proxy listens: on sockets of its own, of the service manager, or of the process before it.

use crate::{
    config::{ListenAddress, Proxy},
    frontend::{Bound, bind},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Clients, at an address of the file.
    Clients,
    /// Clients, at an address of the service manager's.
    Activated,
    /// HTTP for operators.
    Admin,
}

/// Which socket it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) role: Role,
    /// As the file has it.
    pub(super) address: String,
}

/// Sockets that the process before this one listens on.
#[derive(Debug, Default)]
pub(super) struct Handed(pub(super) Vec<(Label, OwnedFd)>);

impl Handed {
    fn take(&mut self, label: &Label) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(known, _)| known == label)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Closes what is left: nobody is to listen there any more. Socket files go, too.
    pub(super) fn close(self) {
        for (label, socket) in self.0 {
            drop(socket);
            if let Some(path) = label.address.strip_prefix("unix:") {
                tracing::debug!(path, "no longer listened on");
                drop(std::fs::remove_file(path));
            }
        }
    }
}

/// Listens wherever clients are to connect.
///
/// # Errors
/// When an address is taken or not ours.
pub(super) fn listen(proxy: &Proxy, handed: &mut Handed) -> anyhow::Result<Vec<(Label, Bound)>> {
    let mut bound = activated(handed)?;
    if !bound.is_empty() {
        return Ok(bound);
    }
    for listen in &proxy.listen {
        let label = Label {
            role: Role::Clients,
            address: listen.address.to_string(),
        };
        let (tcp, path) = match &listen.address {
            ListenAddress::Tcp(address) => (Ok(*address), None),
            ListenAddress::Unix(path) => (Err(path.as_path()), Some(path.as_path())),
        };
        let listener = match handed.take(&label) {
            Some(socket) => Bound::inherited(socket, path, listen.proxy_protocol),
            None => bind(tcp, listen.proxy_protocol),
        };
        let listener = listener.with_context(|| format!("can't listen on {}", listen.address))?;
        bound.push((label, listener));
    }
    Ok(bound)
}

/// The service manager's, from itself or from the process before this one.
fn activated(handed: &mut Handed) -> anyhow::Result<Vec<(Label, Bound)>> {
    let mut sockets = Vec::new();
    let is_activated = |(label, _): &mut (Label, OwnedFd)| label.role == Role::Activated;
    sockets.extend(
        handed
            .0
            .extract_if(.., is_activated)
            .map(|(_, socket)| socket),
    );
    let mut inherited = listenfd::ListenFd::from_env();
    for at in 0..inherited.len() {
        sockets.extend(inherited.take_tcp_listener(at)?.map(OwnedFd::from));
    }
    let bound = sockets.into_iter().map(|socket| {
        let bound = Bound::inherited(socket, None, false)?;
        let (role, address) = (Role::Activated, bound.address());
        Ok((Label { role, address }, bound))
    });
    bound.collect()
}

/// Listens for operators.
///
/// # Errors
/// When the address is taken or not ours.
pub(super) fn listen_for_admin(
    address: SocketAddr,
    handed: &mut Handed,
) -> anyhow::Result<(Label, TcpListener)> {
    let label = Label {
        role: Role::Admin,
        address: address.to_string(),
    };
    let listener = match handed.take(&label) {
        Some(socket) => TcpListener::from(socket),
        None => TcpListener::bind(address)
            .with_context(|| format!("can't listen on {address} for [admin]"))?,
    };
    listener.set_nonblocking(true)?;
    Ok((label, listener))
}
