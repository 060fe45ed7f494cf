//! Where to dial and how, for logins and for cancels alike.

use super::UpstreamError;
use crate::{
    net::{Socket, Stream},
    tenant::{Address, UpstreamTls},
    wire::{CancelKey, frontend},
};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, rustls};

/// One PostgreSQL server's address, with what is needed to reach it.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// TLS towards it.
    pub tls: UpstreamTls,
    /// The TLS configuration, unless TLS is off.
    pub connector: Option<Arc<rustls::ClientConfig>>,
    /// TCP connect, TLS and login together.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Connects, with TLS where the endpoint asks for it.
    ///
    /// # Errors
    /// [`UpstreamError`]; no time limit of its own.
    ///
    /// # Cancel safety
    /// Dropping the future closes the half-open connection.
    pub async fn connect(&self) -> Result<Stream, UpstreamError> {
        let mut socket = match &self.address {
            Address::Tcp { host, port } => Socket::connect_tcp(host, *port).await?,
            Address::Unix(path) => Socket::connect_unix(path).await?,
        };
        // PostgreSQL has no TLS on a socket file; libpq asks for none there either.
        if self.tls == UpstreamTls::Disable || matches!(self.address, Address::Unix(_)) {
            return Ok(Stream::Plain(socket));
        }
        socket.write_all(frontend::SSL_REQUEST).await?;
        if socket.read_u8().await? != b'S' {
            return Err(UpstreamError::NoTls);
        }
        let connector = self.connector.clone().ok_or(UpstreamError::NoTls)?;
        let tls = TlsConnector::from(connector)
            .connect(self.server_name()?, socket)
            .await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    fn server_name(&self) -> Result<rustls::pki_types::ServerName<'static>, UpstreamError> {
        let host = match &self.address {
            Address::Tcp { host, .. } => host.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        rustls::pki_types::ServerName::try_from(host)
            .map_err(|error| UpstreamError::TlsSettings(error.to_string()))
    }

    /// Asks PostgreSQL to cancel what the connection with this key runs, and waits until
    /// PostgreSQL has closed the socket: from then on the signal is with the backend.
    ///
    /// # Errors
    /// [`UpstreamError`]; at most after `connect_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future may or may not have sent the request.
    pub async fn cancel(&self, key: &CancelKey) -> Result<(), UpstreamError> {
        let request = async {
            let mut stream = self.connect().await?;
            let mut packet = Vec::with_capacity(64);
            frontend::cancel(&mut packet, key);
            stream.write_all(&packet).await?;
            stream.flush().await?;
            let mut end = [0; 1];
            // PostgreSQL answers nothing: it closes, in plain or in the middle of TLS.
            drop(stream.read(&mut end).await);
            Ok(())
        };
        tokio::time::timeout(self.connect_timeout, request)
            .await
            .map_err(|_elapsed| UpstreamError::Timeout)?
    }
}
