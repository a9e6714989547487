//! One recurrent layer over a whole sequence, by PyTorch's equations, names and order of gates.
//!
//! LSTM: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000. GRU: Cho et al.
//! 2014, with the reset gate behind the product, as cuDNN and PyTorch have it. The input's share of
//! the gates is one matrix product for the whole sequence; the hidden state's is one for each step.

use burn::{
    module::{Module, Param},
    tensor::{
        Device, Int, Tensor, TensorData,
        activation::{sigmoid, tanh},
        module::linear,
    },
};

use super::{Init, ModelError, Params, project};

/// What computes the next state from the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    Lstm,
    Gru,
}

impl Cell {
    /// Rows of the weights for each unit of the hidden state.
    pub(super) fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }
}

/// What a layer knows of the sequence so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Hidden state, which is the layer's output too: `[batch, hidden]`
    pub h: Tensor<2>,
    /// Cell state of an LSTM: `[batch, hidden]`
    pub c: Option<Tensor<2>>,
}

/// The weights of one layer: `[gates · hidden, input]`, `[gates · hidden, hidden]`, and two biases.
#[derive(Module, Debug)]
pub(super) struct Recurrent {
    weight_ih: Param<Tensor<2>>,
    weight_hh: Param<Tensor<2>>,
    bias_ih: Param<Tensor<1>>,
    bias_hh: Param<Tensor<1>>,
    #[module(skip)]
    cell: Cell,
}

impl Recurrent {
    /// Layer number `layer` of the `torch.nn.LSTM` or `GRU` that is called `rnn`.
    pub fn new(
        cell: Cell,
        layer: usize,
        [input, hidden]: [usize; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let (rows, init) = (cell.gates() * hidden, Init::FanIn(hidden));
        let name = |part: &str| format!("rnn.{part}_l{layer}");
        Ok(Self {
            weight_ih: params.param(&name("weight_ih"), [rows, input], init)?,
            weight_hh: params.param(&name("weight_hh"), [rows, hidden], init)?,
            bias_ih: params.param(&name("bias_ih"), [rows], init)?,
            bias_hh: params.param(&name("bias_hh"), [rows], init)?,
            cell,
        })
    }

    /// Input features and hidden units.
    pub fn sizes(&self) -> [usize; 2] {
        let ([_, input], [_, hidden]) = (self.weight_ih.dims(), self.weight_hh.dims());
        [input, hidden]
    }

    /// The state before a sequence: zeros.
    pub fn start(&self, batch: usize, device: &Device) -> State {
        let [_, hidden] = self.sizes();
        let zeros = Tensor::zeros([batch, hidden], device);
        let c = (self.cell == Cell::Lstm).then(|| zeros.clone());
        State { h: zeros, c }
    }

    /// `[batch, sequence, input]` and the state before it → the state after each step.
    pub fn forward(&self, x: Tensor<3>, mut state: State) -> Vec<State> {
        let (weight_ih, weight_hh) = (self.weight_ih.val(), self.weight_hh.val());
        let from_input = project(x, weight_ih.transpose(), Some(self.bias_ih.val()));
        let (weight_hh, bias_hh) = (weight_hh.transpose(), self.bias_hh.val());
        let mut inputs = Vec::new();
        unbind(from_input, &mut inputs);
        let step = |from_input| {
            let from_hidden = linear(state.h.clone(), weight_hh.clone(), Some(bias_hh.clone()));
            state = match state.c.take() {
                Some(c) => lstm(from_input + from_hidden, c),
                None => gru(from_input, from_hidden, state.h.clone()),
            };
            state.clone()
        };
        inputs.into_iter().map(step).collect()
    }
}

/// The gates are input, forget, cell, output, side by side: `[batch, 4 · hidden]`
fn lstm(gates: Tensor<2>, c: Tensor<2>) -> State {
    let [i, f, g, o] = gates_of(gates);
    let c = sigmoid(f) * c + sigmoid(i) * tanh(g);
    State { h: sigmoid(o) * tanh(c.clone()), c: Some(c) }
}

/// The gates are reset, update, new: `[batch, 3 · hidden]` from the input and from the hidden state.
fn gru(from_input: Tensor<2>, from_hidden: Tensor<2>, h: Tensor<2>) -> State {
    let ([ri, zi, ni], [rh, zh, nh]) = (gates_of(from_input), gates_of(from_hidden));
    let (r, z) = (sigmoid(ri + rh), sigmoid(zi + zh));
    let n = tanh(ni + r * nh);
    // (1 − z) n + z h, with one product less.
    State { h: n.clone() + z * (h - n), c: None }
}

fn gates_of<const N: usize>(all: Tensor<2>) -> [Tensor<2>; N] {
    let [batch, width] = all.dims();
    let hidden = width / N;
    std::array::from_fn(|i| all.clone().slice([0..batch, i * hidden..(i + 1) * hidden]))
}

/// The steps of `[batch, sequence, width]`, by halves. The gradient of a slice is as large as what it
/// was cut from: cutting each step from the whole would take sequence² of time and memory traffic in
/// the backward pass, and this sequence · log(sequence).
fn unbind(x: Tensor<3>, steps: &mut Vec<Tensor<2>>) {
    let [batch, sequence, width] = x.dims();
    if sequence <= 1 {
        steps.push(x.reshape([batch, width]));
        return;
    }
    let half = sequence / 2;
    unbind(x.clone().slice([0..batch, 0..half, 0..width]), steps);
    unbind(x.slice([0..batch, half..sequence, 0..width]), steps);
}

/// What each sample's step number `lengths[sample] - 1` gave: `[batch, hidden]` of `[batch, hidden]`
/// for each step.
pub(super) fn at_end(mut steps: Vec<Tensor<2>>, lengths: Option<&[usize]>) -> Tensor<2> {
    let count = steps.len();
    let lengths = match lengths {
        Some(lengths) if lengths.iter().any(|&l| l != count) => lengths,
        _ => return steps.pop().expect("a sequence has at least one step"),
    };
    let ([batch, hidden], device) = (steps[0].dims(), steps[0].device());
    let index = lengths.iter().flat_map(|&l| std::iter::repeat_n(l as i64 - 1, hidden));
    let index = TensorData::new(index.collect::<Vec<_>>(), [batch, 1, hidden]);
    let index = Tensor::<3, Int>::from_data(index, &device);
    Tensor::stack::<3>(steps, 1).gather(1, index).reshape([batch, hidden])
}
