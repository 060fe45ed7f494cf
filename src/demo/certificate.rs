//! The proxy's TLS certificate: a CA of its own, whose key is thrown away, and a leaf for loopback.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::{Path, PathBuf};

use super::folder::write_private;

/// Where the PEM files are.
#[derive(Debug)]
pub(super) struct Certificate {
    /// For clients: `sslrootcert`.
    pub(super) ca: PathBuf,
    /// The leaf.
    pub(super) leaf: PathBuf,
    pub(super) key: PathBuf,
}

/// The certificate in this folder; made when it is not there yet.
pub(super) fn ensure(dir: &Path) -> anyhow::Result<Certificate> {
    let files = Certificate {
        ca: dir.join("ca.crt"),
        leaf: dir.join("server.crt"),
        key: dir.join("server.key"),
    };
    if [&files.ca, &files.leaf, &files.key]
        .iter()
        .any(|file| !file.is_file())
    {
        make(&files).context("can't make the proxy's certificate")?;
    }
    Ok(files)
}

fn make(files: &Certificate) -> anyhow::Result<()> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "pgusher demo CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;

    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;

    write_private(&files.key, leaf_key.serialize_pem().as_bytes())?;
    std::fs::write(&files.leaf, certificate.pem())?;
    std::fs::write(&files.ca, ca_certificate.pem())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure(dir.path()).unwrap();
        let first = std::fs::read(&files.leaf).unwrap();
        ensure(dir.path()).unwrap();
        assert_eq!(std::fs::read(&files.leaf).unwrap(), first);
        let mode = files.key.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
