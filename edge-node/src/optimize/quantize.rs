//! `edge-node quantize`: the model with its weights in 8 and in 4 bits, beside the original.

use cleave_shared::{
    config::Config,
    model::{Segment, WeightFormat},
};

use super::{Report, blocking, deliver, measure, whole_model};
use crate::deploy::folder_of;

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Weights id; what is deployed without one.
    pub weights: Option<String>,
    pub json: bool,
}

/// Measures, prints and saves `quantize.json`; the error is one line.
pub async fn quantize(config: &Config, options: &Options) -> Result<(), String> {
    let source = whole_model(config, options.weights.as_deref()).await?;
    let dataset = config.data.open().map_err(|e| e.to_string())?;
    let folder = folder_of(&config.runs.dir, &source.id);
    let config = config.clone();
    let work = move || {
        let spec = &config.model;
        let (stages, all) = (spec.stage_names(), 0..spec.stage_count());
        let formats = [WeightFormat::Full, WeightFormat::Int8, WeightFormat::Int4];
        let models = formats.map(|format| {
            let weights = source.library.source(&source.id, &stages);
            let mut weights = weights.map_err(|e| e.to_string())?;
            let model = Segment::build_in(format, spec, all.clone(), weights.as_mut());
            let name = match format {
                WeightFormat::Full => "as it is",
                other => other.name(),
            };
            measure(name, &model.map_err(|e| e.to_string())?, dataset.as_ref(), &config)
        });
        let models = models.into_iter().collect::<Result<_, String>>()?;
        Ok(Report { weights: source.id.to_string(), models })
    };
    let report = blocking(work).await?;
    deliver(&report, folder, "quantize", options.json)
}
