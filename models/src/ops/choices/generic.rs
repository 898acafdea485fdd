//! The log-probabilities from Burn's own operations: choices are padded to each other and computed together.

use burn::backend::tensor::FloatTensor;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, FloatDType, IndexingUpdateOp, Tensor};

use super::{ChoiceLogProbs, Choices, Group};
use crate::Precision;
use crate::host::{self, indices};
use crate::ops::projection::project;
use crate::ops::route::Plain;
use crate::ops::tape::{BackwardInputs, Compute};

impl<B: Plain> Compute<B, 2> for ChoiceLogProbs {
    fn forward(&self, [hidden, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::primitive(forward(B::float(hidden), B::float(weight), &self.0))
    }

    fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let (inputs, [_, for_weight]) = (given.take_inputs().map(B::float), given.wanted);
        let (by_hidden, by_weight) = backward(inputs, &self.0, B::float(given.gradient), for_weight);
        [Some(B::primitive(by_hidden)), by_weight.map(B::primitive)]
    }
}

/// A choice of more tokens has a product of its own; others are padded to the longest of them and computed together.
const WIDE: usize = 64;

/// The logit of a token that is none.
const NONE: f32 = -1e30;

/// Choices that are computed together: one that is wide, or all others.
struct Part<'a> {
    groups: Vec<&'a Group>,
    /// Tokens of the longest.
    width: usize,
}

impl Part<'_> {
    fn rows(&self) -> Vec<i32> {
        self.groups.iter().flat_map(|group| group.rows.iter().map(|place| place.row as i32)).collect()
    }

    /// The rows of the output matrix for each row of the part, or for all of them together if the part is a single
    /// choice.
    fn tokens(&self) -> Vec<i32> {
        let padded = |group: &Group| -> Vec<i32> {
            let tokens = group.tokens.iter().map(|&token| token as i32);
            tokens.chain(std::iter::repeat_n(0, self.width - group.tokens.len())).collect()
        };
        match self.groups.as_slice() {
            [only] => padded(only),
            groups => groups.iter().flat_map(|group| padded(group).repeat(group.rows.len())).collect(),
        }
    }

    /// 0 for each token of each row and a very small logit for padding, `[rows, width]`; absent where there is no
    /// padding.
    fn padding(&self, device: &Device) -> Option<Tensor<2>> {
        if self.groups.iter().all(|group| group.tokens.len() == self.width) {
            return None;
        }
        let row = |group: &Group| -> Vec<f32> {
            (0..self.width).map(|place| if place < group.tokens.len() { 0.0 } else { NONE }).collect()
        };
        let values: Vec<f32> = self.groups.iter().flat_map(|group| row(group).repeat(group.rows.len())).collect();
        let rows = values.len() / self.width;
        Some(host::floats(values, [rows, self.width], device))
    }
}

fn parts(choices: &Choices) -> Vec<Part<'_>> {
    let (wide, narrow): (Vec<&Group>, Vec<_>) = choices.0.groups.iter().partition(|group| group.tokens.len() > WIDE);
    let longest = narrow.iter().map(|group| group.tokens.len()).max();
    let wide = wide.into_iter().map(|group| Part { width: group.tokens.len(), groups: vec![group] });
    wide.chain(longest.map(|width| Part { groups: narrow, width })).collect()
}

/// Where each wanted value lies among the values of all rows of all parts.
fn places(parts: &[Part], outputs: usize) -> Vec<i32> {
    let mut places = vec![0; outputs];
    let mut start = 0;
    for part in parts {
        for (output, tokens) in part.groups.iter().flat_map(|group| group.wanted()) {
            for (place, token) in tokens.enumerate() {
                places[output + place] = (start + token) as i32;
            }
            start += part.width;
        }
    }
    places
}

