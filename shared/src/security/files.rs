//! Reading certificates and keys.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::SecurityError;

/// A node's identity, and whom it trusts: three PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificates that may have signed the other node's.
    pub ca: PathBuf,
    pub identity: Identity,
}

/// Who a server says it is: two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's, and those between it and the one that its peers trust.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// All of them, whose changes are looked for.
    pub fn paths(&self) -> Vec<PathBuf> {
        [vec![self.ca.clone()], self.identity.paths()].concat()
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, SecurityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| SecurityError::file(&self.ca, e))?;
        }
        Ok(roots)
    }
}

impl Identity {
    pub fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
        certificates(&self.certificate)
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, SecurityError> {
        PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unreadable(&self.key, e))
    }

    /// What both files together are refused for.
    pub(super) fn unusable(&self, problem: impl ToString) -> SecurityError {
        SecurityError::Identity {
            certificate: self.certificate.display().to_string(),
            key: self.key.display().to_string(),
            problem: problem.to_string(),
        }
    }
}

/// When the first certificate of a PEM file ends.
pub fn valid_until(file: &Path) -> Result<SystemTime, SecurityError> {
    let own = certificates(file)?.swap_remove(0);
    let (_, own) = x509_parser::parse_x509_certificate(&own)
        .map_err(|e| SecurityError::file(file, format!("is no certificate: {e}")))?;
    let end = own.validity().not_after.timestamp();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or(0)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(path, e))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(path, e))?;
    match all.is_empty() {
        true => Err(SecurityError::file(path, "there is no certificate in it")),
        false => Ok(all),
    }
}

fn unreadable(path: &Path, error: rustls::pki_types::pem::Error) -> SecurityError {
    use rustls::pki_types::pem::Error;
    let problem = match error {
        Error::Io(error) => format!("cannot be read: {error}"),
        Error::NoItemsFound => "there is no private key in it".into(),
        other => format!("is no PEM: {other:?}"),
    };
    SecurityError::file(path, problem)
}
