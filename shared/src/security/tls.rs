//! The settings of TLS: version 1.3 alone, a certificate on either side, HTTP/2.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    version::TLS13,
};

use super::{Files, Rotating, SecurityError};

/// gRPC is HTTP/2; both sides say so in the handshake (ALPN, RFC 7301).
const ALPN: &[u8] = b"h2";

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
            .map_err(|e| files.unusable(e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(files.chain()?, files.private_key()?)
            .map_err(|e| files.unusable(e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    })
}

/// Talks only to a node that `files.ca` has signed, under the name by which it is addressed.
pub fn client(files: Files) -> Result<ClientTls, SecurityError> {
    Rotating::new(files.paths(), move || {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| files.unusable(e))?
            .with_root_certificates(files.roots()?)
            .with_client_auth_cert(files.chain()?, files.private_key()?)
            .map_err(|e| files.unusable(e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    })
}
