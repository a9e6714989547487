//! `edge-node adapter`: LoRA adapters to and from the folders of Hugging Face's PEFT.
//!
//! An imported adapter is a run of one step: its files hold the adapters, `deployed.json` names it, and
//! a running edge takes it up like a run that was trained here.

use std::path::PathBuf;

use cleave_shared::{
    checkpoint::{AdapterBase, WeightsId, peft},
    config::Config,
    model::lora::is_factor,
};

use super::{blocking, whole_model};
use crate::deploy::Pointer;

/// The step that an imported adapter is stored as.
const STEP: u64 = 1;

/// Writes the adapters of a run to a folder; `prefix` as in [`peft::write`].
pub async fn export(
    config: &Config,
    weights: Option<&str>,
    out: PathBuf,
    prefix: String,
) -> Result<(), String> {
    let source = whole_model(config, weights).await?;
    let (spec, shown) = (config.model.clone(), out.display().to_string());
    let count = blocking(move || {
        let WeightsId::Run { run, step } = &source.id else {
            return Err(format!("{} has no adapters: it is not a run", source.id));
        };
        let store = source.library.store();
        let base = store.adapters(run, *step).map_err(|e| e.to_string())?;
        let base = base.ok_or_else(|| format!("{} was trained without adapters", source.id))?;
        let mut factors = Vec::new();
        for stage in spec.stage_names() {
            factors.extend(store.read(run, *step, &stage).map_err(|e| e.to_string())?.weights);
        }
        factors.retain(|(name, _)| is_factor(name));
        peft::write(&out, &spec, &factors, base.scale, &prefix).map_err(|e| e.to_string())?;
        Ok(factors.len() / 2)
    })
    .await?;
    println!("wrote adapters of {count} layers to {shown}");
    Ok(())
}

/// Makes a run of the adapters in a folder, and deploys it. They are added to what the model starts
/// from: `weights.file`, else the seed.
pub async fn import(config: &Config, from: PathBuf, run: String) -> Result<(), String> {
    let config = config.clone();
    let id = blocking(move || {
        let store = std::sync::Arc::new(config.runs.open("edge")?);
        if store.run_dir(&run).exists() {
            return Err(format!("run {run} exists: name another with --run"));
        }
        let library = config.library(store.clone())?;
        let adapter = peft::read(&from, &config.model).map_err(|e| e.to_string())?;
        let weights = library.initial(config.seed).to_string();
        let base = AdapterBase { weights, scale: adapter.scale };
        let written = store.write_adapters(&run, STEP, &adapter.stages, base);
        written.map_err(|e| e.to_string())?;
        let pointer = Pointer { run, step: STEP, spec_hash: config.model.hash() };
        pointer.write(&config.runs.dir).map_err(|e| e.to_string())?;
        Ok(pointer.weights())
    })
    .await?;
    println!("imported as {id}, and deployed");
    Ok(())
}
