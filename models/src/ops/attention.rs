//! Attention over one segment of keys at a time.
//!
//! The attention over several segments is the mean of the attentions over each, weighted by their normalisers. So a call
//! takes what the segments before it came to and gives the same for all up to its own: the mixed values with, as a last
//! column, the logarithm of their normaliser, `[rows, tokens, heads, width + 1]`. No table of weights is kept for the
//! backward pass: they follow from the scores and the normaliser (Dao et al., arXiv 2205.14135).
//!
//! Queries are `[rows, tokens, heads, width]`, keys and values `[segment rows, length, key heads, width]`. A row of the
//! segment serves `rows / segment rows` consecutive rows of the queries, a key head as many consecutive query heads;
//! nothing is repeated for them. Scores are divided by `sqrt(width)`.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::route::FusedOps;

/// Attention of tokens to themselves and those before them in their own row.
pub fn attend_causally(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::attend_causally(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
    ))
}

/// Attention to a further segment, of whose rows the first `lengths` keys count, joined to what came `before`.
pub fn attend_also(
    before: Tensor<4>,
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    lengths: &[usize],
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::attend_also(
        before.into_dispatch(),
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        lengths.to_vec(),
    ))
}

/// The mixed values without their normalisers, `[rows * tokens, heads * width]`.
pub fn mixed_values(attended: Tensor<4>) -> Tensor<2> {
    let [rows, tokens, heads, wide] = attended.dims();
    attended.narrow(3, 0, wide - 1).reshape([rows * tokens, heads * (wide - 1)])
}

/// Which keys of a segment a query sees.
#[derive(Debug, Clone)]
pub(super) enum Visible {
    /// Those up to its own place.
    Causal,
    /// The first so many of the segment's row.
    First(Vec<usize>),
}

pub(super) mod generic {
    use burn::tensor::{Bool, Int, TensorData};

    use super::{Tensor, Visible};

    /// See [`super::attend_causally`].
    pub fn attend_causally(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
        forward(None, [queries, keys, values], &Visible::Causal)
    }

    /// See [`super::attend_also`].
    pub fn attend_also(
        before: Tensor<4>,
        queries: Tensor<4>,
        keys: Tensor<4>,
        values: Tensor<4>,
        lengths: &[usize],
    ) -> Tensor<4> {
        forward(Some(before), [queries, keys, values], &Visible::First(lengths.to_vec()))
    }

    pub fn forward(before: Option<Tensor<4>>, [queries, keys, values]: [Tensor<4>; 3], visible: &Visible) -> Tensor<4> {
        let [rows, tokens, heads, width] = queries.dims();
        let scores = scores(queries, keys, visible);
        let top = scores.clone().max_dim(3);
        let weights = (scores - top.clone()).exp();
        let sum = weights.clone().sum_dim(3);
        let folded = fold(weights / sum.clone(), &values).matmul(values.swap_dims(1, 2));
        let mixed = unfold(folded, [rows, heads, tokens]).swap_dims(1, 2);
        let normalizer = (sum.log() + top).swap_dims(1, 2);
        let Some(before) = before else {
            return Tensor::cat(vec![mixed, normalizer], 3);
        };
        let (mixed_before, normalizer_before) = split(before, width);
        let top = normalizer.clone().max_pair(normalizer_before.clone());
        let exponentials = (normalizer.clone() - top.clone()).exp() + (normalizer_before.clone() - top.clone()).exp();
        let total = exponentials.log() + top;
        let mixed =
            mixed * (normalizer - total.clone()).exp() + mixed_before * (normalizer_before - total.clone()).exp();
        Tensor::cat(vec![mixed, total], 3)
    }

