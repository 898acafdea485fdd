//! The log-probabilities on the CPU, choice by choice: small ones side by side in threads, large ones each in all
//! threads.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{ChoiceLogProbs, Choices, Group};
use crate::ops::row_product::{multiply_by_rows, multiply_by_rows_alone};
use crate::ops::simd::{dot, exp_in_place, largest, sum_of_exp, vectorized};
use crate::ops::tape::{BackwardInputs, Compute};
use crate::ops::values::{Matrix, dims, in_order, multiply, tensor, values};

impl Compute<Flex, 2> for ChoiceLogProbs {
    fn forward(&self, [hidden, weight]: [FlexTensor; 2]) -> FlexTensor {
        forward(hidden, weight, &self.0)
    }

    fn gradients(self, mut given: BackwardInputs<Flex, 2>) -> [Option<FlexTensor>; 2] {
        let (inputs, [_, for_weight]) = (given.take_inputs(), given.wanted);
        let (by_hidden, by_weight) = backward(inputs, &self.0, given.gradient, for_weight);
        [Some(by_hidden), by_weight]
    }
}

/// Products of more multiplications are spread over the threads; smaller ones go to a thread each.
const LARGE: usize = 1 << 20;

/// Rows at one choice for which dot products are faster than laying the rows side by side.
const FEW: usize = 4;

/// What a choice needs of the two matrices, copied together.
struct Rows {
    hidden: Vec<f32>,
    weight: Vec<f32>,
    width: usize,
    threaded: bool,
}

impl Rows {
    /// Rows that a thread takes at least: all of them where the whole choice is one thread's.
    fn at_least(&self) -> usize {
        if self.threaded { 1 } else { usize::MAX }
    }

    /// The logits of the choice's tokens, `[rows, tokens]`.
    fn logits(&self) -> Vec<f32> {
        let (rows, tokens) = (self.hidden.len() / self.width, self.weight.len() / self.width);
        if self.threaded {
            return multiply_by_rows(&self.hidden, &self.weight, self.width);
        }
        let mut logits = vec![0.0; rows * tokens];
        if rows < FEW {
            vectorized(
                #[inline(always)]
                || {
                    for (logits, hidden) in logits.chunks_mut(tokens).zip(self.hidden.chunks(self.width)) {
                        for (logit, weight) in logits.iter_mut().zip(self.weight.chunks(self.width)) {
                            *logit = dot(hidden, weight);
                        }
                    }
                },
            );
        } else {
            multiply_by_rows_alone(&mut logits, &self.hidden, &self.weight, self.width);
        }
        logits
    }
}

/// Does `work` for every choice, for small ones in threads; the results come in the order of the choices.
fn for_choices<T: Send>(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    choices: &Choices,
    work: impl Fn(&Group, Rows) -> T + Sync,
) -> Vec<T> {
    let (width, from) = (dims::<2>(hidden)[1], values(hidden));
    let is_large = |group: &Group| group.rows.len() * group.tokens.len() * width > LARGE;
    let prepared = |group: &Group, threaded: bool| {
        let mut hidden = Vec::with_capacity(group.rows.len() * width);
        group.rows.iter().for_each(|place| hidden.extend_from_slice(&from[place.row as usize * width..][..width]));
        let rows = Rows { hidden, weight: matrix_rows(weight, &group.tokens, width), width, threaded };
        work(group, rows)
    };
    let groups = &choices.0.groups;
    let mut done: Vec<Option<T>> = groups.iter().map(|group| is_large(group).then(|| prepared(group, true))).collect();
    done.par_iter_mut().zip(groups).for_each(|(done, group)| {
        done.get_or_insert_with(|| prepared(group, false));
    });
    done.into_iter().flatten().collect()
}

