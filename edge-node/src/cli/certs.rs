//! `edge-node certs`.

use std::path::PathBuf;

use clap::Args;

use crate::certs::{Wanted, make};

/// Which certificates.
#[derive(Args)]
pub struct CertsArgs {
    /// Where to write: a folder for the authority, for the cloud, and for each edge
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
    /// A host name or address of the cloud, as edges have it in edge.cloud; may be repeated
    #[arg(long = "cloud-name", value_name = "HOST", default_values_t = ["cloud".to_string()])]
    cloud: Vec<String>,
    /// The name of an edge; may be repeated
    #[arg(long = "edge", value_name = "NAME", default_values_t = ["edge".to_string()])]
    edges: Vec<String>,
    /// How long the nodes' certificates are valid; the authority's is for ten years
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Makes them, and says how they are used.
pub fn certs(args: CertsArgs) -> Result<(), String> {
    let CertsArgs { dir: folder, cloud, edges, days } = args;
    for folder in make(&Wanted { folder, cloud, edges, days })? {
        let folder = folder.display();
        println!(
            "{folder}: --set security.ca={folder}/ca.pem --set security.certificate={folder}/node.pem \
             --set security.key={folder}/node-key.pem"
        );
    }
    Ok(())
}
