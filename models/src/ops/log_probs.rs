//! Log-probabilities of chosen tokens.

use std::fmt::Debug;

use burn::backend::Dispatch;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor};

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};
use crate::Precision;

/// `log softmax(hidden W^T)` at the given tokens, `[rows, chosen]`, of `hidden`, `[rows, width]`, the output matrix
/// `[vocabulary, width]` and `ids`, `[rows, chosen]`.
///
/// No `[rows, vocabulary]` table outlives a call; the backward pass computes the logits again. A matrix that does not
/// train may be kept in 16 bits.
///
/// # Panics
///
/// If the sizes do not fit together or one of them is 0. Ids must be below the vocabulary's size.
pub fn log_probs(hidden: Tensor<2>, weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<2> {
    let ([rows, width], [vocabulary, depth], [id_rows, chosen]) = (hidden.dims(), weight.dims(), ids.dims());
    assert!(![rows, width, vocabulary, chosen].contains(&0), "sizes must not be 0");
    assert_eq!((width, rows), (depth, id_rows), "hidden states must be as wide as the matrix, with ids for each");
    Tensor::from_dispatch(Dispatch::log_probs(hidden.into_dispatch(), weight.into_dispatch(), ids.into_dispatch()))
}

routed! {
    trait LogProbsOps: Run<LogProbs<IntTensor<Self>>, 2> {
        fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
            Self::run(LogProbs { ids }, [hidden, weight])
        }
    }
}

/// `I` are a backend's integers.
#[derive(Debug, Clone)]
struct LogProbs<I> {
    ids: I,
}

impl<I: Clone + Send + Debug + 'static> Operation<2> for LogProbs<I> {
    const RECOMPUTABLE: bool = false;
}

/// Logits of the rows that a pass works on at once, 16 MiB a table of them, unless that is fewer than [`LEAST_ROWS`].
const MOST_LOGITS: usize = 1 << 22;

/// Fewer rows would not be worth another pass over the output matrix.
const LEAST_ROWS: usize = 64;

fn rows_at_once(vocabulary: usize) -> usize {
    (MOST_LOGITS / vocabulary).max(LEAST_ROWS)
}

pub(super) mod generic {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{FloatDType, IndexingUpdateOp};

    use super::super::projection::project;
    use super::super::route::Generic;
    use super::{BackwardInputs, Compute, FloatTensor, Int, IntTensor, LogProbs, Precision, Tensor, rows_at_once};

    impl<B: Generic> Compute<B, 2> for LogProbs<IntTensor<B>> {
        fn forward(&self, [hidden, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
            B::primitive(forward(B::float(hidden), B::float(weight), B::int(self.ids.clone())))
        }

        fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
            let (inputs, [_, for_weight]) = (given.take_inputs().map(B::float), given.wanted);
            let (by_hidden, by_weight) = backward(inputs, B::int(self.ids), B::float(given.gradient), for_weight);
            [Some(B::primitive(by_hidden)), by_weight.map(B::primitive)]
        }
    }