    /// Gradients by what came before, queries, keys and values; `attended` is what [`forward`] gave.
    pub fn backward(
        before: Option<Tensor<4>>,
        [queries, keys, values]: [Tensor<4>; 3],
        visible: &Visible,
        attended: Tensor<4>,
        gradient: Tensor<4>,
    ) -> (Option<Tensor<4>>, [Tensor<4>; 3]) {
        let [rows, tokens, heads, width] = queries.dims();
        let places = [rows, heads, tokens];
        let (mixed, normalizer) = split(attended, width);
        let (by_mixed, by_normalizer) = split(gradient, width);
        // What the normaliser's gradient is worth to every score that it sums.
        let offset = by_normalizer - (by_mixed.clone() * mixed).sum_dim(3);
        let by_before = before.map(|before| {
            let (mixed, normalizer_before) = split(before, width);
            let share = (normalizer_before - normalizer.clone()).exp();
            let by_normalizer = ((by_mixed.clone() * mixed).sum_dim(3) + offset.clone()) * share.clone();
            Tensor::cat(vec![by_mixed.clone() * share, by_normalizer], 3)
        });
        let by_heads = |x: Tensor<4>| x.swap_dims(1, 2);
        let weights = (scores(queries.clone(), keys.clone(), visible) - by_heads(normalizer)).exp();
        let folded = fold(by_heads(by_mixed), &values);
        let by_weights = unfold(folded.clone().matmul(values.clone().permute([0, 2, 3, 1])), places);
        let scale = (width as f64).powf(-0.5);
        let by_scores = weights.clone() * (by_weights + by_heads(offset)).mul_scalar(scale);
        let by_values = fold(weights, &values).swap_dims(2, 3).matmul(folded);
        let by_keys = fold(by_scores.clone(), &keys).swap_dims(2, 3).matmul(fold(by_heads(queries), &keys));
        let by_queries = unfold(fold(by_scores, &keys).matmul(by_heads(keys.clone())), places);
        (by_before, [by_queries, by_keys, by_values].map(by_heads))
    }

    /// `[rows, heads, tokens, length]`, minus infinity where a query does not see a key.
    fn scores(queries: Tensor<4>, keys: Tensor<4>, visible: &Visible) -> Tensor<4> {
        let [rows, tokens, heads, width] = queries.dims();
        let [segment_rows, length, _, _] = keys.dims();
        let folded = fold(queries.swap_dims(1, 2), &keys);
        let scores = unfold(folded.matmul(keys.permute([0, 2, 3, 1])), [rows, heads, tokens])
            .mul_scalar((width as f64).powf(-0.5));
        let device = scores.device().inner();
        match visible {
            Visible::Causal => {
                let hidden = Tensor::<2, Bool>::tril_mask([tokens, length], 0, &device);
                scores.mask_fill(hidden.unsqueeze(), f32::NEG_INFINITY)
            }
            Visible::First(lengths) if lengths.iter().all(|&visible| visible == length) => scores,
            Visible::First(lengths) => {
                let share = rows / segment_rows;
                let ends: Vec<i32> = (0..rows).map(|row| lengths[row / share] as i32).collect();
                let ends = Tensor::<4, Int>::from_data(TensorData::new(ends, [rows, 1, 1, 1]), &device);
                let places = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<4>();
                let hidden = places.expand([rows, 1, 1, length]).greater_equal(ends.expand([rows, 1, 1, length]));
                scores.mask_fill(hidden, f32::NEG_INFINITY)
            }
        }
    }

    /// The mixed values and the normalisers of an attention.
    fn split(attended: Tensor<4>, width: usize) -> (Tensor<4>, Tensor<4>) {
        (attended.clone().narrow(3, 0, width), attended.narrow(3, width, 1))
    }

    /// `[rows, heads, tokens, n]` to `[segment rows, key heads, all that share them, n]`.
    fn fold(x: Tensor<4>, segment: &Tensor<4>) -> Tensor<4> {
        let [rows, heads, tokens, n] = x.dims();
        let [segment_rows, _, key_heads, _] = segment.dims();
        let (share, group) = (rows / segment_rows, heads / key_heads);
        x.reshape([segment_rows, share, key_heads, group * tokens * n]).swap_dims(1, 2).reshape([
            segment_rows,
            key_heads,
            share * group * tokens,
            n,
        ])
    }

