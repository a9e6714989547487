//! Where a node listens, and where it writes.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use super::Finding;

/// An address that a node is to listen on: free, or that of such a node, which serves already. `node` is what it is
/// called, `healthy` asks one that serves.
pub async fn port(
    key: &str,
    at: SocketAddr,
    node: &str,
    healthy: impl Future<Output = Result<(), String>>,
) -> Finding {
    const CHECK: &str = "port";
    let taken = match address(at) {
        Address::Free => return Finding::ok(CHECK, format!("{key}: {at} is free")),
        Address::Unusable(problem) => {
            return Finding::error(CHECK, format!("{key}: {at}: {problem}"))
                .with_advice("set an address of this machine");
        }
        Address::Taken => format!("{key}: {at} is in use"),
    };
    match healthy.await {
        Ok(()) => Finding::ok(CHECK, format!("{taken}, and {node} serves there")),
        Err(_) => Finding::error(CHECK, taken)
            .with_advice(format!("end what listens there, or set {key} to another address")),
    }
}

/// What is at an address.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Free,
    /// Something listens there: perhaps this very node, which runs already.
    Taken,
    Unusable(String),
}

fn address(at: SocketAddr) -> Address {
    match TcpListener::bind(at) {
        Ok(_) => Address::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => Address::Taken,
        Err(error) => Address::Unusable(error.to_string()),
    }
}

/// Whether files can be made in a folder, or the folder itself.
pub fn folder(check: &'static str, key: &str, path: &Path) -> Finding {
    let shown = path.display();
    // The nearest that is there: nothing is made that was not there before.
    let existing = path.ancestors().find(|p| p.exists() || p.as_os_str().is_empty());
    let existing = existing.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".cleave-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => Finding::ok(check, format!("{shown} can be written to")),
        Err(error) => Finding::error(check, format!("{key}: {shown}: {error}"))
            .with_advice("give this user the right to write there, or name another folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn addresses_are_free_or_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(address(at), Address::Taken);
        drop(taken);
        assert_eq!(address(at), Address::Free);
        // Of TEST-NET-1: no machine has it.
        assert!(matches!(address("192.0.2.1:1".parse().unwrap()), Address::Unusable(_)));
    }

    #[test]
    fn a_folder_that_is_not_there_is_looked_for_where_it_would_be() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("a/b");
        assert_eq!(folder("runs", "runs.dir", &deep).verdict, Verdict::Ok);
        assert!(!place.path().join("a").exists());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        // A file is no folder.
        let file = place.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let found = folder("runs", "runs.dir", &file.join("runs"));
        assert_eq!(found.verdict, Verdict::Error, "{found:?}");
    }
}
