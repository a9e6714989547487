//! `edge-node generate`: one sequence, without a running edge.

use clap::Args;
use cleave_shared::config::Config;

use crate::{
    generate,
    serve::{Generation, Sampling},
};

#[derive(Args)]
pub struct GenerateArgs {
    /// What to continue: token ids with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    prompt_ids: Vec<i64>,
    #[arg(long, default_value_t = 32)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Draws among this many of the likeliest; 0 is all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draws among the fewest that hold this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    #[arg(long, default_value_t = 0)]
    sampling_seed: u64,
    /// Token ids that end the sequence
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    stop_ids: Vec<i64>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn generate(config: &Config, args: GenerateArgs) -> Result<(), String> {
    let GenerateArgs { temperature, top_k, top_p, sampling_seed: seed, .. } = args;
    let request = Generation {
        prompt: args.prompt_ids,
        max_tokens: args.max_tokens,
        sampling: Sampling { temperature, top_k, top_p, seed },
        stop: args.stop_ids,
    };
    let report = generate::generate(config, request).await?;
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(|e| e.to_string())?,
        false => report.render(),
    };
    println!("{text}");
    Ok(())
}
