//! Certificates, keys and tokens.

use std::{fs, path::Path, time::SystemTime};

use super::Finding;
use crate::{
    config::Config,
    security::{self, Credentials, valid_until},
};

/// Days before its end when a certificate is warned of.
const SOON_DAYS: u64 = 14;

/// How this node proves who it is, and whether it will still tomorrow.
pub fn identity(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "identity";
    let mut findings = Vec::new();
    match config.security.files() {
        None => findings.push(Finding::ok(CHECK, "none: edge and cloud speak without TLS")),
        Some(files) => match security::client(files.clone()) {
            Err(error) => findings.push(Finding::error(CHECK, format!("[security] {error}"))),
            Ok(_) => {
                findings.push(validity(&files.identity.certificate));
                findings.extend(exposed(&files.identity.key));
            }
        },
    }
    if let Some(clients) = config.security.clients.identity() {
        match security::to_itself(clients.clone()) {
            Err(error) => {
                findings.push(Finding::error(CHECK, format!("[security.clients] {error}")));
            }
            Ok(_) => {
                findings.push(validity(&clients.certificate));
                findings.extend(exposed(&clients.key));
            }
        }
    }
    if let Some(token) = &config.security.token {
        match Credentials::read(Some(token.clone())) {
            Err(error) => findings.push(Finding::error(CHECK, format!("security.token: {error}"))),
            Ok(_) => findings.extend(exposed(token)),
        }
    }
    findings
}

fn validity(certificate: &Path) -> Finding {
    const CHECK: &str = "certificate";
    let shown = certificate.display();
    let end = match valid_until(certificate) {
        Ok(end) => end,
        Err(error) => return Finding::error(CHECK, error.to_string()),
    };
    let renew = "make new ones: edge-node certs (running nodes take them without a restart)";
    match end.duration_since(SystemTime::now()).map(|left| left.as_secs() / 86400) {
        Err(_) => Finding::error(CHECK, format!("{shown} has expired")).with_advice(renew),
        Ok(days) if days < SOON_DAYS => {
            Finding::warning(CHECK, format!("{shown} expires in {days} days"), renew)
        }
        Ok(days) => Finding::ok(CHECK, format!("{shown} is valid for {days} days")),
    }
}

/// A secret that others on this machine can read.
fn exposed(secret: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(secret).ok()?.permissions().mode();
    let shown = secret.display();
    (mode & 0o007 != 0).then(|| {
        Finding::warning(
            "secret",
            format!("every user of this machine can read {shown}"),
            format!("chmod 600 {shown}"),
        )
    })
}
