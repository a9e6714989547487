//! Runs a model's stages and takes their times.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::{ComputeProfile, Spread, StageTime, TrainingTime, codecs, device_name, sample_input};
use crate::{
    codec::SharedCodec,
    model::{ModelError, ModelSpec, Segment, WeightFormat, Weights},
    progress::{Progress, Steps},
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Passes that are not counted: pages are mapped, memory is taken, caches are filled.
const WARM_UP: usize = 2;
/// Between passes, as between requests: others have used the caches since.
const PAUSE: Duration = Duration::from_millis(5);

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    /// Samples at once.
    pub batch: usize,
    /// Extent of what varies, such as the length of a sequence.
    pub length: usize,
    /// Passes that are counted.
    pub rounds: usize,
    /// Whether to measure training as well.
    pub training: bool,
}

/// Times all stages in `format`. A pass runs from the first stage to the last, as requests do, so that a
/// stage finds in the caches what it will find there when it serves. To be called on a thread that computes.
/// `progress` is told of every pass, and of every codec at every cut.
pub fn measure(
    spec: &ModelSpec,
    format: WeightFormat,
    request: Request,
    codecs: &[SharedCodec],
    weights: &mut dyn Weights,
    progress: Progress<'_>,
) -> Result<ComputeProfile, ModelError> {
    let input = sample_input(spec, request.batch, request.length);
    let whole = 0..spec.stage_count();
    let model = Segment::build_in(format, spec, whole.clone(), weights)?;
    let mut times = vec![Vec::with_capacity(request.rounds); whole.len()];
    let steps = Steps::new("measuring stages", WARM_UP + request.rounds, progress);
    for round in 0..WARM_UP + request.rounds {
        thread::sleep(PAUSE);
        let mut begin = Instant::now();
        model.infer_observed(&input, |stage, _| {
            let end = Instant::now();
            if round >= WARM_UP {
                times[stage].push((end - begin).as_secs_f64() * 1e3);
            }
            begin = end;
            Ok(())
        })?;
        steps.step();
    }
    let cuts = codecs::measure(&model, &input, codecs, request.rounds, progress)?;
    drop(model);
    let training = match request.training {
        true => {
            let times = train(spec, whole, request, input, weights, progress)?;
            times.into_iter().map(Some).collect()
        }
        false => vec![None; times.len()],
    };
    let names = spec.stage_names().into_iter();
    let stages = names.zip(times).zip(training).map(|((name, times), training)| StageTime {
        name,
        forward: Spread::of(times),
        training,
    });
    Ok(ComputeProfile {
        device: device_name(),
        threads: rayon::current_num_threads(),
        stages: stages.collect(),
        cuts,
    })
}

/// Stage by stage: a stage's backward pass begins at a gradient of its output, wherever the cut is.
fn train(
    spec: &ModelSpec,
    stages: Range<usize>,
    request: Request,
    mut input: NamedTensors,
    weights: &mut dyn Weights,
    progress: Progress<'_>,
) -> Result<Vec<TrainingTime>, ModelError> {
    let mut found = Vec::with_capacity(stages.len());
    let passes = stages.len() * (WARM_UP + request.rounds);
    let steps = Steps::new("measuring training", passes, progress);
    for index in stages {
        let mut stage = Segment::build(spec, index..index + 1, weights, true)?;
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        let mut output = NamedTensors::new();
        for round in 0..WARM_UP + request.rounds {
            let begin = Instant::now();
            let pass;
            (output, pass) = stage.forward(&input, has_floats(&input))?;
            let middle = Instant::now();
            stage.backward(pass, &gradient_of(&output))?;
            let end = Instant::now();
            stage.forget();
            if round >= WARM_UP {
                forward.push((middle - begin).as_secs_f64() * 1e3);
                backward.push((end - middle).as_secs_f64() * 1e3);
            }
            steps.step();
        }
        found.push(TrainingTime { forward: Spread::of(forward), backward: Spread::of(backward) });
        input = output;
    }
    Ok(found)
}

fn has_floats(tensors: &NamedTensors) -> bool {
    tensors.iter().any(|(_, tensor)| tensor.dtype() == DType::F32)
}

/// A gradient for every float that left a stage.
fn gradient_of(output: &NamedTensors) -> NamedTensors {
    let floats = output.iter().filter(|(_, tensor)| tensor.dtype() == DType::F32);
    floats
        .map(|(name, tensor)| {
            let count = tensor.shape().iter().product::<usize>();
            (name.clone(), HostTensor::from_f32(tensor.shape().to_vec(), &vec![1e-3; count]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        codec,
        model::SeededWeights,
        progress::{Step, unseen},
    };

    #[test]
    fn every_stage_has_its_times() {
        let spec = ModelSpec::builtin("lenet").unwrap();
        let request = Request { batch: 2, length: 1, rounds: 3, training: true };
        let mut weights = SeededWeights(7);
        let codecs = ["f32", "int8"].map(|name| codec::by_name(name).unwrap());
        let format = WeightFormat::Full;
        let told = Mutex::new(Vec::new());
        let note = |step: Step| told.lock().unwrap().push(step);
        let found = measure(&spec, format, request, &codecs, &mut weights, &note).unwrap();
        let names: Vec<&str> = found.stages.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["conv1", "pool1", "conv2", "pool2", "fc1", "fc2"]);
        for stage in &found.stages {
            let Spread { median_ms, least_ms, most_ms } = stage.forward;
            assert!(least_ms > 0.0 && least_ms <= median_ms && median_ms <= most_ms);
            assert!(stage.training.unwrap().backward.median_ms > 0.0);
        }
        let whole = found.forward_ms(0..6);
        assert!((whole - found.forward_ms(0..2) - found.forward_ms(2..6)).abs() < 1e-9);
        let (forward, backward) = found.training_ms(0..6).unwrap();
        assert!(forward > 0.0 && backward > 0.0);
        // The input, then what each stage gives: 2 samples; behind the last stage nothing crosses.
        let bytes = |codec: usize| found.cuts.iter().map(|c| c[codec].bytes).collect::<Vec<_>>();
        assert_eq!(bytes(0), [512, 16_384, 4_096, 8_192, 2_048, 1_024]);
        assert!(found.cuts.iter().all(|cut| cut[1].bytes * 3 < cut[0].bytes));
        assert!(found.cuts.iter().all(|cut| cut[1].encode.median_ms > 0.0));
        // Five passes; two codecs at six cuts; five passes of each of six stages.
        let told = told.lock().unwrap();
        for (what, of) in
            [("measuring stages", 5), ("measuring codecs", 12), ("measuring training", 30)]
        {
            let steps: Vec<Step> = told.iter().filter(|s| s.what == what).copied().collect();
            let expected: Vec<Step> = (1..=of).map(|done| Step { what, done, of }).collect();
            assert_eq!(steps, expected);
        }
    }

    #[test]
    fn recurrent_models_are_measured_in_training_too() {
        let spec = ModelSpec::builtin("lstm").unwrap();
        let request = Request { batch: 2, length: 5, rounds: 1, training: true };
        let mut weights = SeededWeights(7);
        let format = WeightFormat::Full;
        let found = measure(&spec, format, request, &[], &mut weights, &unseen).unwrap();
        assert_eq!(found.stages.len(), spec.stage_count());
    }
}