    /// The inverse of [`fold`].
    fn unfold(x: Tensor<4>, [rows, heads, tokens]: [usize; 3]) -> Tensor<4> {
        let [segment_rows, key_heads, folded, n] = x.dims();
        let share = rows / segment_rows;
        x.reshape([segment_rows, key_heads, share, folded / share * n])
            .swap_dims(1, 2)
            .reshape([rows, heads, tokens, n])
    }
}

#[cfg(feature = "flex")]
pub(super) mod kernel {
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::simd::{dot, exp, exp_in_place, largest, vectorized};
    use super::super::values::{Matrix, dims, in_order, multiply, tensor, values};
    use super::Visible;

    /// Most query rows of one head whose scores a task holds at once, where several rows share a segment.
    const MOST_ROWS: usize = 256;

    /// The sizes of a call and how its rows are dealt out to tasks.
    #[derive(Clone, Copy)]
    struct Sizes {
        rows: usize,
        tokens: usize,
        heads: usize,
        width: usize,
        length: usize,
        key_heads: usize,
        /// Rows that share a row of the segment.
        share: usize,
        /// Rows of a task; they divide `share`.
        task: usize,
    }

    impl Sizes {
        fn of(queries: &FlexTensor, keys: &FlexTensor) -> Self {
            let [rows, tokens, heads, width] = dims(queries);
            let [segment_rows, length, key_heads, _] = dims(keys);
            let share = rows / segment_rows;
            let fits = |task: &usize| share.is_multiple_of(*task) && task * tokens <= MOST_ROWS;
            let task = (1..=share).rev().find(fits).unwrap_or(1);
            Self { rows, tokens, heads, width, length, key_heads, share, task }
        }

        /// Query rows of a head in a task.
        fn places(&self) -> usize {
            self.task * self.tokens
        }

        /// Elements of a task's queries.
        fn queries(&self) -> usize {
            self.places() * self.heads * self.width
        }

        /// Elements of a task's result.
        fn attended(&self) -> usize {
            self.places() * self.heads * (self.width + 1)
        }

        /// Where in its token's values a head begins.
        fn head(&self, head: usize) -> usize {
            head * self.width
        }

        /// Keys that the query at a place of a task sees.
        fn end(&self, visible: &Visible, segment_row: usize, place: usize) -> usize {
            match visible {
                Visible::Causal => place % self.tokens + 1,
                Visible::First(lengths) => lengths[segment_row],
            }
        }

        /// Elements of a row of the segment.
        fn segment(&self) -> usize {
            self.length * self.key_heads * self.width
        }

