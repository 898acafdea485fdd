//! Attention over one segment of keys at a time.
//!
//! The attention over several segments is the mean of the attentions over each, weighted by their normalisers. So a
//! call takes what the segments before it came to and gives the same for all up to its own: the mixed values with, as a
//! last column, the logarithm of their normaliser. No table of weights is kept for the backward pass: they follow from
//! the scores and the normaliser (Dao et al., arXiv 2205.14135).

pub(super) mod generic;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "flex")]
mod kernel;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::key_lengths::KeyLengths;
use super::packing::Packing;
use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// What each weight is multiplied by after the softmax, `[tokens of all rows, heads, length of the segment]`: dropout
/// within the attention. What a query does not see counts for nothing. Absent, all weights stay.
pub type WeightFactors = Option<Arc<Vec<f32>>>;

/// Attention of tokens to themselves and those before them in their own row, or where rows are trees on their own path;
/// where a packing has a prefix, to that first.
///
/// Queries are `[places, heads, width]`, packed. Keys and values are `[rows, tokens, key heads, width]`,
/// padded on the right as `packing` says; a key head serves as many consecutive query heads as there are to one. Scores
/// are divided by `sqrt(width)`. The result is `[places, heads, width + 1]`: the mixed values and, last,
/// the logarithm of the normaliser.
///
/// # Panics
///
/// If the sizes do not fit together or one of them is 0.
pub fn attend_causally(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    packing: &Packing,
    factors: WeightFactors,
) -> Tensor<3> {
    check_sizes(&queries, &keys, &values, packing, &factors);
    let [key_rows, tokens, ..] = keys.dims();
    assert_eq!(
        (packing.lengths().len(), packing.tokens()),
        (key_rows, tokens),
        "queries and keys must have the same tokens"
    );
    Tensor::from_dispatch(Dispatch::attend_causally(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        packing.clone(),
        factors,
    ))
}

/// Attention to a further segment, joined to what came `before`, the result of such a call with the same queries.
///
/// Keys and values are `[segment rows, length, key heads, width]`, of which the first `lengths` of each row count. A
/// row of the segment serves `rows / segment rows` consecutive rows of the queries; nothing is repeated for them. Where
/// `lengths` has a prefix, it is a further row before those of the segment.
///
/// # Panics
///
/// If the sizes do not fit together, one of them is 0, a row has no key or more than `length`, or there is a prefix on a
/// CPU.
pub fn attend_also(
    before: Tensor<3>,
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    packing: &Packing,
    lengths: &KeyLengths,
    factors: WeightFactors,
) -> Tensor<3> {
    check_sizes(&queries, &keys, &values, packing, &factors);
    let ([places, heads, width], [segment_rows, length, ..]) = (queries.dims(), keys.dims());
    let (rows, serving) = (packing.lengths().len(), lengths.len());
    assert!(rows.is_multiple_of(serving), "{rows} rows are not a multiple of the segment's {serving}");
    assert_eq!(before.dims(), [places, heads, width + 1], "`before` must be the result of attention");
    assert_eq!(lengths.prefix().iter().len() + serving, segment_rows, "every row of the segment needs a length");
    let mut seen = lengths.prefix().into_iter().chain(lengths.iter().copied());
    assert!(seen.all(|seen| (1..=length).contains(&seen)), "every row needs 1 to {length} keys: {lengths:?}");
    Tensor::from_dispatch(Dispatch::attend_also(
        before.into_dispatch(),
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        packing.clone(),
        lengths.clone(),
        factors,
    ))
}

fn check_sizes(queries: &Tensor<3>, keys: &Tensor<4>, values: &Tensor<4>, packing: &Packing, factors: &WeightFactors) {
    let ([places, heads, width], [segment_rows, length, key_heads, key_width]) = (queries.dims(), keys.dims());
    let sizes = [places, heads, width, segment_rows, length, key_heads];
    assert!(!sizes.contains(&0), "sizes must not be 0: {sizes:?}");
    assert_eq!((keys.dims(), key_width), (values.dims(), width), "keys, values and queries must have the same width");
    assert_eq!(packing.places(), places, "every place must have a query");
    assert!(heads.is_multiple_of(key_heads), "{heads} heads are not a multiple of {key_heads} key heads");
    let weights = packing.lengths().iter().sum::<usize>() * heads * length;
    assert!(factors.as_ref().is_none_or(|factors| factors.len() == weights), "every weight needs a factor");
}

