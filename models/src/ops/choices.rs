//! Log-probabilities of tokens among those that they compete with.

use std::collections::HashMap;
use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::route::FusedOps;

/// At which choice each row of hidden states stands, and which of its log-probabilities are wanted.
///
/// A choice is a list of tokens that compete with each other, such as the children of a node of the prefix tree. Rows at one choice
/// share the product of their hidden states with its tokens' rows of the output matrix.
#[derive(Debug, Clone)]
pub struct Choices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    groups: Vec<Group>,
    rows: usize,
    outputs: usize,
}

/// A choice and the rows that stand at it.
#[derive(Debug)]
struct Group {
    tokens: Vec<u32>,
    rows: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    row: u32,
    /// Where its log-probabilities begin in the output.
    output: u32,
    /// The one token that is wanted, by its place among the choice's tokens; absent for all of them.
    wanted: Option<u32>,
}

impl Choices {
    /// The choice at which each row stands, first row to last: a key that only this choice has, its tokens, and the place among them of
    /// the token that is wanted, or none for all tokens.
    ///
    /// # Panics
    ///
    /// If there is no row, a choice has no token, or a wanted place is beyond them.
    pub fn new<'a>(rows: impl IntoIterator<Item = (u32, &'a [u32], Option<usize>)>) -> Self {
        let mut inner = Inner { groups: Vec::new(), rows: 0, outputs: 0 };
        let mut of_key = HashMap::new();
        for (key, tokens, wanted) in rows {
            assert!(!tokens.is_empty() && wanted.is_none_or(|place| place < tokens.len()), "{wanted:?} of {tokens:?}");
            let group = *of_key.entry(key).or_insert_with(|| {
                inner.groups.push(Group { tokens: tokens.to_vec(), rows: Vec::new() });
                inner.groups.len() - 1
            });
            let place = Place {
                row: inner.rows as u32,
                output: inner.outputs as u32,
                wanted: wanted.map(|place| place as u32),
            };
            inner.groups[group].rows.push(place);
            inner.rows += 1;
            inner.outputs += if wanted.is_some() { 1 } else { tokens.len() };
        }
        assert!(inner.rows > 0, "there must be a row");
        Self(Arc::new(inner))
    }
}

impl Group {
    /// For each row of the choice: where its values begin in the output, and which of the tokens they are of.
    fn wanted(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        self.rows.iter().map(|place| {
            let tokens = match place.wanted {
                Some(token) => token as usize..token as usize + 1,
                None => 0..self.tokens.len(),
            };
            (place.output as usize, tokens)
        })
    }
}

/// `log softmax` of the products of each row of `hidden`, `[rows, width]`, with the rows of the output matrix `weight`,
/// `[vocabulary, width]`, that belong to the tokens of its choice: the wanted values, `[wanted]`, row after row.
///
/// Only the logits of tokens that compete are computed. A matrix that does not train may be kept in 16 bits.
///
/// # Panics
///
/// If the sizes do not fit together. Tokens must be below the vocabulary's size.
pub fn choice_log_probs(hidden: Tensor<2>, weight: Tensor<2>, choices: &Choices) -> Tensor<1> {
    let ([rows, width], [_, depth]) = (hidden.dims(), weight.dims());
    assert_eq!((rows, width), (choices.0.rows, depth), "a choice for each row, rows as wide as the matrix");
    Tensor::from_dispatch(Dispatch::choice_log_probs(hidden.into_dispatch(), weight.into_dispatch(), choices.clone()))
}

pub(super) mod generic {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

    use super::{Choices, Group};

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

        /// The rows of the output matrix for each row of the part, or for all of them together if the part is a single choice.
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

