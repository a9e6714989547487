//! Nothing leaves a machine unencrypted unless the configuration says so in as many words.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

/// Refuses an address that other machines reach. `key` is where the configuration has it, `secret` whether it is
/// encrypted, `allowed` the entry of `security.plaintext` that allows it.
pub fn check_listen(
    key: &str,
    address: SocketAddr,
    secret: bool,
    allowed: bool,
    entry: &str,
) -> Result<(), String> {
    match secret || allowed || address.ip().is_loopback() {
        true => Ok(()),
        false => Err(format!(
            "{key}: other machines reach {address}, and nothing would be encrypted; {}",
            remedy(entry)
        )),
    }
}

/// The same for an address that is connected to. With an identity of its own a node uses it: what is unencrypted
/// then is a mistake.
pub fn check_dial(key: &str, uri: &Uri, identity: bool, allowed: bool) -> Result<(), String> {
    let (host, secret) = (uri.host().unwrap_or_default(), uri.scheme_str() == Some("https"));
    if secret && !identity {
        return Err(format!("{key}: https needs [security] ca, certificate and key"));
    }
    if secret || (!identity && (allowed || is_here(host))) {
        return Ok(());
    }
    if identity {
        return Err(format!("{key}: [security] has certificates; write https://, not {uri}"));
    }
    Err(format!("{key}: what is sent to {uri} would not be encrypted; {}", remedy("link")))
}

fn remedy(entry: &str) -> String {
    let certificates = match entry {
        "link" => "set [security] ca, certificate and key (edge-node certs makes the files), or ",
        _ => "set [security.clients] certificate and key, or ",
    };
    format!("{certificates}allow it with security.plaintext = [\"{entry}\"]")
}

fn is_here(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_encryption() {
        let listen = |address: &str, secret, allowed| {
            check_listen("cloud.listen", address.parse().unwrap(), secret, allowed, "link")
        };
        assert!(listen("127.0.0.1:1", false, false).is_ok());
        assert!(listen("[::1]:1", false, false).is_ok());
        assert!(listen("0.0.0.0:1", true, false).is_ok());
        assert!(listen("0.0.0.0:1", false, true).is_ok());
        let refusal = listen("0.0.0.0:1", false, false).unwrap_err();
        assert!(refusal.contains("edge-node certs"), "{refusal}");
        assert!(refusal.contains("security.plaintext = [\"link\"]"), "{refusal}");
    }

    #[test]
    fn a_node_with_an_identity_uses_it() {
        let dial = |uri: &'static str, identity, allowed| {
            check_dial("edge.cloud", &Uri::from_static(uri), identity, allowed)
        };
        for here in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(dial(here, false, false).is_ok(), "{here}");
            assert!(dial(here, true, false).is_err(), "{here}");
        }
        assert!(
            dial("http://cloud:1", false, false).unwrap_err().contains("would not be encrypted")
        );
        assert!(dial("http://127.0.0.1.example.org:1", false, false).is_err());
        assert!(dial("http://cloud:1", false, true).is_ok());
        assert!(dial("https://cloud:1", true, false).is_ok());
        assert!(dial("https://cloud:1", false, true).unwrap_err().contains("[security]"));
    }
}
