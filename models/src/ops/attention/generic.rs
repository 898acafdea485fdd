//! The attention from Burn's own operations.

use burn::backend::tensor::FloatTensor;

use super::{Attention, Gradients, KeyLengths, Packing, Tensor, Visible, WeightFactors};
use crate::host;
use crate::ops::route::Plain;

impl<B: Plain> Attention for B {
    fn forward(before: Option<FloatTensor<B>>, inputs: [FloatTensor<B>; 3], visible: &Visible) -> FloatTensor<B> {
        let [queries, keys, values] = inputs;
        let segment = [keys, values].map(B::float);
        B::primitive(forward(before.map(B::float), (B::float(queries), segment), visible))
    }

    fn backward(
        before: Option<FloatTensor<B>>,
        [queries, keys, values]: [FloatTensor<B>; 3],
        visible: &Visible,
        attended: FloatTensor<B>,
        gradient: FloatTensor<B>,
        for_segment: bool,
    ) -> Gradients<FloatTensor<B>> {
        let inputs = (B::float(queries), [keys, values].map(B::float));
        let (by_before, by_queries, by_segment) =
            backward(before.map(B::float), inputs, visible, B::float(attended), B::float(gradient), for_segment);
        (by_before.map(B::primitive), B::primitive(by_queries), by_segment.map(|by| by.map(B::primitive)))
    }
}

/// See [`super::attend_causally`].
pub fn attend_causally(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    packing: &Packing,
    factors: WeightFactors,
) -> Tensor<3> {
    forward(None, (queries, [keys, values]), &Visible { packing: packing.clone(), keys: None, factors })
}

/// See [`super::attend_also`].
pub fn attend_also(
    before: Tensor<3>,
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    packing: &Packing,
    lengths: &KeyLengths,
    factors: WeightFactors,
) -> Tensor<3> {
    let visible = Visible { packing: packing.clone(), keys: Some(lengths.clone()), factors };
    forward(Some(before), (queries, [keys, values]), &visible)
}

/// `[tokens of all rows, heads, n]` to `[rows, tokens, heads, n]`: what works on all rows at once works on padded ones.
fn pad(x: Tensor<3>, packing: &Packing) -> Tensor<4> {
    let [places, heads, n] = x.dims();
    let rows = packing.lengths().len();
    packing.unpack(x.reshape([places, heads * n])).reshape([rows, packing.tokens(), heads, n])
}

/// The inverse of [`pad`].
fn strip(x: Tensor<4>, packing: &Packing) -> Tensor<3> {
    let [rows, tokens, heads, n] = x.dims();
    let packed = packing.pack(x.reshape([rows * tokens, heads * n]));
    let [places, _] = packed.dims();
    packed.reshape([places, heads, n])
}

fn forward(
    before: Option<Tensor<3>>,
    (queries, [keys, values]): (Tensor<3>, [Tensor<4>; 2]),
    visible: &Visible,
) -> Tensor<3> {
    let packing = &visible.packing;
    let (tokens, rows) = (packing.tokens(), visible.rows_without_prefix().len());
    let queries = pad(queries, packing);
    let [_, _, heads, width] = queries.dims();
    let factors = factors(&queries, &keys, visible);
    let scores = scores(queries, keys, visible);
    let top = scores.clone().max_dim(3);
    let weights = (scores - top.clone()).exp();
    let sum = weights.clone().sum_dim(3);
    let folded = fold(weigh(weights / sum.clone(), &factors), &values).matmul(values.swap_dims(1, 2));
    let mixed = unfold(folded, [rows, heads, tokens]).swap_dims(1, 2);
    let normalizer = (sum.log() + top).swap_dims(1, 2);
    let Some(before) = before else {
        return strip(Tensor::cat(vec![mixed, normalizer], 3), packing);
    };
    let (mixed_before, normalizer_before) = split(pad(before, packing), width);
    let top = normalizer.clone().max_pair(normalizer_before.clone());
    let exponentials = (normalizer.clone() - top.clone()).exp() + (normalizer_before.clone() - top.clone()).exp();
    let total = exponentials.log() + top;
    let mixed = mixed * (normalizer - total.clone()).exp() + mixed_before * (normalizer_before - total.clone()).exp();
    strip(Tensor::cat(vec![mixed, total], 3), packing)
}

