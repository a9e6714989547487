//! What `--help` shows of each command in use.

pub const ALL: &str = "\
Examples:
  cloud-node doctor                          what is wrong before it goes wrong
  cloud-node serve                           the tail, for edges that have this address in edge.cloud
  cloud-node serve --model resnet18 --set weights.file=models/resnet18
  cloud-node health                          whether it serves";

pub const SERVE: &str = "\
Examples:
  cloud-node serve                           at cloud.listen, whatever cut the edges have
  cloud-node serve --model resnet18 --set weights.file=models/resnet18
  cloud-node serve --set cloud.listen=0.0.0.0:50051 --set security.ca=certs/cloud/ca.pem \\
      --set security.certificate=certs/cloud/node.pem --set security.key=certs/cloud/node-key.pem
  CLEAVE_CLOUD__THREADS=8 cloud-node serve";

pub const HEALTH: &str = "\
Examples:
  cloud-node health                          the cloud of this configuration
  cloud-node health --set cloud.listen=127.0.0.1:50052";

pub const DOCTOR: &str = "\
Examples:
  cloud-node doctor                          before serve: what is wrong, and what to do
  cloud-node doctor --config /etc/cleave/cleave.toml --json";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use cleave_shared::manual;

    use super::super::Cli;

    #[test]
    fn every_command_has_examples_and_every_example_is_a_command() {
        for (name, examples) in manual::examples(&Cli::command()) {
            assert!(!examples.is_empty(), "{name} has no examples");
            for words in examples {
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().unwrap());
            }
        }
    }
}