/// The part's rows of hidden states `[rows, d]`, its rows of the output matrix (`[tokens, d]`, or of each row,
/// `[rows * tokens, d]`), and the log-probabilities of its tokens, `[rows, tokens]`.
fn log_probs(part: &Part, hidden: &Tensor<2>, weight: &Tensor<2>, device: &Device) -> [Tensor<2>; 3] {
    let hidden = hidden.clone().select(0, indices(&part.rows(), device));
    let weight = weight.clone().select(0, indices(&part.tokens(), device)).cast(FloatDType::F32);
    let [rows, d] = hidden.dims();
    let logits = match part.groups.len() {
        1 => project(hidden.clone(), weight.clone(), Precision::F32),
        _ => {
            let own = weight.clone().reshape([rows, part.width, d]);
            own.matmul(hidden.clone().reshape([rows, d, 1])).reshape([rows, part.width])
        }
    };
    let logits = match part.padding(device) {
        Some(padding) => logits + padding,
        None => logits,
    };
    [hidden, weight, log_softmax(logits, 1)]
}

/// See [`super::choice_log_probs`].
pub fn forward(hidden: Tensor<2>, weight: Tensor<2>, choices: &Choices) -> Tensor<1> {
    let (device, parts) = (hidden.device(), parts(choices));
    let values = |part: &Part| {
        let [_, _, log_probs] = log_probs(part, &hidden, &weight, &device);
        log_probs.flatten::<1>(0, 1)
    };
    Tensor::cat(parts.iter().map(values).collect(), 0).select(0, indices(&places(&parts, choices.0.outputs), &device))
}

/// Gradients by the hidden states and, if wanted, by the output matrix.
pub fn backward(
    [hidden, weight]: [Tensor<2>; 2],
    choices: &Choices,
    gradient: Tensor<1>,
    for_weight: bool,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let (device, parts) = (hidden.device(), parts(choices));
    let ([_, d], [vocabulary, _]) = (hidden.dims(), weight.dims());
    let all: usize = parts.iter().map(|part| part.rows().len() * part.width).sum();
    let gradient = Tensor::<1>::zeros([all], &device).select_assign(
        0,
        indices(&places(&parts, choices.0.outputs), &device),
        gradient,
        IndexingUpdateOp::Add,
    );
    let mut by_weight = for_weight.then(|| Tensor::<2>::zeros([vocabulary, d], &device));
    let (mut by_hidden, mut order, mut start) = (Vec::new(), vec![0; choices.0.rows], 0);
    for part in &parts {
        let [hidden, weight, log_probs] = log_probs(part, &hidden, &weight, &device);
        let [rows, width] = log_probs.dims();
        let gradient = gradient.clone().narrow(0, start, rows * width).reshape([rows, width]);
        start += rows * width;
        let by_logits = gradient.clone() - log_probs.exp() * gradient.sum_dim(1);
        let (by_own_hidden, by_own_weight) = match part.groups.len() {
            1 => {
                let product = |a, b: Tensor<2>| project(a, b.transpose(), Precision::F32);
                (product(by_logits.clone(), weight), product(by_logits.transpose(), hidden))
            }
            _ => {
                let by_hidden = by_logits.clone().reshape([rows, 1, width]).matmul(weight.reshape([rows, width, d]));
                let by_weight = by_logits.reshape([rows, width, 1]) * hidden.reshape([rows, 1, d]);
                (by_hidden.reshape([rows, d]), by_weight.reshape([rows * width, d]))
            }
        };
        by_weight = by_weight.map(|by_weight| {
            by_weight.select_assign(0, indices(&part.tokens(), &device), by_own_weight, IndexingUpdateOp::Add)
        });
        let done: usize = by_hidden.iter().map(|part: &Tensor<2>| part.dims()[0]).sum();
        for (place, row) in part.rows().into_iter().enumerate() {
            order[row as usize] = (done + place) as i32;
        }
        by_hidden.push(by_own_hidden);
    }
    (Tensor::cat(by_hidden, 0).select(0, indices(&order, &device)), by_weight)
}