fn backward(
    before: Option<Tensor<3>>,
    (queries, [keys, values]): (Tensor<3>, [Tensor<4>; 2]),
    visible: &Visible,
    attended: Tensor<3>,
    gradient: Tensor<3>,
    for_segment: bool,
) -> (Option<Tensor<3>>, Tensor<3>, Option<[Tensor<4>; 2]>) {
    let packing = &visible.packing;
    let [queries, attended, gradient] = [queries, attended, gradient].map(|x| pad(x, packing));
    let [rows, tokens, heads, width] = queries.dims();
    let places = [rows, heads, tokens];
    let (mixed, normalizer) = split(attended, width);
    let (by_mixed, by_normalizer) = split(gradient, width);
    // What the normaliser's gradient is worth to every score that it sums.
    let offset = by_normalizer - (by_mixed.clone() * mixed).sum_dim(3);
    let by_before = before.map(|before| {
        let (mixed, normalizer_before) = split(pad(before, packing), width);
        let share = (normalizer_before - normalizer.clone()).exp();
        let by_normalizer = ((by_mixed.clone() * mixed).sum_dim(3) + offset.clone()) * share.clone();
        strip(Tensor::cat(vec![by_mixed.clone() * share, by_normalizer], 3), packing)
    });
    let by_heads = |x: Tensor<4>| x.swap_dims(1, 2);
    let weights = (scores(queries.clone(), keys.clone(), visible) - by_heads(normalizer)).exp();
    let folded = fold(by_heads(by_mixed), &values);
    let by_weights = unfold(folded.clone().matmul(values.clone().permute([0, 2, 3, 1])), places);
    let scale = (width as f64).powf(-0.5);
    let factors = factors(&queries, &keys, visible);
    let by_scores = weights.clone() * (weigh(by_weights, &factors) + by_heads(offset)).mul_scalar(scale);
    let by_segment = for_segment.then(|| {
        let by_values = fold(weigh(weights, &factors), &values).swap_dims(2, 3).matmul(folded);
        let by_keys = fold(by_scores.clone(), &keys).swap_dims(2, 3).matmul(fold(by_heads(queries), &keys));
        [by_keys, by_values].map(by_heads)
    });
    let by_queries = unfold(fold(by_scores, &keys).matmul(by_heads(keys.clone())), places);
    (by_before, strip(by_heads(by_queries), packing), by_segment)
}

/// What the weights are multiplied by, `[rows, heads, tokens, length]`.
fn factors(queries: &Tensor<4>, keys: &Tensor<4>, visible: &Visible) -> Option<Tensor<4>> {
    let ([_, _, heads, _], [_, length, _, _]) = (queries.dims(), keys.dims());
    let factors = visible.factors.as_ref()?;
    let places = factors.len() / (heads * length);
    let factors = host::floats(factors.to_vec(), [places, heads, length], &queries.device());
    Some(pad(factors, &visible.packing).swap_dims(1, 2))
}

fn weigh(weights: Tensor<4>, factors: &Option<Tensor<4>>) -> Tensor<4> {
    match factors {
        Some(factors) => weights * factors.clone(),
        None => weights,
    }
}

/// `[rows, heads, tokens, length]`, minus infinity where a query does not see a key.
fn scores(queries: Tensor<4>, keys: Tensor<4>, visible: &Visible) -> Tensor<4> {
    let [rows, tokens, heads, width] = queries.dims();
    let [segment_rows, length, _, _] = keys.dims();
    let folded = fold(queries.swap_dims(1, 2), &keys).matmul(keys.permute([0, 2, 3, 1]));
    let folded = folded.mul_scalar((width as f64).powf(-0.5));
    let (device, places) = (folded.device().inner(), [rows, heads, tokens]);
    let Some(lengths) = &visible.keys else {
        let mask = visible.packing.causal_mask(&device).unsqueeze_dim(1);
        return unfold(folded, places) + mask;
    };
    let Some(mask) = lengths.mask(length, &device) else {
        return unfold(folded, places);
    };
    let mask = mask.reshape([segment_rows, 1, 1, length]);
    unfold(folded + mask, places)
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
    if share == 1 {
        return x.reshape([rows, key_heads, group * tokens, n]);
    }
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
    if share == 1 {
        return x.reshape([rows, heads, tokens, n]);
    }
    x.reshape([segment_rows, key_heads, share, folded / share * n]).swap_dims(1, 2).reshape([rows, heads, tokens, n])
}
