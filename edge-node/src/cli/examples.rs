//! What `--help` shows of each command in use.

pub const ALL: &str = "\
Examples:
  edge-node demo                                 both nodes, a training across 5G, and answers
  edge-node doctor                               what is wrong before it goes wrong
  edge-node serve --split-point 2 --link wifi    the head, for a cloud at edge.cloud
  edge-node infer digit.png                      an answer, and where the time went
  edge-node plan                                 where to cut

Exit codes: 0 done, 1 failed, 2 a bad command or configuration. Every key of the configuration can be set by
--set KEY=VALUE and by a variable of the environment: CLEAVE_TRAIN__EPOCHS=3 is train.epochs.";

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
  edge-node demo --edge http://edge:8001 --exit      with nodes that run already";

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
  edge-node doctor --cloud https://cloud:50051 --json

It changes nothing. Its exit code is 1 if anything is an error; warnings are none.";

pub const TRACE: &str = "\
Examples:
  edge-node trace --scenario midband-drive --seconds 600 --out drive.csv
  edge-node trace --scenario mmwave-walk --mahimahi walk";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;

    /// The words of an example, without what is said of it and what a shell does.
    fn words(line: &str) -> Vec<String> {
        let line = line.trim().split("   ").next().unwrap_or_default();
        let line = line.split(['|', '>', '&']).next().unwrap_or_default();
        let words = line.split_whitespace().skip_while(|word| *word != "edge-node");
        words.map(|word| word.trim_matches('"').to_string()).collect()
    }

    #[test]
    fn every_example_is_a_command() {
        let mut seen = 0;
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let text = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
            let text = text.replace("\\\n", " ");
            let (examples, _) = text.split_once("\n\n").unwrap_or((text.as_str(), ""));
            for line in examples.lines().filter(|line| line.contains("edge-node")) {
                let words = words(line);
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().unwrap());
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
    }
}
