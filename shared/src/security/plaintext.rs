//! Nothing leaves a machine unencrypted unless the configuration says so in as many words.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use serde::{Deserialize, Serialize};

/// Traffic of one kind, as an entry of `security.plaintext` allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plaintext {
    /// Between edge and cloud.
    Link,
    /// Between the edge and its clients.
    Clients,
    /// What the cloud counts, to whoever reads it.
    Metrics,
    /// To the collector of traces.
    Traces,
}

impl Plaintext {
    /// What to do instead of allowing it, and how to allow it.
    fn remedy(self) -> String {
        let (instead, entry) = match self {
            Self::Link => {
                ("set [security] ca, certificate and key (edge-node certs makes the files)", "link")
            }
            Self::Clients => ("set [security.clients] certificate and key", "clients"),
            Self::Metrics => ("listen on 127.0.0.1", "metrics"),
            Self::Traces => ("name a collector on this machine, which passes them on", "traces"),
        };
        format!("{instead}, or allow it with security.plaintext = [\"{entry}\"]")
    }
}

/// Refuses an address that other machines reach. `key` is where the configuration has it, `secret` whether it is
/// encrypted, `allowed` what does not have to be.
pub fn check_listen(
    key: &str,
    address: SocketAddr,
    secret: bool,
    kind: Plaintext,
    allowed: &[Plaintext],
) -> Result<(), String> {
    match secret || allowed.contains(&kind) || address.ip().is_loopback() {
        true => Ok(()),
        false => Err(format!(
            "{key}: other machines reach {address}, and nothing would be encrypted; {}",
            kind.remedy()
        )),
    }
}

/// The same for a collector of traces. What is wrong with it, without its key.
pub fn check_collector(uri: &Uri, allowed: &[Plaintext]) -> Result<(), String> {
    let secret = uri.scheme_str() == Some("https");
    match secret || allowed.contains(&Plaintext::Traces) || is_here(uri) {
        true => Ok(()),
        false => Err(unencrypted(uri, Plaintext::Traces)),
    }
}

/// The same for an address that is connected to. With an identity of its own a node uses it: what is unencrypted
/// then is a mistake.
pub fn check_dial(
    key: &str,
    uri: &Uri,
    identity: bool,
    allowed: &[Plaintext],
) -> Result<(), String> {
    let secret = uri.scheme_str() == Some("https");
    if secret && !identity {
        return Err(format!("{key}: https needs [security] ca, certificate and key"));
    }
    if secret || (!identity && (allowed.contains(&Plaintext::Link) || is_here(uri))) {
        return Ok(());
    }
    if identity {
        return Err(format!("{key}: [security] has certificates; write https://, not {uri}"));
    }
    Err(format!("{key}: {}", unencrypted(uri, Plaintext::Link)))
}

fn unencrypted(uri: &Uri, kind: Plaintext) -> String {
    format!("what is sent to {uri} would not be encrypted; {}", kind.remedy())
}

fn is_here(uri: &Uri) -> bool {
    let bare = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_encryption() {
        use Plaintext::{Clients, Link, Metrics, Traces};
        let listen = |address: &str, secret, allowed: &[Plaintext]| {
            check_listen("cloud.listen", address.parse().unwrap(), secret, Link, allowed)
        };
        assert!(listen("127.0.0.1:1", false, &[]).is_ok());
        assert!(listen("[::1]:1", false, &[]).is_ok());
        assert!(listen("0.0.0.0:1", true, &[]).is_ok());
        assert!(listen("0.0.0.0:1", false, &[Clients, Link]).is_ok());
        let refusal = listen("0.0.0.0:1", false, &[Clients, Metrics, Traces]).unwrap_err();
        assert!(refusal.contains("edge-node certs"), "{refusal}");
        assert!(refusal.contains("security.plaintext = [\"link\"]"), "{refusal}");
    }

    #[test]
    fn traces_stay_here_unless_they_may_leave() {
        let collector =
            |uri, allowed: &[Plaintext]| check_collector(&Uri::from_static(uri), allowed);
        assert!(collector("http://localhost:4317", &[]).is_ok());
        assert!(collector("https://collector:4317", &[]).is_ok());
        assert!(collector("http://collector:4317", &[Plaintext::Traces]).is_ok());
        let refusal = collector("http://collector:4317", &[Plaintext::Link]).unwrap_err();
        assert!(refusal.contains("security.plaintext = [\"traces\"]"), "{refusal}");
    }

    #[test]
    fn a_node_with_an_identity_uses_it() {
        let dial = |uri: &'static str, identity, allowed: &[Plaintext]| {
            check_dial("edge.cloud", &Uri::from_static(uri), identity, allowed)
        };
        for here in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(dial(here, false, &[]).is_ok(), "{here}");
            assert!(dial(here, true, &[]).is_err(), "{here}");
        }
        let refusal = dial("http://cloud:1", false, &[Plaintext::Clients]).unwrap_err();
        assert!(refusal.contains("would not be encrypted"), "{refusal}");
        assert!(dial("http://127.0.0.1.example.org:1", false, &[]).is_err());
        assert!(dial("http://cloud:1", false, &[Plaintext::Link]).is_ok());
        assert!(dial("https://cloud:1", true, &[]).is_ok());
        let refusal = dial("https://cloud:1", false, &[Plaintext::Link]).unwrap_err();
        assert!(refusal.contains("[security]"), "{refusal}");
    }
}