routed! {
    trait AttendCausallyOps: Run<Attend, 3> {
        fn attend_causally(
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
            factors: WeightFactors,
        ) -> FloatTensor<Self> {
            Self::run(Attend(Visible { packing, keys: None, factors }), [queries, keys, values])
        }
    }
}

routed! {
    trait AttendAlsoOps: Run<Attend, 4> {
        fn attend_also(
            before: FloatTensor<Self>,
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
            lengths: KeyLengths,
            factors: WeightFactors,
        ) -> FloatTensor<Self> {
            Self::run(Attend(Visible { packing, keys: Some(lengths), factors }), [before, queries, keys, values])
        }
    }
}

/// Which keys of a segment the queries see, and which of those count.
#[derive(Debug, Clone)]
struct Visible {
    /// The queries of each row.
    packing: Packing,
    /// How many of the keys in each row of the segment; absent where a query sees those up to its own place.
    keys: Option<KeyLengths>,
    factors: WeightFactors,
}

impl Visible {
    /// The tokens of each row of queries, where there is no prefix: a CPU has none.
    fn rows_without_prefix(&self) -> &[usize] {
        assert!(!self.has_prefix(), "on a CPU a prefix has a segment of its own");
        self.packing.lengths()
    }

    /// Whether queries see a first row of the segment beside their own.
    fn has_prefix(&self) -> bool {
        self.keys.as_ref().map_or(self.packing.has_prefix(), |keys| keys.prefix().is_some())
    }

    /// Which of the keys up to its own place a query does not see, `[tokens of all rows, length]`, where it does not see
    /// them all.
    #[cfg(any(feature = "flex", feature = "gpu"))]
    fn hidden(&self) -> Option<&[bool]> {
        self.packing.hidden().filter(|_| self.keys.is_none())
    }
}

/// Both operations on one backend: queries, keys and values, joined to what came `before` if there is any.
trait Attention: Backend {
    fn forward(
        before: Option<FloatTensor<Self>>,
        inputs: [FloatTensor<Self>; 3],
        visible: &Visible,
    ) -> FloatTensor<Self>;

    /// Those by keys and values only if they are wanted; `attended` is what [`Self::forward`] gave.
    fn backward(
        before: Option<FloatTensor<Self>>,
        inputs: [FloatTensor<Self>; 3],
        visible: &Visible,
        attended: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        for_segment: bool,
    ) -> Gradients<FloatTensor<Self>>;
}

/// By what came before, by queries, and by keys and values.
type Gradients<T> = (Option<T>, T, Option<[T; 2]>);

#[derive(Debug, Clone)]
struct Attend(Visible);

impl<const N: usize> Operation<N> for Attend {
    const WANTS_OUTPUT: bool = true;
}

impl<B: Attention> Compute<B, 3> for Attend {
    fn forward(&self, inputs: [FloatTensor<B>; 3]) -> FloatTensor<B> {
        B::forward(None, inputs, &self.0)
    }

    fn gradients(self, mut given: BackwardInputs<B, 3>) -> [Option<FloatTensor<B>>; 3] {
        let (inputs, [_, by_keys, by_values]) = (given.take_inputs(), given.wanted);
        let attended = given.output.unwrap_or_else(|| B::forward(None, inputs.clone(), &self.0));
        let (_, by_queries, by_segment) =
            B::backward(None, inputs, &self.0, attended, given.gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [Some(by_queries), by_keys, by_values]
    }
}

impl<B: Attention> Compute<B, 4> for Attend {
    fn forward(&self, [before, queries, keys, values]: [FloatTensor<B>; 4]) -> FloatTensor<B> {
        B::forward(Some(before), [queries, keys, values], &self.0)
    }