/// The given rows of a matrix in float32; only they are converted where it has 16 bits.
fn matrix_rows(matrix: &FlexTensor, rows: &[u32], width: usize) -> Vec<f32> {
    fn pick<T: Copy>(values: &[T], rows: &[u32], width: usize, add: impl Fn(&mut Vec<f32>, &[T])) -> Vec<f32> {
        let mut picked = Vec::with_capacity(rows.len() * width);
        rows.iter().for_each(|&row| add(&mut picked, &values[row as usize * width..][..width]));
        picked
    }
    match matrix.dtype() {
        DType::BF16 => pick(matrix.storage::<bf16>(), rows, width, |picked, row| {
            picked.extend(row.iter().map(|value| value.to_f32()))
        }),
        DType::F16 => pick(matrix.storage::<f16>(), rows, width, |picked, row| {
            picked.extend(row.iter().map(|value| value.to_f32()))
        }),
        _ => pick(values(matrix), rows, width, |picked, row| picked.extend_from_slice(row)),
    }
}

fn forward(hidden: FlexTensor, weight: FlexTensor, choices: &Choices) -> FlexTensor {
    let (hidden, weight) = (in_order(hidden), weight.to_contiguous());
    let found = for_choices(&hidden, &weight, choices, |group, rows| {
        let mut log_probs = rows.logits();
        log_probs.par_chunks_mut(group.tokens.len()).with_min_len(rows.at_least()).for_each(|row| {
            let normalizer = vectorized(
                #[inline(always)]
                || {
                    let top = largest(row);
                    top + sum_of_exp(row, top).ln()
                },
            );
            row.iter_mut().for_each(|logit| *logit -= normalizer);
        });
        log_probs
    });
    let mut out = vec![0.0; choices.0.outputs];
    for (group, log_probs) in choices.0.groups.iter().zip(found) {
        for ((output, tokens), row) in group.wanted().zip(log_probs.chunks(group.tokens.len())) {
            out[output..output + tokens.len()].copy_from_slice(&row[tokens]);
        }
    }
    tensor(out, [choices.0.outputs])
}

/// Gradients by the hidden states and, if wanted, by the output matrix.
fn backward(
    [hidden, weight]: [FlexTensor; 2],
    choices: &Choices,
    gradient: FlexTensor,
    for_weight: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let (hidden, weight, gradient) = (in_order(hidden), weight.to_contiguous(), in_order(gradient));
    let ([rows, width], [vocabulary, _]) = (dims(&hidden), dims(&weight));
    let found = for_choices(&hidden, &weight, choices, |group, own| {
        let tokens = group.tokens.len();
        let mut by_logits = own.logits();
        let wanted: Vec<_> = group.wanted().collect();
        let rows = by_logits.par_chunks_mut(tokens).zip(wanted).with_min_len(own.at_least());
        rows.for_each(|(row, (output, wanted))| {
            let gradient = &values(&gradient)[output..output + wanted.len()];
            vectorized(
                #[inline(always)]
                || {
                    let top = largest(row);
                    let factor = -gradient.iter().sum::<f32>() / exp_in_place(row, top);
                    row.iter_mut().for_each(|value| *value *= factor);
                    row[wanted].iter_mut().zip(gradient).for_each(|(value, gradient)| *value += gradient);
                },
            );
        });
        let by_logits = Matrix::rows(&by_logits, [group.rows.len(), tokens], tokens);
        let product = |left: Matrix, right: &[f32]| {
            let [height, inner] = left.size;
            let mut out = vec![0.0; height * width];
            multiply(&mut out, width, 0.0, 1.0, [left, Matrix::rows(right, [inner, width], width)], own.threaded);
            out
        };
        (product(by_logits, &own.weight), for_weight.then(|| product(by_logits.transposed(), &own.hidden)))
    });
    let mut by_hidden = vec![0.0; rows * width];
    let mut by_weight = for_weight.then(|| vec![0.0; vocabulary * width]);
    for (group, (by_own_hidden, by_own_weight)) in choices.0.groups.iter().zip(found) {
        for (place, row) in group.rows.iter().zip(by_own_hidden.chunks(width)) {
            by_hidden[place.row as usize * width..][..width].copy_from_slice(row);
        }
        // One choice after the other: a token may be in several.
        if let (Some(by_weight), Some(by_own_weight)) = (&mut by_weight, by_own_weight) {
            for (&token, row) in group.tokens.iter().zip(by_own_weight.chunks(width)) {
                let sums = &mut by_weight[token as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
    (tensor(by_hidden, [rows, width]), by_weight.map(|by_weight| tensor(by_weight, [vocabulary, width])))
}
