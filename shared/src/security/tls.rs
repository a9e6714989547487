//! The settings of TLS: version 1.3 alone, a certificate on either side, HTTP/2.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
    version::TLS13,
};

use super::{Files, Identity, Rotating, SecurityError};

/// gRPC is HTTP/2; both sides say so in the handshake (ALPN, RFC 7301).
pub const H2: &[u8] = b"h2";
/// What browsers and REST clients are served with.
pub const HTTP_1: &[u8] = b"http/1.1";

/// What a node that is connected to has.
pub type ServerTls = Rotating<ServerConfig>;
/// What a node that connects has.
pub type ClientTls = Rotating<ClientConfig>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Serves only whom `files.ca` has signed.
pub fn server(files: Files) -> Result<ServerTls, SecurityError> {
    Rotating::new(files.paths(), move || {
        let roots = Arc::new(files.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        let verifier = verifier.map_err(|e| SecurityError::file(&files.ca, e))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| files.identity.unusable(e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(files.identity.chain()?, files.identity.private_key()?)
            .map_err(|e| files.identity.unusable(e))?;
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    })
}

/// Serves anyone, as the edge does its clients, who are not asked for a certificate. `alpn` is what is spoken.
pub fn public_server(identity: Identity, alpn: &'static [u8]) -> Result<ServerTls, SecurityError> {
    Rotating::new(identity.paths(), move || {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| identity.unusable(e))?
            .with_no_client_auth()
            .with_single_cert(identity.chain()?, identity.private_key()?)
            .map_err(|e| identity.unusable(e))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    })
}

/// Talks only to a node that `files.ca` has signed, under the name by which it is addressed.
pub fn client(files: Files) -> Result<ClientTls, SecurityError> {
    Rotating::new(files.paths(), move || {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| files.identity.unusable(e))?
            .with_root_certificates(files.roots()?)
            .with_client_auth_cert(files.identity.chain()?, files.identity.private_key()?)
            .map_err(|e| files.identity.unusable(e))?;
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    })
}

/// Talks only to the server with this very certificate, whatever its name: a node to itself.
pub fn to_itself(identity: Identity) -> Result<ClientTls, SecurityError> {
    Rotating::new(identity.paths(), move || {
        let own = identity.chain()?.swap_remove(0);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| identity.unusable(e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Only(own)))
            .with_no_client_auth();
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    })
}

/// The one certificate that is taken. Whoever shows it still has to prove that its key is theirs.
#[derive(Debug)]
struct Only(CertificateDer<'static>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *shown == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, shown, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
