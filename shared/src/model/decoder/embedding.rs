//! From token ids to hidden states: rows of a table, with or without learned positions.

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor},
};

use super::{advance, place};
use crate::model::{Activation, Block, Init, ModelError, Params, Pass, Value};

/// Rows of the token table, plus rows of the position table if the model has one.
/// INT64 `[batch, sequence]` → `[batch, sequence, hidden]`
///
/// Only the rows that are asked for are read: of a mapped weight file, nothing else comes into memory.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocabulary, hidden]`
    tokens: Param<Tensor<2>>,
    /// `[positions, hidden]`
    learned: Option<Param<Tensor<2>>>,
    /// Most positions of a sequence.
    positions: usize,
}

impl Embedding {
    /// `learned` names the table of positions, where there is one.
    pub fn new(
        tokens: &str,
        learned: Option<&str>,
        [vocabulary, hidden, positions]: [usize; 3],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let init = Init::Normal(0.02);
        let learned =
            learned.map(|name| params.param(name, [positions, hidden], init)).transpose()?;
        Ok(Self { tokens: params.param(tokens, [vocabulary, hidden], init)?, learned, positions })
    }
}

impl Block for Embedding {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let ids = checked_ids(pass.stage, input, self.tokens.dims()[0])?;
        let [batch, new] = ids.dims();
        let start = place(pass, new, self.positions)?;
        let rows = self.tokens.val().select(0, ids.reshape([batch * new]));
        let mut x: Tensor<3> = rows.reshape([batch as i32, new as i32, -1]);
        if let Some(learned) = &self.learned {
            x = x + learned.val().narrow(0, start, new).unsqueeze();
        }
        advance(pass, new);
        Ok(Value::R3(x).into())
    }
}

/// Ids that have a row; what burn would panic on is refused here.
fn checked_ids(
    stage: &str,
    input: Activation,
    vocabulary: usize,
) -> Result<Tensor<2, Int>, ModelError> {
    let fail = |expected: &str, found: String| ModelError::Input {
        stage: stage.into(),
        expected: expected.into(),
        found,
    };
    let ids = match input.into_single(stage)? {
        Value::I2(ids) if ids.dims().iter().all(|&d| d > 0) => ids,
        other => {
            let found = format!("shape {:?}", other.dims());
            return Err(fail("token ids: INT64 [batch, sequence], neither of them 0", found));
        }
    };
    let known = 0..vocabulary as i64;
    match ids.to_data().iter::<i64>().find(|id| !known.contains(id)) {
        Some(id) => Err(fail(&format!("token ids below {vocabulary}"), id.to_string())),
        None => Ok(ids),
    }
}
