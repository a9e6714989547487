//! Whether a model can learn from a data set, and how the set's inputs become the model's.

use std::sync::Arc;

use super::{Batch, DataError, Dataset, INPUT, Target, gather};
use crate::{
    model::{Dim, LossKind, ModelSpec, Port},
    tensor::{DType, HostTensor},
};

/// Batches of a data set, as one model takes them.
#[derive(Clone)]
pub struct Feed {
    dataset: Arc<dyn Dataset>,
    inputs: Vec<Input>,
}

/// One input of the model.
#[derive(Clone)]
struct Input {
    /// The data set's name of it, as [`gather`] gives it.
    from: String,
    /// The model's name of it.
    to: String,
    /// Shape of a sample as the model reads it.
    shape: Vec<usize>,
}

impl Feed {
    /// Matches inputs and target. A model with one input takes the set's first of that dtype, whatever
    /// its name; a flat sample fits any shape with as many values. A model with several takes them by
    /// name, and does without optional ones that the set lacks.
    pub fn new(
        spec: &ModelSpec,
        loss: LossKind,
        dataset: Arc<dyn Dataset>,
    ) -> Result<Self, DataError> {
        let (wanted, offered) = (spec.inputs(), dataset.inputs());
        let unfit = |problem: String| DataError::Fit { data: dataset.name().into(), problem };
        check_target(spec, loss, &dataset.target()).map_err(unfit)?;
        let alone = offered.len() == 1;
        let mut inputs = Vec::new();
        for port in &wanted {
            let found = match wanted.len() {
                1 => offered.iter().find(|o| o.dtype == port.dtype),
                _ => offered.iter().find(|o| o.dtype == port.dtype && o.name == port.name),
            };
            if found.is_none() && port.optional {
                continue;
            }
            let found = found.ok_or_else(|| {
                unfit(format!(
                    "the model reads {}, a sample has {}",
                    shown(&wanted),
                    shown(&offered)
                ))
            })?;
            let shape = fitting(port, found).ok_or_else(|| {
                let (input, sample) = (shape_of(port), shape_of(found));
                unfit(format!("model.input is {input}, but a sample is {sample}"))
            })?;
            let from = if alone { INPUT.into() } else { found.name.clone() };
            let to = if wanted.len() == 1 { INPUT.into() } else { port.name.clone() };
            inputs.push(Input { from, to, shape });
        }
        Ok(Self { dataset, inputs })
    }

    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// The samples at `indices`, in that order; panics as [`gather`] does.
    pub fn batch(&self, indices: &[usize]) -> Batch {
        let Batch { inputs: mut found, labels } = gather(self.dataset.as_ref(), indices);
        let take = |input: &Input| {
            let place = found.iter().position(|(name, _)| *name == input.from);
            let (_, tensor) = found.swap_remove(place.expect("matched when the feed was made"));
            let shape = [&[indices.len()], &input.shape[..]].concat();
            let tensor = HostTensor::new(tensor.dtype(), shape, tensor.into_data());
            (input.to.clone(), tensor.expect("as many values in another shape"))
        };
        Batch { inputs: self.inputs.iter().map(take).collect(), labels }
    }
}

/// The shape in which the model reads a sample of this port; none if it cannot.
fn fitting(model: &Port, sample: &Port) -> Option<Vec<usize>> {
    let extents = sample.largest();
    let fits = |dim: &Dim, extent: usize| match *dim {
        Dim::Fixed(n) => extent == n,
        Dim::UpTo(n) => (1..=n).contains(&extent),
    };
    let same_rank = model.shape.len() == extents.len();
    if same_rank && model.shape.iter().zip(&extents).all(|(dim, &extent)| fits(dim, extent)) {
        return Some(extents);
    }
    let fixed = model.shape.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
    let whole = model.largest();
    let as_many = whole.iter().product::<usize>() == extents.iter().product::<usize>();
    (extents.len() == 1 && fixed && as_many).then_some(whole)
}

