//! Who is at the other end of a connection.

use std::net::SocketAddr;

use http::Extensions;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::{Files, SecurityError};

/// As far as the connection tells. Each request has it among its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The first DNS name that its certificate is for; none without TLS.
    pub name: Option<String>,
}

/// The edge that a request was admitted as, among the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge(pub String);

/// Who makes a request: the edge by its name, or else the machine that asks.
pub fn who(request: &Extensions) -> Option<String> {
    let name = request.get::<Edge>().map(|Edge(name)| name.clone());
    name.or_else(|| request.get::<Peer>().map(|peer| peer.address.ip().to_string()))
}

impl Peer {
    pub(super) fn new(address: SocketAddr, certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let own = certificates.and_then(|all| all.first());
        Self { address, name: own.and_then(name_of) }
    }
}

/// The name under which a node with this identity is known.
pub fn first_name(files: &Files) -> Result<String, SecurityError> {
    let chain = files.identity.chain()?;
    let name = chain.first().and_then(name_of);
    name.ok_or_else(|| SecurityError::file(&files.identity.certificate, "has no DNS name"))
}

/// The first DNS name among the subject's alternative names (RFC 5280, 4.2.1.6).
fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_dns_names().next().map(str::to_string)
}
