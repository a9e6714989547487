//! Times passes of one whole model. `benches/compute` runs this beside PyTorch and writes the report.
//!
//! ```text
//! passes MODEL BATCH LENGTH forward|step
//! ```
//!
//! `forward` is inference; `step` is forward, loss, backward and SGD. The first line out has the output's shape. Then
//! each line in is a number of passes, and the line out for it has what each took, ms. Both are JSON.

use std::{
    error::Error,
    io::{BufRead, Write, stdin, stdout},
    time::Instant,
};

use cleave_shared::{
    memory::{self, Allocator},
    model::{LossKind, ModelSpec, OptimizerSpec, SeededWeights, Segment, WeightFormat},
    profile::sample_input,
    tensor::HostTensor,
    wire::NamedTensors,
};

/// As the nodes have it.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Passes until memory is taken and caches are filled.
const WARM_UP: usize = 3;
const SGD: OptimizerSpec =
    OptimizerSpec::Sgd { learning_rate: 0.01, momentum: 0.0, weight_decay: 0.0 };

fn main() -> Outcome<()> {
    memory::keep_little();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, length, work] = &arguments[..] else {
        return Err("passes MODEL BATCH LENGTH forward|step".into());
    };
    let spec = ModelSpec::builtin(model).ok_or(format!("{model} is no built-in model"))?;
    let input = sample_input(&spec, batch.parse()?, length.parse()?);
    // As a compute thread of a node: with helpers for each operation, on all cores.
    let _helpers = rayon::ThreadPoolBuilder::new().use_current_thread().build()?;
    match work.as_str() {
        "forward" => forward(&spec, &input),
        "step" => step(&spec, &input),
        other => Err(format!("{other} is neither forward nor step").into()),
    }
}

fn forward(spec: &ModelSpec, input: &NamedTensors) -> Outcome<()> {
    let whole = 0..spec.stage_count();
    let model = Segment::build_in(WeightFormat::Full, spec, whole, &mut SeededWeights(7))?;
    let shape = model.infer(input)?[0].1.shape().to_vec();
    answer(&shape, || {
        model.infer(input)?;
        Ok(())
    })
}

fn step(spec: &ModelSpec, input: &NamedTensors) -> Outcome<()> {
    let mut model = Segment::build(spec, 0..spec.stage_count(), &mut SeededWeights(7), true)?;
    let shape = model.forward(input, false)?.0[0].1.shape().to_vec();
    model.forget();
    let labels: Vec<i64> = (0..shape[0] as i64).map(|i| i % shape[1] as i64).collect();
    let labels = HostTensor::from_i64(vec![shape[0]], &labels);
    answer(&shape, move || {
        model.tail_step(input, &labels, LossKind::CrossEntropy, &SGD, false)?;
        Ok(())
    })
}

/// Passes on demand.
fn answer(shape: &[usize], mut pass: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    for _ in 0..WARM_UP {
        pass()?;
    }
    say(&shape)?;
    for line in stdin().lock().lines() {
        let count: usize = line?.trim().parse()?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            pass()?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        say(&times)?;
    }
    Ok(())
}

fn say(value: &impl serde::Serialize) -> Outcome<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}