        /// Keys or values of the key head that serves a query head, `[length, width]`.
        fn of_head<'a>(&self, segment: &'a [f32], head: usize) -> Matrix<'a> {
            let key_head = head / (self.heads / self.key_heads);
            Matrix::rows(&segment[self.head(key_head)..], [self.length, self.width], self.key_heads * self.width)
        }

        /// A query head's part of values that lie `wide` to a head, `[places, width]`.
        fn at_head<'a>(&self, x: &'a [f32], head: usize, wide: usize) -> Matrix<'a> {
            Matrix::rows(&x[head * wide..], [self.places(), self.width], self.heads * wide)
        }
    }

    pub fn forward(before: Option<FlexTensor>, inputs: [FlexTensor; 3], visible: &Visible) -> FlexTensor {
        let [queries, keys, values_] = inputs.map(in_order);
        let sizes = Sizes::of(&queries, &keys);
        let before = before.map(in_order);
        let [rows, tokens, heads, wide] = [sizes.rows, sizes.tokens, sizes.heads, sizes.width + 1];
        let mut out = match &before {
            Some(before) => values(before).to_vec(),
            None => vec![0.0; rows * tokens * heads * wide],
        };
        let tasks = out.par_chunks_mut(sizes.attended()).zip(values(&queries).par_chunks(sizes.queries()));
        tasks.enumerate().for_each(|(task, (out, queries))| {
            let segment_row = task * sizes.task / sizes.share;
            let at = segment_row * sizes.segment();
            let keys = &values(&keys)[at..at + sizes.segment()];
            let values = &values(&values_)[at..at + sizes.segment()];
            let mut scores = vec![0.0; sizes.places() * sizes.length];
            for head in 0..heads {
                score(&sizes, queries, keys, head, &mut scores);
                vectorized(
                    #[inline(always)]
                    || {
                        for (place, scores) in scores.chunks_exact_mut(sizes.length).enumerate() {
                            let (seen, unseen) = scores.split_at_mut(sizes.end(visible, segment_row, place));
                            let start = (place * heads + head) * wide;
                            let joined = &mut out[start..start + wide];
                            join(seen, joined, before.is_some());
                            unseen.fill(0.0);
                        }
                    },
                );
                let weights = Matrix::rows(&scores, [sizes.places(), sizes.length], sizes.length);
                let values = sizes.of_head(values, head);
                multiply(&mut out[head * wide..], heads * wide, 1.0, 1.0, [weights, values], false);
            }
        });
        tensor(out, [rows, tokens, heads, wide])
    }

    /// The scores of one head, `[places, length]`.
    fn score(sizes: &Sizes, queries: &[f32], keys: &[f32], head: usize, scores: &mut [f32]) {
        let scale = (sizes.width as f32).sqrt().recip();
        let factors = [sizes.at_head(queries, head, sizes.width), sizes.of_head(keys, head).transposed()];
        multiply(scores, sizes.length, 0.0, scale, factors, false);
    }

    /// Turns scores into weights and scales what was mixed before, so that both only need adding; the last element of
    /// `joined` becomes the normaliser of all.
    #[inline(always)]
    fn join(scores: &mut [f32], joined: &mut [f32], has_before: bool) {
        let (normalizer, mixed) = joined.split_last_mut().expect("there is a last column");
        let before = if has_before { *normalizer } else { f32::NEG_INFINITY };
        let top = largest(scores).max(before);
        let share = exp(before - top);
        let total = exp_in_place(scores, top) + share;
        let inverse = total.recip();
        scores.iter_mut().for_each(|weight| *weight *= inverse);
        mixed.iter_mut().for_each(|mixed| *mixed *= share * inverse);
        *normalizer = top + total.ln();
    }

    /// Gradients as of the generic body; those by keys and values only if they are wanted.
    pub fn backward(
        before: Option<FlexTensor>,
        inputs: [FlexTensor; 3],
        visible: &Visible,
        attended: FlexTensor,
        gradient: FlexTensor,
        for_segment: bool,
    ) -> (Option<FlexTensor>, FlexTensor, Option<[FlexTensor; 2]>) {
        let [queries, keys, values_] = inputs.map(in_order);
        let [attended, gradient] = [attended, gradient].map(in_order);
        let before = before.map(in_order);
        let sizes = Sizes::of(&queries, &keys);
        let [rows, tokens, heads, width] = [sizes.rows, sizes.tokens, sizes.heads, sizes.width];
        let mut by_queries = vec![0.0; rows * tokens * heads * width];
        let mut by_before = vec![0.0; if before.is_some() { rows * tokens * heads * (width + 1) } else { 0 }];

        let task = |task: usize, by_queries: &mut [f32], by_before: Option<&mut [f32]>| {
            let segment_row = task * sizes.task / sizes.share;
            let at = segment_row * sizes.segment();
            Backward {
                sizes,
                visible,
                segment_row,
                queries: &values(&queries)[task * sizes.queries()..][..sizes.queries()],
                keys: &values(&keys)[at..at + sizes.segment()],
                values: &values(&values_)[at..at + sizes.segment()],
                attended: &values(&attended)[task * sizes.attended()..][..sizes.attended()],
                gradient: &values(&gradient)[task * sizes.attended()..][..sizes.attended()],
                before: before.as_ref().map(|before| &values(before)[task * sizes.attended()..][..sizes.attended()]),
            }
            .run(by_queries, by_before, for_segment)
        };
        let by_query_tasks = by_queries.par_chunks_mut(sizes.queries()).enumerate();
        let by_segment: Vec<Option<[Vec<f32>; 2]>> = if before.is_some() {
            let by_before = by_before.par_chunks_mut(sizes.attended());
            by_query_tasks.zip(by_before).map(|((i, by_queries), by)| task(i, by_queries, Some(by))).collect()
        } else {
            by_query_tasks.map(|(i, by_queries)| task(i, by_queries, None)).collect()
        };

        let by_segment = for_segment.then(|| {
            let segment_size: [usize; 4] = dims(&keys);
            let mut sums = [(); 2].map(|()| vec![0.0; segment_size.iter().product()]);
            let tasks_of_a_row = sizes.share / sizes.task;
            for (task, parts) in by_segment.into_iter().flatten().enumerate() {
                let at = task / tasks_of_a_row * sizes.segment();
                for (sum, part) in sums.iter_mut().zip(parts) {
                    sum[at..].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                }
            }
            sums.map(|sum| tensor(sum, segment_size))
        });
        let by_before = before.map(|_| tensor(by_before, [rows, tokens, heads, width + 1]));
        (by_before, tensor(by_queries, [rows, tokens, heads, width]), by_segment)
    }

    /// The backward pass of one task.
    struct Backward<'a> {
        sizes: Sizes,
        visible: &'a Visible,
        segment_row: usize,
        queries: &'a [f32],
        keys: &'a [f32],
        values: &'a [f32],
        attended: &'a [f32],
        gradient: &'a [f32],
        before: Option<&'a [f32]>,
    }

    impl Backward<'_> {
        fn run(
            &self,
            by_queries: &mut [f32],
            mut by_before: Option<&mut [f32]>,
            for_segment: bool,
        ) -> Option<[Vec<f32>; 2]> {
            let sizes = self.sizes;
            let (places, length, wide) = (sizes.places(), sizes.length, sizes.width + 1);
            let mut by_segment = for_segment.then(|| [(); 2].map(|()| vec![0.0; sizes.segment()]));
            let (mut weights, mut by_scores) = (vec![0.0; places * length], vec![0.0; places * length]);
            for head in 0..sizes.heads {
                score(&sizes, self.queries, self.keys, head, &mut weights);
                let by_mixed = sizes.at_head(self.gradient, head, wide);
                let factors = [by_mixed, sizes.of_head(self.values, head).transposed()];
                multiply(&mut by_scores, length, 0.0, 1.0, factors, false);
                vectorized(
                    #[inline(always)]
                    || self.weigh(head, &mut weights, &mut by_scores, by_before.as_deref_mut()),
                );
                let by_scores = Matrix::rows(&by_scores, [places, length], length);
                let keys = sizes.of_head(self.keys, head);
                let row = sizes.heads * sizes.width;
                multiply(&mut by_queries[sizes.head(head)..], row, 0.0, 1.0, [by_scores, keys], false);
                if let Some([by_keys, by_values]) = &mut by_segment {
                    let start = sizes.head(head / (sizes.heads / sizes.key_heads));
                    let row = sizes.key_heads * sizes.width;
                    let queries = sizes.at_head(self.queries, head, sizes.width);
                    multiply(&mut by_keys[start..], row, 1.0, 1.0, [by_scores.transposed(), queries], false);
                    let weights = Matrix::rows(&weights, [places, length], length).transposed();
                    multiply(&mut by_values[start..], row, 1.0, 1.0, [weights, by_mixed], false);
                }
            }
            by_segment
        }

        /// Turns one head's scores into weights, the weights' gradients into the scores', and gives what came before its
        /// gradient.
        #[inline(always)]
        fn weigh(&self, head: usize, weights: &mut [f32], by_scores: &mut [f32], mut by_before: Option<&mut [f32]>) {
            let Self { sizes, visible, segment_row, attended, gradient, before, .. } = self;
            let (length, wide) = (sizes.length, sizes.width + 1);
            let scale = (sizes.width as f32).sqrt().recip();
            let rows = weights.chunks_exact_mut(length).zip(by_scores.chunks_exact_mut(length));
            for (place, (weights, by_scores)) in rows.enumerate() {
                let start = (place * sizes.heads + head) * wide;
                let (mixed, normalizer) = attended[start..start + wide].split_at(sizes.width);
                let (by_mixed, by_normalizer) = gradient[start..start + wide].split_at(sizes.width);
                let offset = by_normalizer[0] - dot(by_mixed, mixed);
                let end = sizes.end(visible, *segment_row, place);
                weights[end..].fill(0.0);
                by_scores[end..].fill(0.0);
                exp_in_place(&mut weights[..end], normalizer[0]);
                for (by_score, weight) in by_scores[..end].iter_mut().zip(&weights[..end]) {
                    *by_score = weight * (*by_score + offset) * scale;
                }
                if let (Some(before), Some(by_before)) = (before, by_before.as_deref_mut()) {
                    let (mixed, normalizer_before) = before[start..start + wide].split_at(sizes.width);
                    let (by, by_normalizer) = by_before[start..start + wide].split_at_mut(sizes.width);
                    let share = exp(normalizer_before[0] - normalizer[0]);
                    by.iter_mut().zip(by_mixed).for_each(|(by, gradient)| *by = gradient * share);
                    by_normalizer[0] = (dot(by_mixed, mixed) + offset) * share;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random};

    /// Attention over a shared segment, one of each row's own with padding, and causally over the tokens themselves.
    fn attend(
        [queries, keys, values, shared_keys, shared_values, row_keys, row_values]: [Tensor<4>; 7],
        lengths: &[usize],
        causally: impl Fn([Tensor<4>; 3]) -> Tensor<4>,
        also: impl Fn(Tensor<4>, [Tensor<4>; 3], &[usize]) -> Tensor<4>,
    ) -> Tensor<4> {
        let attended = causally([queries.clone(), keys, values]);
        let attended = also(attended, [queries.clone(), shared_keys.clone(), shared_values], &[shared_keys.dims()[1]]);
        also(attended, [queries, row_keys, row_values], lengths)
    }

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        // rows, tokens, heads, key heads, width, shared length, rows of the padded segment and its lengths
        let cases: [([usize; 6], &[usize]); 4] = [
            ([1, 1, 1, 1, 2, 1], &[1]),
            ([4, 3, 4, 2, 8, 5], &[2, 4]),
            ([6, 2, 3, 3, 4, 40], &[1, 7, 3, 2, 7, 4]),
            ([12, 70, 2, 1, 16, 33], &[9, 40, 35, 1]),
        ];
        for ([rows, tokens, heads, key_heads, width, shared], lengths) in cases {
            let longest = *lengths.iter().max().unwrap();
            let inputs = [
                random([rows, tokens, heads, width], 1),
                random([rows, tokens, key_heads, width], 2),
                random([rows, tokens, key_heads, width], 3),
                random([1, shared, key_heads, width], 4),
                random([1, shared, key_heads, width], 5),
                random([lengths.len(), longest, key_heads, width], 6),
                random([lengths.len(), longest, key_heads, width], 7),
            ];
            check_gradients(
                inputs,
                |inputs| {
                    attend(
                        inputs,
                        lengths,
                        |[q, k, v]| attend_causally(q, k, v),
                        |before, [q, k, v], lengths| attend_also(before, q, k, v, lengths),
                    )
                },
                |inputs| {
                    attend(
                        inputs,
                        lengths,
                        |[q, k, v]| generic::attend_causally(q, k, v),
                        |before, [q, k, v], lengths| generic::attend_also(before, q, k, v, lengths),
                    )
                },
            );
        }
    }
}
