//! `tls-server-end-point` (RFC 5929, section 4.1): the digest of the server's certificate.

use crate::net::Stream;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio_rustls::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The binding of a TLS stream to the PostgreSQL server at its other end; `None` without TLS.
pub fn peer_end_point(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::Tls(tls) = stream else {
        return None;
    };
    let TlsStream::Client(tls) = tls.as_ref() else {
        return None;
    };
    let (_, connection) = tls.get_ref();
    end_point(connection.peer_certificates()?.first()?)
}

/// The digest of a certificate by its signature's hash; SHA-256 in place of MD5 and SHA-1.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digest = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    };
    Some(digest)
}
