//! TLS as a client.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{path::Path, sync::Arc};

use super::certificates::Certificate;

/// A client that trusts this authority, with ALPN if asked for.
pub fn trusting(ca: &Path, alpn: Option<&str>, own: Option<&Certificate>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_file_iter(&own.cert).unwrap();
            let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
            builder
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    };
    config.alpn_protocols = alpn
        .map(|name| name.as_bytes().to_vec())
        .into_iter()
        .collect();
    Arc::new(config)
}
