//! What `--help` shows of each command in use.

pub const ALL: &str = "\
Examples:
  edge-node demo                                 both nodes, a training across 5G, and answers
  edge-node doctor                               what is wrong before it goes wrong
  edge-node serve --split-point 2 --link wifi    the head, for a cloud at edge.cloud
  edge-node infer digit.png                      an answer, and where the time went
  edge-node plan                                 where to cut";

pub const PREPARE: &str = "\
Examples:
  edge-node prepare --run a          what train --run a then learns from
  edge-node prepare --json | jq .    how many samples, and what was left out";

pub const TRAIN: &str = "\
Examples:
  edge-node train                                  a new run; the edge serves it when it is done
  edge-node train --resume                         goes on with the newest, after whatever happened
  edge-node train --run a --no-deploy --json       for scripts
  edge-node train --set train.epochs=3 --split-point 2 --link lte
  edge-node train --set train.topology.kind=splitfed-v1 --set train.topology.edges=4";

pub const VALIDATE: &str = "\
Examples:
  edge-node validate                         the newest run, on what it was not trained on
  edge-node validate --run a --part test --json";

pub const TUNE: &str = "\
Examples:
  edge-node tune --trials 8 --parallel 2
  edge-node tune --search grid --learning-rate 0.01,0.03,0.1 --batch-size 16,32
  edge-node tune --split 0,2,4 --json";

pub const SERVE: &str = "\
Examples:
  edge-node serve                            what is deployed, at the configured cut
  edge-node serve --run a                    deploys this run first
  edge-node serve --model resnet18 --set weights.file=resnet18.safetensors --split-point auto
  CLEAVE_EDGE__CLOUD=https://cloud:50051 edge-node serve";

pub const REPORT: &str = "\
Examples:
  edge-node report a                         writes runs/edge/a/report.html
  edge-node report a --trace a.json --step 100    with that step's timeline for Perfetto or chrome://tracing";

pub const GENERATE: &str = "\
Examples:
  edge-node generate --prompt-ids 464,5743,286 --max-tokens 32 --model gpt2 --set weights.file=gpt2
  edge-node generate --prompt-ids 1,15043 --temperature 0.8 --top-p 0.9 --sampling-seed 7 --json";

pub const EVALUATE: &str = "\
Examples:
  edge-node evaluate                         the edge of this configuration
  edge-node evaluate --edge http://10.0.0.7:8001 --json";

pub const DEMO: &str = "\
Examples:
  edge-node demo                             starts both nodes, and serves on until Ctrl-C
  edge-node demo --exit --link lte --split-point 2
  edge-node demo --edge http://edge:8001 --exit      with nodes that run already
  edge-node demo --exit --json                       one JSON object, for scripts";

pub const QUANTIZE: &str = "\
Examples:
  edge-node quantize                         what 8 and 4 bits make of size, latency and accuracy
  edge-node quantize --json";

pub const PRUNE: &str = "\
Examples:
  edge-node prune --method filter --amount 0.5 --fine-tune 3
  edge-node prune --method magnitude --amount 0.9 --json";

pub const PROFILE: &str = "\
Examples:
  edge-node profile                          every stage and codec, on both nodes
  edge-node profile --json > profile.json";

pub const PLAN: &str = "\
Examples:
  edge-node plan                             every split point, and the one that is chosen
  edge-node plan --measure 50                sends real requests beside the predictions
  edge-node plan --link lte --svg plan.svg --json";

pub const AUDIT: &str = "\
Examples:
  edge-node audit                            what each cut gives away, as pictures
  edge-node audit --split-points 1,2,4 --samples 64 --json";

pub const EXITS: &str = "\
Examples:
  edge-node exits train --after pool1,pool2      small classifiers behind these two stages
  edge-node exits report --part test             how many samples each threshold lets out, and how many are right";

pub const EXITS_TRAIN: &str = "\
Examples:
  edge-node exits train --after pool1,pool2      for what is deployed
  edge-node exits train --after 2,4 --run a --epochs 20 --json";

pub const EXITS_REPORT: &str = "\
Examples:
  edge-node exits report                     of what is deployed, on what it was not trained on
  edge-node exits report --run a --part test --json";

pub const BOTTLENECK: &str = "\
Examples:
  edge-node bottleneck train --run a --at 4 --width 32 --stride 2 --name small
  edge-node bottleneck train --width 16 --json                for what is deployed, at its own cut
  edge-node serve --set codec.activation=bottleneck:small     what it is for";

pub const ADAPTER: &str = "\
Examples:
  edge-node adapter export --out my-adapter --prefix transformer.
  edge-node adapter import --from my-adapter --run from-peft";

pub const ADAPTER_EXPORT: &str = "\
Examples:
  edge-node adapter export --out my-adapter      of what is deployed
  edge-node adapter export --out my-adapter --weights run:a:500 --prefix transformer.";

pub const ADAPTER_IMPORT: &str = "\
Examples:
  edge-node adapter import --from my-adapter --run from-peft     the edge serves it then";

pub const HEALTH: &str = "\
Examples:
  edge-node health                           the edge of this configuration
  edge-node health --set edge.grpc_listen=127.0.0.1:9001";

pub const INSPECT: &str = "\
Examples:
  edge-node inspect --list                   the models that have a name
  edge-node inspect --model resnet18         its stages, and the bytes that cross each cut
  edge-node inspect --model my-model.toml --json";

pub const LINK: &str = "\
Examples:
  edge-node link --profile 5g-midband --listen 127.0.0.1:9000 --to 127.0.0.1:5432
  edge-node link --profile lte --listen 0.0.0.0:9000 --to cloud:50051 --plot link.svg";

pub const CERTS: &str = "\
Examples:
  edge-node certs --cloud-name cloud.example.org --edge edge-1 --edge edge-2
  edge-node certs --dir /etc/cleave/certs --days 90";

pub const DOCTOR: &str = "\
Examples:
  edge-node doctor                           before serve: what is wrong, and what to do
  edge-node doctor --cloud https://cloud:50051 --json";

pub const TRACE: &str = "\
Examples:
  edge-node trace --scenario midband-drive --seconds 600 --out drive.csv
  edge-node trace --scenario mmwave-walk --mahimahi walk";

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
