//! Who may talk to the cloud, and that nobody listens: mutual TLS 1.3 (RFC 8446), or a bearer token (RFC 6750).
//!
//! Each node has three PEM files: its certificate, its key, and the certificates of those that may sign the other
//! node's ([`Files`]). They are read again when they change ([`Rotating`]), for new connections. The edge's layer
//! around its connector is [`TlsLayer`], above the simulated link, so that handshakes and records take the radio's
//! time as well; a node's socket is a [`Listener`], whose connections
//! ([`Accepted`]) tell who is at the other end ([`Peer`]), and end where nothing is said; and
//! [`AdmitLayer`] decides whether that edge is served, [`QuotaLayer`] how much. docs/threat-model.md says what each of these is for.

mod accept;
mod admit;
mod connect;
mod connection;
mod files;
mod peer;
mod plaintext;
mod quota;
mod rotating;
mod tls;
mod token;

pub use self::{
    accept::Listener,
    admit::{Admission, AdmitLayer},
    connect::TlsLayer,
    connection::Accepted,
    files::{Files, Identity, valid_until},
    peer::{Edge, Peer, first_name, who},
    plaintext::{Plaintext, check_collector, check_dial, check_listen},
    quota::{Quota, QuotaLayer, no_room},
    rotating::Rotating,
    tls::{ClientTls, H2, HTTP_1, ServerTls, client, public_server, server, to_itself},
    token::{Credentials, Secret, Tokens},
};

/// Why a node's identity, or the list of whom it trusts, cannot be used. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error("{file}: {problem}")]
    File { file: String, problem: String },
    #[error("{certificate} and {key} cannot be used: {problem}")]
    Identity { certificate: String, key: String, problem: String },
}

impl SecurityError {
    fn file(path: &std::path::Path, problem: impl ToString) -> Self {
        Self::File { file: path.display().to_string(), problem: problem.to_string() }
    }
}