    fn gradients(self, mut given: BackwardInputs<B, 4>) -> [Option<FloatTensor<B>>; 4] {
        let ([before, queries, keys, values], [_, _, by_keys, by_values]) = (given.take_inputs(), given.wanted);
        let (before, inputs) = (Some(before), [queries, keys, values]);
        let attended = given.output.unwrap_or_else(|| B::forward(before.clone(), inputs.clone(), &self.0));
        let (by_before, by_queries, by_segment) =
            B::backward(before, inputs, &self.0, attended, given.gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [by_before, Some(by_queries), by_keys, by_values]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, numbers, on_gpu, random, sizes};
    use crate::ops::{RowGather, gather_rows};

    /// Attention over a shared segment, one of each row's own with padding, and causally over the tokens themselves.
    fn attend(
        [queries, keys, values, shared_keys, shared_values, row_keys, row_values]: [Tensor<4>; 7],
        packing: &Packing,
        lengths: &[usize],
        causally: impl Fn(Tensor<3>, [Tensor<4>; 2]) -> Tensor<3>,
        also: impl Fn([Tensor<3>; 2], [Tensor<4>; 2], &KeyLengths) -> Tensor<3>,
    ) -> Tensor<3> {
        let [count, tokens, heads, width] = queries.dims();
        let queries = packing.pack(queries.reshape([count * tokens, heads * width]));
        let queries = queries.reshape([packing.lengths().iter().sum(), heads, width]);
        let attended = causally(queries.clone(), [keys, values]);
        let all = [shared_keys.dims()[1]];
        let attended = also([attended, queries.clone()], [shared_keys, shared_values], &all[..].into());
        also([attended, queries], [row_keys, row_values], &lengths.into())
    }

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        // tokens of each row, heads, key heads, width, shared length, lengths of the rows of the padded segment
        let uneven = vec![70, 3, 0, 69, 1, 70, 25, 8, 70, 70, 2, 33];
        let cases = [
            (vec![1], [1, 1, 2, 1], vec![1]),
            (uneven, [2, 1, 16, 33], vec![9, 40, 35, 1]),
            // Beams of two prompts.
            (vec![1; 512], [4, 2, 8, 5], vec![33, 40]),
        ];
        let random_cases =
            sizes([4, 4, 8, 3, 2, 8, 40]).map(|[prompts, share, most, of_key, key_heads, width, shared]| {
                let rows = [numbers(prompts * share - 1, most + 1, 8), vec![most]].concat();
                let lengths = [numbers(prompts - 1, 12, 9), vec![12]].concat();
                (rows, [of_key * key_heads, key_heads, 2 * width, shared], lengths)
            });
        for (rows, [heads, key_heads, width, shared], lengths) in cases.into_iter().chain(random_cases) {
            let (rows, lengths) = (&rows[..], &lengths[..]);
            let places = rows.iter().sum::<usize>();
            // A third of the weights do not count.
            let dropped = |length: usize, seed| -> WeightFactors {
                let values: Vec<f32> = random([places * heads * length], seed).to_data().to_vec().unwrap();
                Some(Arc::new(values.into_iter().map(|x| if x < -1.0 / 3.0 { 0.0 } else { 1.5 }).collect()))
            };
            for (drops, trees) in [(false, false), (true, true)] {
                let factors = |length: usize, seed| if drops { dropped(length, seed) } else { None };
                let (longest, tokens) = (*lengths.iter().max().unwrap(), *rows.iter().max().unwrap());
                // Four tokens below one another, and again from the top.
                let depths = |&length: &usize| (0..length).map(|token| token % 4).collect();
                let packing = match trees {
                    true => Packing::of_trees(&rows.iter().map(depths).collect::<Vec<_>>(), tokens),
                    false => Packing::new(rows, tokens),
                };
                let inputs = [
                    random([rows.len(), tokens, heads, width], 1),
                    random([rows.len(), tokens, key_heads, width], 2),
                    random([rows.len(), tokens, key_heads, width], 3),
                    random([1, shared, key_heads, width], 4),
                    random([1, shared, key_heads, width], 5),
                    random([lengths.len(), longest, key_heads, width], 6),
                    random([lengths.len(), longest, key_heads, width], 7),
                ];
                check_gradients(
                    inputs.clone(),
                    |inputs| {
                        attend(
                            inputs,
                            &packing,
                            lengths,
                            |q, [k, v]| attend_causally(q, k, v, &packing, factors(tokens, 8)),
                            |[before, q], [k, v], lengths| {
                                let factors = factors(k.dims()[1], 9);
                                attend_also(before, q, k, v, &packing, lengths, factors)
                            },
                        )
                    },
                    |inputs| {
                        attend(
                            inputs,
                            &packing,
                            lengths,
                            |q, [k, v]| generic::attend_causally(q, k, v, &packing, factors(tokens, 8)),
                            |[before, q], [k, v], lengths| {
                                let factors = factors(k.dims()[1], 9);
                                generic::attend_also(before, q, k, v, &packing, lengths, factors)
                            },
                        )
                    },
                );
            }
        }
    }

