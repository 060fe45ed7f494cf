//! TLS towards clients: certificate files, read again without touching open connections.

use crate::net::Stream;
use arc_swap::ArcSwapOption;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::{ServerSessionMemoryCache, WebPkiClientVerifier},
    },
};

/// TLS sessions kept for resumption.
const SESSIONS_MAX: usize = 10_000;

/// The protocol's name in ALPN, which direct TLS must name (PostgreSQL 17).
pub(crate) const ALPN: &[u8] = b"postgresql";

/// HTTP's.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error("{path} can't be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key don't fit, or are not supported.
    #[error("certificate and key can't be used")]
    Rustls(#[source] rustls::Error),
    /// The CA can't be used.
    #[error("the CA can't be used: {0}")]
    Verifier(String),
}

/// The files behind a client-facing TLS configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Private key (PEM).
    pub key: PathBuf,
    /// CA that client certificates come from.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must have a certificate.
    pub client_certificate_required: bool,
}

/// What a handshake needs: taken once per connection.
pub struct Keys {
    /// Accepts TLS connections.
    pub acceptor: TlsAcceptor,
    /// SCRAM-SHA-256-PLUS, bound to the certificate.
    pub scram: ScramServerAuth,
}

/// The current TLS configuration; none when TLS is off.
#[derive(Default)]
pub struct ServerTls(ArcSwapOption<Keys>);

impl ServerTls {
    /// Reads the files and uses them from the next handshake on. On an error the old ones stay.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(&self, files: Option<&TlsFiles>) -> Result<(), TlsError> {
        let keys = files.map(Keys::read).transpose()?;
        self.0.store(keys.map(Arc::new));
        Ok(())
    }

    /// The current configuration.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.0.load_full()
    }
}

/// TLS of a listener that speaks HTTP; none when it is plain.
#[derive(Default)]
pub struct HttpTls(ArcSwapOption<TlsAcceptor>);

impl fmt::Debug for HttpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpTls")
    }
}

impl HttpTls {
    /// Reads certificate chain and private key (PEM).
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn read(files: Option<&(PathBuf, PathBuf)>) -> Result<Self, TlsError> {
        let Some((certificate, key)) = files.cloned() else {
            return Ok(Self::default());
        };
        let files = TlsFiles {
            certificate,
            key,
            client_ca: None,
            client_certificate_required: false,
        };
        let acceptor = TlsAcceptor::from(Arc::new(configured(&files, ALPN_HTTP)?));
        Ok(Self(ArcSwapOption::from_pointee(acceptor)))
    }

    /// Uses another's from the next handshake on.
    pub fn follow(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// Accepts TLS; `None`: the listener is plain.
    pub fn acceptor(&self) -> Option<Arc<TlsAcceptor>> {
        self.0.load_full()
    }
}

impl Keys {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let pem = std::fs::read(&files.certificate)
            .map_err(|error| unreadable(&files.certificate, &error))?;
        let config = configured(files, ALPN)?;
        let mut scram = ScramServerAuth::new();
        scram
            .configure_certificate(&pem)
            .map_err(|error| unreadable(&files.certificate, &error))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            scram,
        })
    }
}

/// What these files amount to, for one protocol.
fn configured(files: &TlsFiles, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
    let certificates = read_certificates(&files.certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(read_certificates(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.client_certificate_required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::Verifier(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, read_key(&files.key)?)
        .map_err(TlsError::Rustls)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(config)
}

fn unreadable(path: &Path, error: &dyn fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// All certificates of a PEM file; at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, &error))
}

/// Whether a client named the protocol in ALPN, as direct TLS must.
pub fn is_postgresql(stream: &Stream) -> bool {
    match stream {
        Stream::Tls(tls) => match tls.as_ref() {
            tokio_rustls::TlsStream::Server(tls) => tls.get_ref().1.alpn_protocol() == Some(ALPN),
            tokio_rustls::TlsStream::Client(_) => false,
        },
        Stream::Plain(_) => false,
    }
}
