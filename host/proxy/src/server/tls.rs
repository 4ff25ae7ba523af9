//! TLS towards clients: certificate files, read again when they change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Largest certificate or key file, bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Files of a listener's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain, PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// The certificate in force of one listener, shared by all workers.
pub(super) struct Certificate {
    files: CertificateFiles,
    state: RwLock<Loaded>,
}

struct Loaded {
    key: Arc<CertifiedKey>,
    read: (Vec<u8>, Vec<u8>),
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files.
    pub(super) fn load(files: CertificateFiles) -> io::Result<Arc<Self>> {
        let read = Self::read(&files)?;
        let key = Arc::new(parse(&read)?);
        Ok(Arc::new(Self { files, state: RwLock::new(Loaded { key, read }) }))
    }

    /// Reads the files again. An unreadable or contradictory pair changes nothing: it may be half written. `true` if
    /// another certificate is in force now.
    pub(super) fn reload(&self) -> io::Result<bool> {
        let read = Self::read(&self.files)?;
        if self.state.read().unwrap_or_else(PoisonError::into_inner).read == read {
            return Ok(false);
        }
        let key = Arc::new(parse(&read)?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Loaded { key, read };
        Ok(true)
    }

    /// What a listener with this certificate speaks.
    pub(super) fn server_config(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn read(paths: &CertificateFiles) -> io::Result<(Vec<u8>, Vec<u8>)> {
        Ok((files::read(&paths.certificate, PEM_BYTES_MAX)?, files::read(&paths.key, PEM_BYTES_MAX)?))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

fn parse((certificate, key): &(Vec<u8>, Vec<u8>)) -> io::Result<CertifiedKey> {
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| bad("the certificate file is not PEM"))?;
    if chain.is_empty() {
        return Err(bad("the certificate file holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("the key file holds no private key"))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider);
    key.map_err(|_| bad("certificate and key do not belong together"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &CertificateFiles, name: &str) -> Vec<u8> {
        let pair = rcgen::generate_simple_self_signed([name.to_string()]).unwrap();
        std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
        std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.der().to_vec()
    }

    #[test]
    fn a_changed_pair_is_taken_over_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles { certificate: folder.path().join("c"), key: folder.path().join("k") };
        let in_force = |certificate: &Certificate| certificate.state.read().unwrap().key.cert[0].to_vec();

        let first = write(&files, "one.example");
        let certificate = Certificate::load(files.clone()).unwrap();
        assert_eq!(in_force(&certificate), first);
        assert!(!certificate.reload().unwrap(), "nothing changed");

        let second = write(&files, "two.example");
        assert!(certificate.reload().unwrap());
        assert_eq!(in_force(&certificate), second);

        std::fs::write(&files.key, "garbage").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(in_force(&certificate), second, "the last good pair serves on");
    }
}
