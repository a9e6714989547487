//! Messages of a group as carriers: whichever kind it is, its tensors go in chunks.

use super::{
    Carrier,
    v1::{self, group_reply, group_request},
};

impl Carrier for group_request::Kind {
    fn tensors(&mut self) -> Vec<&mut v1::Tensor> {
        match self {
            Self::Step(step) => step.activation.iter_mut().chain(&mut step.labels).collect(),
            Self::HeadGradient(sent) => sent.gradient.iter_mut().collect(),
            Self::Done(done) => of_head(&mut done.head),
            Self::Evaluate(batch) => batch.activation.iter_mut().chain(&mut batch.labels).collect(),
            Self::Join(_) | Self::Validated(_) | Self::Chunk(_) => Vec::new(),
        }
    }
}

impl Carrier for group_reply::Kind {
    fn tensors(&mut self) -> Vec<&mut v1::Tensor> {
        match self {
            Self::Turn(turn) => of_head(&mut turn.head),
            Self::Validate(validate) => of_head(&mut validate.head),
            Self::Stepped(stepped) => stepped.gradient.iter_mut().collect(),
            Self::HeadGradient(sum) => sum.gradient.iter_mut().collect(),
            Self::Joined(_)
            | Self::Taken(_)
            | Self::Void(_)
            | Self::Evaluated(_)
            | Self::Ended(_)
            | Self::Chunk(_) => Vec::new(),
        }
    }
}

fn of_head(head: &mut Option<v1::Head>) -> Vec<&mut v1::Tensor> {
    match head {
        Some(head) => head.weights.iter_mut().chain(&mut head.optimizer).collect(),
        None => Vec::new(),
    }
}
