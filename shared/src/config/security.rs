//! `[security]`: who a node is, whom it trusts, and what may stay unencrypted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::security::Plaintext;
use crate::{
    generate::Share,
    security::{Files, Identity, Quota},
};

/// Of either node; the files differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// Certificates that may have signed the other node's, PEM.
    pub ca: Option<PathBuf>,
    /// This node's certificate and key, PEM.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The edge's bearer token: a file with nothing else.
    pub token: Option<PathBuf>,
    /// The tokens that the cloud knows: a file with a line `NAME TOKEN` for each edge.
    pub tokens: Option<PathBuf>,
    /// The edges that the cloud serves, by the first DNS name of their certificates, or by their tokens; none: all
    /// that it can tell.
    pub edges: Vec<String>,
    /// What each edge may take of the cloud.
    pub quota: QuotaConfig,
    /// The edge's identity towards its own clients.
    pub clients: ClientsConfig,
    /// What may leave this machine unencrypted.
    pub plaintext: Vec<Plaintext>,
}

/// PEM; none: clients are served unencrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientsConfig {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl ClientsConfig {
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity { certificate: self.certificate.clone()?, key: self.key.clone()? })
    }

    fn check(&self) -> Result<(), (String, String)> {
        let missing = match (&self.certificate, &self.key) {
            (Some(_), None) => "key",
            (None, Some(_)) => "certificate",
            _ => return Ok(()),
        };
        let problem = "is missing: certificate and key belong together";
        Err((format!("security.clients.{missing}"), problem.into()))
    }
}

/// Of each edge; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Calls that begin in a second.
    pub calls_per_s: u32,
    /// Bytes a second that are read of what it sends.
    pub bytes_per_s: u64,
    /// Calls under way.
    pub calls: usize,
    /// Sequences that are continued at once.
    pub sessions: usize,
    /// Memory of their caches, bytes.
    pub cache_bytes: usize,
}

impl QuotaConfig {
    /// Of its calls.
    pub fn limits(&self) -> Quota {
        let Self { calls_per_s, bytes_per_s, calls, .. } = *self;
        Quota {
            calls_per_s: (calls_per_s > 0).then_some(calls_per_s),
            bytes_per_s: (bytes_per_s > 0).then_some(bytes_per_s),
            calls: (calls > 0).then_some(calls),
        }
    }

    /// Of its sequences.
    pub fn share(&self) -> Share {
        let Self { sessions, cache_bytes, .. } = *self;
        Share {
            sessions: (sessions > 0).then_some(sessions),
            bytes: (cache_bytes > 0).then_some(cache_bytes),
        }
    }
}

impl SecurityConfig {
    /// None without an identity.
    pub fn files(&self) -> Option<Files> {
        let (ca, certificate) = (self.ca.clone()?, self.certificate.clone()?);
        Some(Files { ca, identity: Identity { certificate, key: self.key.clone()? } })
    }

    /// A refused key, and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        self.clients.check()?;
        let parts = [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)];
        let missing = parts.iter().find(|(_, path)| path.is_none());
        match missing {
            Some((name, _)) if parts.iter().any(|(_, path)| path.is_some()) => Err((
                format!("security.{name}"),
                "is missing: ca, certificate and key belong together".into(),
            )),
            _ => Ok(()),
        }
    }
}