    /// See [`super::log_probs`].
    pub fn forward(hidden: Tensor<2>, weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<2> {
        let weight = weight.cast(FloatDType::F32);
        let part = |start: usize, rows: usize| {
            let logits = product(hidden.clone().narrow(0, start, rows), weight.clone());
            log_softmax(logits, 1).gather(1, ids.clone().narrow(0, start, rows))
        };
        Tensor::cat(parts(&hidden, &weight).map(|(start, rows)| part(start, rows)).collect(), 0)
    }

    /// Gradients by the hidden states and, if wanted, by the output matrix.
    fn backward(
        [hidden, weight]: [Tensor<2>; 2],
        ids: Tensor<2, Int>,
        gradient: Tensor<2>,
        for_weight: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let weight = weight.cast(FloatDType::F32);
        let mut by_hidden = Vec::new();
        let mut by_weight: Option<Tensor<2>> = None;
        for (start, rows) in parts(&hidden, &weight) {
            let of_part = |x: &Tensor<2>| x.clone().narrow(0, start, rows);
            let (hidden, gradient) = (of_part(&hidden), of_part(&gradient));
            let probabilities = log_softmax(product(hidden.clone(), weight.clone()), 1).exp();
            let by_logits = (probabilities * gradient.clone().sum_dim(1)).neg().scatter(
                1,
                ids.clone().narrow(0, start, rows),
                gradient,
                IndexingUpdateOp::Add,
            );
            by_hidden.push(product(by_logits.clone(), weight.clone().transpose()));
            if for_weight {
                let part = product(by_logits.transpose(), hidden.transpose());
                by_weight = Some(match by_weight {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
        }
        (Tensor::cat(by_hidden, 0), by_weight)
    }

    /// `a b^T`.
    fn product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        project(a, b, Precision::F32)
    }

    fn parts(hidden: &Tensor<2>, weight: &Tensor<2>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, at_once) = (hidden.dims()[0], rows_at_once(weight.dims()[0]));
        (0..rows).step_by(at_once).map(move |start| (start, at_once.min(rows - start)))
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::row_product::{multiply_by_rows, multiply_by_rows_alone};
    use super::super::simd::{exp, largest, sum_of_exp, vectorized};
    use super::super::values::{Matrix, dims, in_order, indices, multiply, tensor, values};
    use super::{BackwardInputs, Compute, LogProbs, rows_at_once};

    impl Compute<Flex, 2> for LogProbs<FlexTensor> {
        fn forward(&self, [hidden, weight]: [FlexTensor; 2]) -> FlexTensor {
            forward(hidden, weight, &self.ids)
        }

        fn gradients(self, mut given: BackwardInputs<Flex, 2>) -> [Option<FlexTensor>; 2] {
            let (inputs, [_, for_weight]) = (given.take_inputs(), given.wanted);
            let (by_hidden, by_weight) = backward(inputs, &self.ids, given.gradient, for_weight);
            [Some(by_hidden), by_weight]
        }
    }

    /// Tokens whose logits a task holds at once.
    const TOKENS: usize = 512;

    /// Rows that pass by the output matrix together.
    const ROWS: usize = 256;

    /// The logits of some tokens: what their exponentials sum to in each row, and those that were asked for.
    struct Slice {
        /// The largest logit of each row and the sum of `exp(logit - largest)`.
        sums: Vec<(f32, f32)>,
        /// Places among the ids, and logits.
        chosen: Vec<(usize, f32)>,
    }

    /// No more than a slice of the vocabulary at a time, so that the logits never leave the cache.
    fn forward(hidden: FlexTensor, weight: FlexTensor, ids: &FlexTensor) -> FlexTensor {
        let (hidden, weight, ids) = (in_order(hidden), in_order(weight), indices(ids));
        let [rows, width] = dims(&hidden);
        let chosen = ids.len() / rows;
        // Of an id that is in no slice nothing will be known.
        let mut out = vec![f32::NAN; ids.len()];
        let parts = values(&hidden).chunks(ROWS * width).zip(ids.chunks(ROWS * chosen));
        for ((hidden, ids), out) in parts.zip(out.chunks_mut(ROWS * chosen)) {
            let rows = hidden.len() / width;
            let slices = values(&weight).par_chunks(TOKENS * width).enumerate().map_init(
                || vec![0.0; rows * TOKENS],
                |logits, (place, weight)| slice(logits, hidden, weight, place * TOKENS, ids),
            );
            let slices: Vec<Slice> = slices.collect();
            for (place, logit) in slices.iter().flat_map(|slice| &slice.chosen) {
                out[*place] = *logit;
            }
            for (row, out) in out.chunks_mut(chosen).enumerate() {
                let of_row = || slices.iter().map(|slice| slice.sums[row]);
                let top = of_row().fold(f32::NEG_INFINITY, |top, (largest, _)| top.max(largest));
                let sum: f32 =
                    of_row().filter(|(_, sum)| *sum != 0.0).map(|(largest, sum)| sum * (largest - top).exp()).sum();
                let normalizer = top + sum.ln();
                out.iter_mut().for_each(|out| *out -= normalizer);
            }
        }
        tensor(out, [rows, chosen])
    }

    /// The logits of `hidden` for the tokens of `weight`, the first of which is `first`.
    fn slice(logits: &mut [f32], hidden: &[f32], weight: &[f32], first: usize, ids: &[usize]) -> Slice {
        let rows = logits.len() / TOKENS;
        let (width, chosen) = (hidden.len() / rows, ids.len() / rows);
        let tokens = weight.len() / width;
        let logits = &mut logits[..rows * tokens];
        multiply_by_rows_alone(logits, hidden, weight, width);
        let of_row = |logits: &[f32]| {
            vectorized(
                #[inline(always)]
                || {
                    let top = largest(logits);
                    // Tokens of probability 0 only: nothing to add.
                    (top, if top == f32::NEG_INFINITY { 0.0 } else { sum_of_exp(logits, top) })
                },
            )
        };
        let is_here = |(_, id): &(usize, &usize)| (first..first + tokens).contains(*id);
        let logit = |(place, id): (usize, &usize)| (place, logits[place / chosen * tokens + id - first]);
        Slice {
            sums: logits.chunks(tokens).map(of_row).collect(),
            chosen: ids.iter().enumerate().filter(is_here).map(logit).collect(),
        }
    }

    /// Gradients by the hidden states and, if wanted, by the output matrix.
    fn backward(
        [hidden, weight]: [FlexTensor; 2],
        ids: &FlexTensor,
        gradient: FlexTensor,
        for_weight: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let [hidden, weight, gradient] = [hidden, weight, gradient].map(in_order);
        let ids = indices(ids);
        let ([rows, width], [vocabulary, _]) = (dims(&hidden), dims(&weight));
        let chosen = ids.len() / rows;
        let mut by_hidden = vec![0.0; rows * width];
        let mut by_weight = for_weight.then(|| vec![0.0; vocabulary * width]);
        let mut start = 0;
        for_parts(&hidden, &weight, |logits, vocabulary| {
            let part = logits.len() / vocabulary;
            let chosen_of = start * chosen..(start + part) * chosen;
            let (ids, gradient) = (&ids[chosen_of.clone()], &values(&gradient)[chosen_of]);
            let targets = ids.par_chunks(chosen).zip(gradient.par_chunks(chosen));
            logits.par_chunks_mut(vocabulary).zip(targets).for_each(|(logits, (ids, gradient))| {
                vectorized(
                    #[inline(always)]
                    || {
                        let top = largest(logits);
                        let total: f32 = gradient.iter().sum();
                        let factor = -total / sum_of_exp(logits, top);
                        logits.iter_mut().for_each(|logit| *logit = factor * exp(*logit - top));
                        ids.iter().zip(gradient).for_each(|(&id, gradient)| logits[id] += gradient);
                    },
                );
            });
            let by_logits = Matrix::rows(logits, [part, vocabulary], vocabulary);
            let of_part = start * width..(start + part) * width;
            let weight = Matrix::rows(values(&weight), [vocabulary, width], width);
            multiply(&mut by_hidden[of_part.clone()], width, 0.0, 1.0, [by_logits, weight], true);
            if let Some(by_weight) = &mut by_weight {
                let hidden = Matrix::rows(&values(&hidden)[of_part], [part, width], width);
                multiply(by_weight, width, 1.0, 1.0, [by_logits.transposed(), hidden], true);
            }
            start += part;
        });
        (tensor(by_hidden, [rows, width]), by_weight.map(|by_weight| tensor(by_weight, [vocabulary, width])))
    }

    /// Calls `part` with the logits of some rows at a time, `[rows, vocabulary]`, and the size of the vocabulary.
    fn for_parts(hidden: &FlexTensor, weight: &FlexTensor, mut part: impl FnMut(&mut [f32], usize)) {
        let ([rows, width], [vocabulary, _]) = (dims(hidden), dims(weight));
        for hidden in values(hidden).chunks(rows_at_once(vocabulary).min(rows) * width) {
            part(&mut multiply_by_rows(hidden, values(weight), width), vocabulary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, device, numbers, random, sizes};
    use burn::tensor::TensorData;

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        let large = [[70, 2, 1 << 16], [512, 3, 1100]];
        for [rows, chosen, vocabulary] in sizes([70, 3, 600]).chain(large) {
            let ids: Vec<i32> = numbers(rows * chosen, vocabulary, 3).into_iter().map(|id| id as i32).collect();
            let ids = || Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), [rows, chosen]), &device());
            check_gradients(
                [random([rows, 21], 1), random([vocabulary, 21], 2).mul_scalar(0.4)],
                |[hidden, weight]| log_probs(hidden, weight, ids()),
                |[hidden, weight]| generic::forward(hidden, weight, ids()),
            );
        }
    }
}
