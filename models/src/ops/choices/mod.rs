//! Log-probabilities of tokens among those that they compete with.

pub(super) mod generic;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "flex")]
mod kernel;

use std::collections::HashMap;
use std::sync::Arc;

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::table::Sendable;
use super::tape::{Operation, Run};

/// At which choice each row of hidden states stands, and which of its log-probabilities are wanted.
///
/// A choice is a list of tokens that compete with each other, such as the children of a node of the prefix tree. Rows
/// at one choice share the product of their hidden states with its tokens' rows of the output matrix.
#[derive(Debug, Clone)]
pub struct Choices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    groups: Vec<Group>,
    rows: usize,
    outputs: usize,
    /// See [`Self::of_kernels`]; made when they are first asked for.
    #[cfg(feature = "gpu")]
    of_kernels: std::sync::OnceLock<gpu::Tables>,
}

#[cfg(feature = "gpu")]
impl Inner {
    /// The choices as kernels on a GPU see them.
    fn of_kernels(&self) -> &gpu::Tables {
        self.of_kernels.get_or_init(|| gpu::Tables::new(self))
    }
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
    /// The choice at which each row stands, first row to last: a key that only this choice has, its tokens, and the
    /// place among them of the token that is wanted, or none for all tokens.
    ///
    /// # Panics
    ///
    /// If there is no row, a choice has no token, or a wanted place is beyond them.
    pub fn new<'a>(rows: impl IntoIterator<Item = (u32, &'a [u32], Option<usize>)>) -> Self {
        let mut inner = Inner {
            groups: Vec::new(),
            rows: 0,
            outputs: 0,
            #[cfg(feature = "gpu")]
            of_kernels: std::sync::OnceLock::new(),
        };
        let mut of_key = HashMap::new();
        for (key, tokens, wanted) in rows {
            assert!(
                !tokens.is_empty() && wanted.is_none_or(|place| place < tokens.len()),
                "place {wanted:?} is not in the choice {tokens:?}"
            );
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
        assert!(inner.rows > 0, "there must be at least one row");
        Self(Arc::new(inner))
    }

    /// What kernels on a GPU look up.
    pub fn table(&self) -> Option<&dyn Sendable> {
        #[cfg(feature = "gpu")]
        return Some(&self.0.of_kernels().numbers);
        #[cfg(not(feature = "gpu"))]
        None
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
    assert_eq!((rows, width), (choices.0.rows, depth), "every row needs a choice and must be as wide as the matrix");
    Tensor::from_dispatch(Dispatch::choice_log_probs(hidden.into_dispatch(), weight.into_dispatch(), choices.clone()))
}

routed! {
    trait ChoiceLogProbsOps: Run<ChoiceLogProbs, 2> {
        fn choice_log_probs(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            choices: Choices,
        ) -> FloatTensor<Self> {
            Self::run(ChoiceLogProbs(choices), [hidden, weight])
        }
    }
}

#[derive(Debug, Clone)]
struct ChoiceLogProbs(Choices);

impl Operation<2> for ChoiceLogProbs {
    const RECOMPUTABLE: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, device, random, same, sizes};
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{FloatDType, Int, TensorData};

    /// Rows at choices of 1, 2, 7 and `wide` tokens, some of them at one choice; every third row wants all of its
    /// tokens.
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
        for [count, wide, width] in sizes([60, 300, 60]).chain([[40, 300, 256], [512, 40, 16]]) {
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
        let generic = generic::backward([hidden, weight], &choices, gradient, true);
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