        /// 0 for each token of each row and a very small logit for padding, `[rows, width]`; absent where there is no padding.
        fn padding(&self, device: &Device) -> Option<Tensor<2>> {
            if self.groups.iter().all(|group| group.tokens.len() == self.width) {
                return None;
            }
            let row = |group: &Group| -> Vec<f32> {
                (0..self.width).map(|place| if place < group.tokens.len() { 0.0 } else { NONE }).collect()
            };
            let values: Vec<f32> = self.groups.iter().flat_map(|group| row(group).repeat(group.rows.len())).collect();
            let rows = values.len() / self.width;
            Some(Tensor::from_data(TensorData::new(values, [rows, self.width]), device))
        }
    }

    fn parts(choices: &Choices) -> Vec<Part<'_>> {
        let (wide, narrow): (Vec<&Group>, Vec<_>) =
            choices.0.groups.iter().partition(|group| group.tokens.len() > WIDE);
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

    fn index(values: &[i32], device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(values, device)
    }

    /// The part's rows of hidden states `[rows, d]`, its rows of the output matrix (`[tokens, d]`, or of each row,
    /// `[rows * tokens, d]`), and the log-probabilities of its tokens, `[rows, tokens]`.
    fn log_probs(part: &Part, hidden: &Tensor<2>, weight: &Tensor<2>, device: &Device) -> [Tensor<2>; 3] {
        let hidden = hidden.clone().select(0, index(&part.rows(), device));
        let weight = weight.clone().select(0, index(&part.tokens(), device)).cast(FloatDType::F32);
        let [rows, d] = hidden.dims();
        let logits = match part.groups.len() {
            1 => hidden.clone().matmul(weight.clone().transpose()),
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
        Tensor::cat(parts.iter().map(values).collect(), 0).select(0, index(&places(&parts, choices.0.outputs), &device))
    }

    /// Gradients by the hidden states and, if wanted, by the output matrix.
    pub fn backward(
        hidden: Tensor<2>,
        weight: Tensor<2>,
        choices: &Choices,
        gradient: Tensor<1>,
        for_weight: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let (device, parts) = (hidden.device(), parts(choices));
        let ([_, d], [vocabulary, _]) = (hidden.dims(), weight.dims());
        let all: usize = parts.iter().map(|part| part.rows().len() * part.width).sum();
        let gradient = Tensor::<1>::zeros([all], &device).select_assign(
            0,
            index(&places(&parts, choices.0.outputs), &device),
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
                1 => (by_logits.clone().matmul(weight), by_logits.transpose().matmul(hidden)),
                _ => {
                    let by_hidden =
                        by_logits.clone().reshape([rows, 1, width]).matmul(weight.reshape([rows, width, d]));
                    let by_weight = by_logits.reshape([rows, width, 1]) * hidden.reshape([rows, 1, d]);
                    (by_hidden.reshape([rows, d]), by_weight.reshape([rows * width, d]))
                }
            };
            by_weight = by_weight.map(|by_weight| {
                by_weight.select_assign(0, index(&part.tokens(), &device), by_own_weight, IndexingUpdateOp::Add)
            });
            let done: usize = by_hidden.iter().map(|part: &Tensor<2>| part.dims()[0]).sum();
            for (place, row) in part.rows().into_iter().enumerate() {
                order[row as usize] = (done + place) as i32;
            }
            by_hidden.push(by_own_hidden);
        }
        (Tensor::cat(by_hidden, 0).select(0, index(&order, &device)), by_weight)
    }
}

#[cfg(feature = "flex")]
pub(super) mod kernel {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::DType;
    use half::{bf16, f16};
    use rayon::prelude::*;

    use super::super::row_product::{multiply_by_rows, multiply_by_rows_alone};
    use super::super::simd::{dot, exp_in_place, largest, sum_of_exp, vectorized};
    use super::super::values::{Matrix, dims, in_order, multiply, tensor, values};
    use super::{Choices, Group};

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
        let mut done: Vec<Option<T>> =
            groups.iter().map(|group| is_large(group).then(|| prepared(group, true))).collect();
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

