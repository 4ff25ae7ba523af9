//! TLS towards engines: whom to trust, as the service says.

use std::collections::HashMap;
use std::sync::Arc;

use domain::endpoint::EngineTls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Configurations made, by what was asked for. Bounded by the settings in force: [`Configs::clear`] on a new snapshot.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    made: HashMap<EngineTls, Arc<ClientConfig>>,
}

impl Configs {
    /// The configuration for these settings. `None`: its certificates cannot be read, so nothing can be trusted.
    pub(crate) fn get(&mut self, tls: &EngineTls) -> Option<Arc<ClientConfig>> {
        if let Some(config) = self.made.get(tls) {
            return Some(Arc::clone(config));
        }
        let config = Arc::new(configure(tls)?);
        self.made.insert(tls.clone(), Arc::clone(&config));
        Some(config)
    }

    /// Forgets all; the next connection makes its own anew.
    pub(crate) fn clear(&mut self) {
        self.made.clear();
    }
}

fn configure(tls: &EngineTls) -> Option<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .ok()?;
    if tls.insecure_skip_verify {
        let anyone = Arc::new(Anyone { provider });
        return Some(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.ca_pem.as_deref().unwrap_or_default()) {
        roots.add(certificate.ok()?).ok()?;
    }
    let names = tls.names.iter().filter_map(|name| ServerName::try_from(name.to_string()).ok());
    let names: Vec<_> = names.collect();
    if names.is_empty() || roots.is_empty() {
        return Some(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let named = Arc::new(Named { inner, names });
    Some(builder.dangerous().with_custom_certificate_verifier(named).with_no_client_auth())
}

/// Trusts a certificate for the host that is connected to, or for one of these names: a pod is known by its address, its
/// certificate often by the name of its Service.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        verify(server_name).or_else(|error| self.names.iter().find_map(|name| verify(name).ok()).ok_or(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Trusts every certificate, as `insecureSkipVerify` asks; signatures of the handshake are still checked.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