/// Whether the model's output can be compared with these labels.
fn check_target(spec: &ModelSpec, loss: LossKind, target: &Target) -> Result<(), String> {
    let output = spec.output_shape();
    let outputs = output.last().copied().unwrap_or(0);
    match target {
        Target::Values { names } if loss == LossKind::Distillation && output == [names.len()] => {
            Ok(())
        }
        _ if loss == LossKind::Distillation => {
            Err("a bottleneck's run has no labels of its own: name the run of its model".into())
        }
        Target::Classes { names } if output.len() == 1 => match names.len() <= outputs {
            true => Ok(()),
            false => Err(format!(
                "the model tells {outputs} classes apart, but the data has {} classes",
                names.len()
            )),
        },
        Target::Tokens { vocabulary, .. } if output.len() == 2 => match *vocabulary <= outputs {
            true => Ok(()),
            false => {
                Err(format!("the model knows {outputs} tokens, but the data has {vocabulary}"))
            }
        },
        Target::Values { .. } if loss != LossKind::Mse => {
            Err("the labels are numbers: set train.loss = \"mse\"".into())
        }
        Target::Values { names } if output == [names.len()] => Ok(()),
        Target::Classes { .. } => Err(format!("the labels are classes, the output is {output:?}")),
        Target::Tokens { .. } => Err(format!("the labels are tokens, the output is {output:?}")),
        Target::Values { names } => {
            Err(format!("a sample has {} target values, the output is {output:?}", names.len()))
        }
    }
}

fn shape_of(port: &Port) -> String {
    let dim = |d: &Dim| match d {
        Dim::Fixed(n) => n.to_string(),
        Dim::UpTo(n) => format!("up to {n}"),
    };
    format!("[{}]", port.shape.iter().map(dim).collect::<Vec<_>>().join(", "))
}

fn shown(ports: &[Port]) -> String {
    let port = |p: &Port| format!("{} ({} {})", p.name, name_of(p.dtype), shape_of(p));
    ports.iter().map(port).collect::<Vec<_>>().join(" and ")
}

fn name_of(dtype: DType) -> &'static str {
    dtype.name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Column, DataSpec, Table};

    fn mlp(input: [usize; 3], classes: usize) -> ModelSpec {
        let json = serde_json::json!({
            "family": "mlp", "input": input, "hidden": [4], "classes": classes
        });
        serde_json::from_value(json).unwrap()
    }

    fn features(names: &[&str]) -> Arc<dyn Dataset> {
        Arc::new(Table {
            name: "table".into(),
            samples: 2,
            inputs: vec![Column::floats("x", &[3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
            target: Target::Classes { names: names.iter().map(|n| n.to_string()).collect() },
            labels: crate::data::table::integer_bytes(&[0, 1]),
        })
    }

    #[test]
    fn features_are_read_in_the_models_shape() {
        let spec = mlp([1, 1, 3], 2);
        let feed = Feed::new(&spec, LossKind::CrossEntropy, features(&["a", "b"])).unwrap();
        let batch = feed.batch(&[1]);
        assert_eq!(batch.inputs[0].0, INPUT);
        assert_eq!(batch.inputs[0].1, HostTensor::from_f32(vec![1, 1, 1, 3], &[4.0, 5.0, 6.0]));
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_why() {
        let refused = |spec: &ModelSpec, data: Arc<dyn Dataset>| {
            Feed::new(spec, LossKind::CrossEntropy, data).err().expect("refused").to_string()
        };
        let text = refused(&mlp([1, 1, 4], 2), features(&["a", "b"]));
        assert!(text.contains("model.input is [1, 1, 4], but a sample is [3]"), "{text}");
        let text = refused(&mlp([1, 1, 3], 2), features(&["a", "b", "c"]));
        assert!(text.contains("2 classes apart, but the data has 3 classes"), "{text}");
        let line = DataSpec::SyntheticLine { samples: 8, noise: 0.0, seed: 1 }.open().unwrap();
        let text = refused(&mlp([1, 1, 1], 1), line);
        assert!(text.contains("set train.loss = \"mse\""), "{text}");
    }
}