    pub fn forward(hidden: FlexTensor, weight: FlexTensor, choices: &Choices) -> FlexTensor {
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
    pub fn backward(
        hidden: FlexTensor,
        weight: FlexTensor,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, device, random, same};
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{FloatDType, Int, TensorData};

    /// Rows at choices of 1, 2, 7 and `wide` tokens, some of them at one choice; every third row wants all of its tokens.
    fn rows(count: usize, wide: usize) -> Vec<(u32, Vec<u32>, Option<usize>)> {
        let sizes = [2, wide, 1, 7];
        let row = |row: usize| {
            let choice = row * row % 5 % sizes.len();
            let tokens: Vec<u32> = (0..sizes[choice] as u32).map(|place| place * 3 + choice as u32).collect();
            let wanted = (!row.is_multiple_of(3)).then_some(row % sizes[choice]);
            (choice as u32, tokens, wanted)
        };
        (0..count).map(row).collect()
    }

    fn choices(rows: &[(u32, Vec<u32>, Option<usize>)]) -> Choices {
        Choices::new(rows.iter().map(|(key, tokens, wanted)| (*key, tokens.as_slice(), *wanted)))
    }

    /// The same by the logits of the whole vocabulary, with those of other tokens masked.
    fn plainly(hidden: Tensor<2>, weight: Tensor<2>, rows: &[(u32, Vec<u32>, Option<usize>)]) -> Tensor<1> {
        let [vocabulary, _] = weight.dims();
        let mut mask = vec![-1e30f32; rows.len() * vocabulary];
        let mut wanted_places = Vec::new();
        for (row, (_, tokens, wanted)) in rows.iter().enumerate() {
            let place = |token: &u32| row * vocabulary + *token as usize;
            tokens.iter().for_each(|token| mask[place(token)] = 0.0);
            let wanted = wanted.map_or(&tokens[..], |wanted| &tokens[wanted..=wanted]);
            wanted_places.extend(wanted.iter().map(|token| place(token) as i32));
        }
        let mask = Tensor::from_data(TensorData::new(mask, [rows.len(), vocabulary]), &device());
        let places = Tensor::<1, Int>::from_data(wanted_places.as_slice(), &device());
        log_softmax(hidden.matmul(weight.transpose()) + mask, 1).flatten::<1>(0, 1).select(0, places)
    }

    #[test]
    fn equals_a_softmax_over_the_tokens_of_each_choice_forward_and_backward() {
        for (count, wide, width) in [(1, 3, 8), (40, 300, 256)] {
            let (rows, inputs) = (rows(count, wide), [random([count, width], 1), random([920, width], 2)]);
            let choices = choices(&rows);
            check_gradients(
                inputs.clone(),
                |[hidden, weight]| choice_log_probs(hidden, weight, &choices).unsqueeze::<2>(),
                |[hidden, weight]| plainly(hidden, weight, &rows).unsqueeze::<2>(),
            );
            let [hidden, weight] = inputs;
            let (found, generic) = (
                choice_log_probs(hidden.clone(), weight.clone(), &choices),
                generic::forward(hidden, weight, &choices),
            );
            same(&found.unsqueeze::<2>(), &generic.unsqueeze::<2>(), 1e-5);
        }
    }

    #[test]
    fn the_generic_backward_pass_equals_the_kernel() {
        let rows = rows(25, 80);
        let (choices, hidden, weight) = (choices(&rows), random([25, 16], 1), random([260, 16], 2));
        let gradient = random([1, choices.0.outputs], 3).flatten::<1>(0, 1);
        let inputs = [hidden.clone(), weight.clone()].map(|input| input.autodiff().require_grad());
        let [on_tape, weight_on_tape] = inputs.clone();
        let found = choice_log_probs(on_tape, weight_on_tape, &choices);
        let mut tape = (found * Tensor::from_inner(gradient.clone())).sum().backward();
        let [by_hidden, by_weight] = inputs.map(|input| input.grad_remove(&mut tape).unwrap());
        let generic = generic::backward(hidden, weight, &choices, gradient, true);
        same(&by_hidden, &generic.0, 1e-5);
        same(&by_weight, &generic.1.unwrap(), 1e-5);
    }

    #[test]
    fn a_token_without_another_is_certain() {
        let choices = Choices::new([(0, &[5][..], Some(0)), (1, &[3][..], None)]);
        let found = choice_log_probs(random([2, 4], 1), random([6, 4], 2), &choices);
        assert_eq!(found.to_data().iter::<f32>().collect::<Vec<f32>>(), [0.0, 0.0]);
    }

    #[test]
    fn sixteen_bits_are_widened_row_by_row() {
        let (rows, hidden, weight) = (rows(9, 70), random([9, 20], 1), random([230, 20], 2));
        for dtype in [FloatDType::BF16, FloatDType::F16] {
            if dtype == FloatDType::F16 && crate::Precision::F16.check(&device()).is_err()
                || dtype == FloatDType::BF16 && crate::Precision::Bf16.check(&device()).is_err()
            {
                continue;
            }
            let rounded = weight.clone().cast(dtype);
            let found = choice_log_probs(hidden.clone(), rounded.clone(), &choices(&rows));
            let plain = plainly(hidden.clone(), rounded.cast(FloatDType::F32), &rows);
            same(&found.unsqueeze::<2>(), &plain.unsqueeze::<2>(), 1e-5);
        }
    }
}