    #[test]
    fn a_prefix_among_the_rows_equals_one_with_a_segment_of_its_own() {
        if !on_gpu() {
            return;
        }
        // The prefix' tokens and each row's, and for what follows the rows that share one of them.
        let cases: [(&[usize], [usize; 3], &[usize]); 3] = [
            (&[1, 1], [1, 1, 2], &[2]),
            (&[9, 3, 1, 4], [4, 2, 8], &[1, 2, 3, 3, 1, 2]),
            (&[5, 40, 33], [3, 3, 4], &[7, 1]),
        ];
        for (lengths, [heads, key_heads, width], following) in cases {
            let (prefix, rest) = (lengths[0], &lengths[1..]);
            let sum = |lengths: &[usize]| lengths.iter().sum::<usize>();
            let (tokens, next) = (*lengths.iter().max().unwrap(), *following.iter().max().unwrap());
            let after = Packing::new(following, next);
            // With places that have no token.
            let in_steps =
                [Packing::after_prefix(lengths, tokens), after.clone()].map(|packing| packing.in_steps_of(16));
            let fill = |q: Tensor<3>, packing: &Packing| {
                let (count, all) = (q.dims()[0], (0..q.dims()[0]).collect::<Vec<_>>());
                let filled = RowGather::filled(&all, count, packing.places() - count);
                gather_rows(q.reshape([count, heads * width]), &filled).reshape([packing.places(), heads, width])
            };
            let inputs = [
                random([sum(lengths), heads, width, 1], 1),
                random([lengths.len(), tokens, key_heads, width], 2),
                random([lengths.len(), tokens, key_heads, width], 3),
                random([sum(following), heads, width, 1], 4),
                random([following.len(), next, key_heads, width], 5),
                random([following.len(), next, key_heads, width], 6),
            ];
            check_gradients(
                inputs,
                |[q, k, v, next_q, next_k, next_v]| {
                    let [q, next_q] = [q, next_q].map(|q| q.squeeze_dim::<3>(3));
                    let [packing, after] = &in_steps;
                    let (q, next_q) = (fill(q, packing), fill(next_q, after));
                    let attended = attend_causally(q, k.clone(), v.clone(), packing, None);
                    let before = attend_causally(next_q.clone(), next_k, next_v, after, None);
                    let seen = KeyLengths::after_prefix(prefix, rest);
                    let of_next = attend_also(before, next_q, k, v, after, &seen, None);
                    Tensor::cat(vec![attended.narrow(0, 0, sum(lengths)), of_next.narrow(0, 0, sum(following))], 0)
                },
                |[q, k, v, next_q, next_k, next_v]| {
                    let [q, next_q] = [q, next_q].map(|q| q.squeeze_dim::<3>(3));
                    let (first, others) = (Packing::new(&lengths[..1], prefix), Packing::new(rest, tokens));
                    let [first_q, q] = [q.clone().narrow(0, 0, prefix), q.narrow(0, prefix, sum(rest))];
                    let [first_k, first_v] = [&k, &v].map(|x| x.clone().narrow(0, 0, 1).narrow(1, 0, prefix));
                    let [k, v] = [k, v].map(|x| x.narrow(0, 1, rest.len()));
                    let (alone, all): (_, KeyLengths) = (None, lengths[..1].into());
                    let of_first = attend_causally(first_q, first_k.clone(), first_v.clone(), &first, None);
                    let own = attend_causally(q.clone(), k.clone(), v.clone(), &others, None);
                    let of_rest = attend_also(own, q, first_k.clone(), first_v.clone(), &others, &all, None);
                    let own = attend_causally(next_q.clone(), next_k, next_v, &after, alone);
                    let with_first = attend_also(own, next_q.clone(), first_k, first_v, &after, &all, None);
                    let of_next = attend_also(with_first, next_q, k, v, &after, &rest.into(), None);
                    Tensor::cat(vec![of_first, of_rest, of_next], 0)
                },
            );
        }
    }
}
