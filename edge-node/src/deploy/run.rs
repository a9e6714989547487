//! Deploys a run that was trained before: its newest checkpoint becomes what the edge serves.

use cleave_shared::{checkpoint::WeightsId, config::Config};

use super::Pointer;
use crate::train::RunRecord;

/// Writes the note of what is deployed. Refuses a run of another model than the configuration's.
pub fn deploy_run(config: &Config, run: &str) -> Result<WeightsId, String> {
    let runs = &config.runs.dir;
    let record = RunRecord::read(runs, run)?
        .ok_or_else(|| format!("--run: {run} was not trained in {}", runs.display()))?;
    record.check_model(run)?;
    let (own, asked) = (record.model.hash(), config.model.hash());
    if own != asked {
        let (family, other) = (record.model.family_name(), config.model.family_name());
        return Err(format!(
            "--run: {run} is a {family} of other sizes or family than the configured model, a {other}; \
             serve it with the configuration that it was trained with"
        ));
    }
    let steps = config.runs.open("edge")?.steps(run);
    let step = *steps.last().ok_or_else(|| format!("--run: {run} has no checkpoint yet"))?;
    let pointer = Pointer { run: run.into(), step, spec_hash: own };
    pointer.write(runs).map_err(|e| e.to_string())?;
    Ok(pointer.weights())
}
