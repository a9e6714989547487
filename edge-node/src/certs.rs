//! `edge-node certs`: a certificate authority for development, and certificates of the nodes.
//!
//! A folder for each node has what its `[security]` names: `ca.pem`, `node.pem`, `node-key.pem`; an edge's has
//! `clients.pem` and `clients-key.pem` for `[security.clients]` as well. The authority's own key stays in `ca`, which no node needs. Run again, it signs new certificates with the same authority; nodes that
//! run take them for new connections.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use cleave_shared::checkpoint::write_atomic_as;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks that are a little behind take a new certificate as well.
const EARLIER: Duration = Duration::from_secs(60 * 60);
const AUTHORITY_DAYS: u32 = 3650;
/// What a cloud is called by its own health check, and by an edge on the same machine.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub folder: PathBuf,
    /// Host names and addresses of the cloud.
    pub cloud: Vec<String>,
    /// Names of edges; each gets a folder of that name.
    pub edges: Vec<String>,
    /// How long certificates of nodes are valid.
    pub days: u32,
}

/// Makes all of it; gives the folders of the nodes.
pub fn make(wanted: &Wanted) -> Result<Vec<PathBuf>, String> {
    let Wanted { folder, cloud, edges, days } = wanted;
    edges.iter().try_for_each(|name| check_name(name))?;
    let authority = Authority::open(&folder.join("ca"))?;
    let mut names = cloud.clone();
    names.extend(HERE.map(str::to_string));
    // The cloud is a client as well, of its own health check.
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut folders = vec![folder.join("cloud")];
    authority.sign(&folders[0], "node", names, &both, *days)?;
    for edge in edges {
        let own = folder.join(edge);
        authority.sign(&own, "node", vec![edge.clone()], &both[1..], *days)?;
        // Another identity: with that of a node it could pass for a cloud.
        let names = [edge.as_str()].into_iter().chain(HERE).map(str::to_string).collect();
        authority.sign(&own, "clients", names, &both[..1], *days)?;
        folders.push(own);
    }
    Ok(folders)
}

/// Names go into certificates as DNS names, and into paths.
fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let bad = name.is_empty() || !name.chars().all(fine) || name.starts_with(['.', '-']);
    match bad || ["ca", "cloud"].contains(&name) {
        true => Err(format!(
            "--edge {name}: an edge's name has letters, digits, dots and hyphens, and is not ca or cloud"
        )),
        false => Ok(()),
    }
}

/// Who signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    certificate: String,
}

impl Authority {
    /// The one in this folder, or a new one.
    fn open(folder: &Path) -> Result<Self, String> {
        let (certificate_file, key_file) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        let about =
            |path: &Path, problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
        if !key_file.exists() {
            return Self::create(&certificate_file, &key_file);
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| about(path, &e));
        let (certificate, key) = (read(&certificate_file)?, read(&key_file)?);
        let key = KeyPair::from_pem(&key).map_err(|e| about(&key_file, &e))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key);
        let issuer = issuer.map_err(|e| about(&certificate_file, &e))?;
        Ok(Self { issuer, certificate })
    }

    fn create(certificate_file: &Path, key_file: &Path) -> Result<Self, String> {
        let mut params = valid_for(AUTHORITY_DAYS, Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "Cleave development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?.pem();
        // The key last: without it the next run begins anew.
        write(certificate_file, certificate.as_bytes(), 0o644)?;
        write(key_file, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A new key and its certificate: `STEM-key.pem` and `STEM.pem`.
    fn sign(
        &self,
        folder: &Path,
        stem: &str,
        names: Vec<String>,
        usages: &[ExtendedKeyUsagePurpose],
        days: u32,
    ) -> Result<(), String> {
        let mut params = valid_for(days, names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        write(&folder.join("ca.pem"), self.certificate.as_bytes(), 0o644)?;
        let key_file = folder.join(format!("{stem}-key.pem"));
        write(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
        write(&folder.join(format!("{stem}.pem")), certificate.pem().as_bytes(), 0o644)
    }
}

/// From now, under these names; the first is whom the peer sees.
fn valid_for(days: u32, names: Vec<String>) -> Result<CertificateParams, String> {
    let mut params =
        CertificateParams::new(names.clone()).map_err(|e| format!("{}: {e}", names.join(", ")))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

/// Whole or not at all, in a folder that may not be there yet.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    write_atomic_as(path, bytes, mode).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cleave_shared::security;

    use super::*;

    fn wanted(folder: &Path) -> Wanted {
        Wanted {
            folder: folder.into(),
            cloud: vec!["cloud.example.org".into()],
            edges: vec!["edge-1".into()],
            days: 30,
        }
    }

    #[test]
    fn the_authority_stays_and_nodes_get_new_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        make(&wanted(folder.path())).unwrap();
        let before = (read("ca/ca.pem"), read("edge-1/node.pem"));
        make(&wanted(folder.path())).unwrap();
        assert_eq!(before.0, read("ca/ca.pem"));
        assert_ne!(before.1, read("edge-1/node.pem"));
        assert_eq!(read("ca/ca.pem"), read("edge-1/ca.pem"));
        for node in ["cloud", "edge-1"] {
            let own = folder.path().join(node);
            let key = own.join("node-key.pem");
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
            let files = security::Files {
                ca: own.join("ca.pem"),
                identity: security::Identity { certificate: own.join("node.pem"), key },
            };
            security::client(files.clone()).unwrap();
            security::server(files).unwrap();
        }
        let own = folder.path().join("edge-1");
        let (certificate, key) = (own.join("clients.pem"), own.join("clients-key.pem"));
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        security::public_server(security::Identity { certificate, key }, security::H2).unwrap();
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "ca", "cloud", "../x", "a b", "-x", "ä"] {
            let wanted = Wanted { edges: vec![name.into()], ..wanted(folder.path()) };
            assert!(make(&wanted).unwrap_err().starts_with("--edge"), "{name}");
        }
        assert!(!folder.path().join("ca").exists());
    }
}
