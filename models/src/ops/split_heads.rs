//! Queries, keys and values out of one product, on a GPU.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, Dispatch};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::gpu::{argument, elements_on, empty_beside, in_order, zeros_beside};
use super::packing::Packing;
use super::route::routed_to_gpus;
use super::several_outputs::{ComputeMany, RunMany};
use super::tape::{BackwardInputs, Operation};

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeadSizes {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys, and of the values.
    pub key_heads: usize,
    /// Of each head.
    pub width: usize,
    /// Whether queries and keys are rotated.
    pub rotates: bool,
}

impl HeadSizes {
    /// Columns of the product.
    fn columns(self) -> usize {
        (self.heads + 2 * self.key_heads) * self.width
    }
}

/// Queries `[places, heads, width]` and, padded as `packing` says, keys and values `[rows, longest row, key heads,
/// width]`.
///
/// They lie in the rows of `product`, `[places, (heads + 2 key heads) width]`, one after the other, where `bias`, as wide,
/// is added to them. Queries and keys are rotated by the angles whose cosines and sines are `[1, places, 1, width / 2]`.
///
/// # Panics
///
/// If the sizes do not fit together, or on a CPU.
pub fn split_heads(
    product: Tensor<2>,
    bias: Option<Tensor<1>>,
    [cos, sin]: [Tensor<4>; 2],
    packing: &Packing,
    sizes: HeadSizes,
) -> (Tensor<3>, [Tensor<4>; 2]) {
    let ([tokens, columns], angles) = (product.dims(), [1, product.dims()[0], 1, sizes.width / 2]);
    assert_eq!(columns, sizes.columns(), "the product must be as wide as all heads");
    assert_eq!(packing.places(), tokens, "every place must have a row of the product");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [columns]), "the bias must be as wide as the product");
    assert_eq!([cos.dims(), sin.dims()], [angles; 2], "every pair of a token needs an angle");
    let has_bias = bias.is_some();
    // Anything stands for a bias that there is not.
    let bias = bias.map_or_else(|| cos.clone().into_dispatch(), Tensor::into_dispatch);
    let call = Split { sizes, packing: packing.clone(), has_bias };
    let (queries, keys, values) =
        Dispatch::split_heads(product.into_dispatch(), bias, cos.into_dispatch(), sin.into_dispatch(), call);
    (Tensor::from_dispatch(queries), [keys, values].map(Tensor::from_dispatch))
}

routed_to_gpus! {
    trait SplitHeadsOps: RunMany<Split, 4, 3> {
        fn split_heads(
            product: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            call: Split,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            Self::run_many(call, [product, bias, cos, sin]).into()
        }
    }
}

#[derive(Debug, Clone)]
struct Split {
    sizes: HeadSizes,
    packing: Packing,
    has_bias: bool,
}

impl Operation<4> for Split {
    fn needs(_: [bool; 4]) -> [bool; 4] {
        [false, false, true, true]
    }
}

impl ComputeMany<Cube, 4, 3> for Split {
    fn forward(&self, inputs: [CubeTensor; 4]) -> [CubeTensor; 3] {
        let [product, bias, cos, sin] = inputs.map(in_order);
        let HeadSizes { heads, key_heads, width, .. } = self.sizes;
        let [tokens, _] = product.meta.shape().dims();
        let (rows, longest) = (self.packing.lengths().len(), self.packing.tokens());
        let queries = empty_beside(&product, [tokens, heads, width]);
        let [keys, values] = [(); 2].map(|()| empty_beside(&product, [rows, longest, key_heads, width]));
        let (_, starts) = self.tables(&product);
        // A unit for each pair of the queries, of the keys and of the values.
        let (of_queries, of_keys) = (tokens * heads * width / 2, rows * longest * key_heads * width / 2);
        let (count, dim) = elements_on(&product, of_queries + 2 * of_keys);
        split::launch(
            &product.client,
            count,
            dim,
            argument(&product),
            argument(&bias),
            argument(&cos),
            argument(&sin),
            argument(&starts),
            argument(&queries),
            argument(&keys),
            argument(&values),
            of_queries,
            of_keys,
            longest,
            self.sizes,
            self.has_bias,
        );
        [queries, keys, values]
    }

    fn gradients(self, given: BackwardInputs<Cube, 4, [Option<CubeTensor>; 3]>) -> [Option<CubeTensor>; 4] {
        let BackwardInputs { inputs: [_, _, cos, sin], gradient, wanted: [_, by_bias, ..], .. } = given;
        let [cos, sin] = [cos, sin].map(|angles| in_order(angles.expect("what is needed was kept")));
        let tokens = self.packing.places();
        let HeadSizes { heads, key_heads, width, .. } = self.sizes;
        let (columns, rows, longest) = (self.sizes.columns(), self.packing.lengths().len(), self.packing.tokens());
        // Nothing comes from queries whose hidden states nobody reads.
        let or_zeros = |by: Option<CubeTensor>, size: Shape| by.map_or_else(|| zeros_beside(&cos, size), in_order);
        let [by_queries, by_keys, by_values] = gradient;
        let by_queries = or_zeros(by_queries, Shape::new([tokens, heads, width]));
        let [by_keys, by_values] =
            [by_keys, by_values].map(|by| or_zeros(by, Shape::new([rows, longest, key_heads, width])));
        let out = empty_beside(&cos, [tokens, columns]);
        let (rows, _) = self.tables(&cos);
        let pairs = tokens * columns / 2;
        let (count, dim) = elements_on(&cos, pairs);
        join::launch(
            &cos.client,
            count,
            dim,
            argument(&by_queries),
            argument(&by_keys),
            argument(&by_values),
            argument(&cos),
            argument(&sin),
            argument(&rows),
            argument(&out),
            pairs,
            longest,
            self.sizes,
        );
        let by_bias = (self.has_bias && by_bias)
            .then(|| Cube::float_reshape(Cube::float_sum_dim(out.clone(), 0), Shape::new([columns])));
        [Some(out), by_bias, None, None]
    }
}

impl Split {
    /// The packing's tables beside `x`: rows and starts.
    fn tables(&self, x: &CubeTensor) -> (CubeTensor, CubeTensor) {
        let tables = self.packing.of_kernels();
        (tables.rows.beside(x), tables.starts.beside(x))
    }
}

/// The first of the two columns of the product that a pair has, counted in a row from head `first` on, and the number of
/// its angle; the second lies half a head behind it.
#[cube]
fn columns_of(pair: usize, first: usize, #[comptime] sizes: HeadSizes) -> (usize, usize) {
    let half = comptime!(sizes.width / 2);
    ((first + pair / half) * comptime!(sizes.width) + pair % half, pair % half)
}

#[cube(launch)]
fn split(
    product: &[f32],
    bias: &[f32],
    cos: &[f32],
    sin: &[f32],
    starts: &[i32],
    queries: &mut [f32],
    keys: &mut [f32],
    values: &mut [f32],
    of_queries: usize,
    of_keys: usize,
    longest: usize,
    #[comptime] sizes: HeadSizes,
    #[comptime] has_bias: bool,
) {
    if ABSOLUTE_POS < of_queries + 2 * of_keys {
        let half = comptime!(sizes.width / 2);
        let is_query = ABSOLUTE_POS < of_queries;
        let is_value = ABSOLUTE_POS >= of_queries + of_keys;
        // The pair among those of its kind, how many of them a token has, and the first head of the kind.
        let mut pair = ABSOLUTE_POS;
        let mut of_token = comptime!(sizes.heads * sizes.width / 2).runtime();
        let mut first = 0usize;
        if !is_query {
            pair -= of_queries;
            of_token = comptime!(sizes.key_heads * sizes.width / 2).runtime();
            first = comptime!(sizes.heads).runtime();
            if is_value {
                pair -= of_keys;
                first += comptime!(sizes.key_heads);
            }
        }
        // Queries are packed; keys and values lie in padded rows.
        let mut token = pair / of_token;
        let mut is_token = true;
        if !is_query {
            let (row, place) = (token / longest, token % longest);
            token = usize::cast_from(starts[row]) + place;
            is_token = token < usize::cast_from(starts[row + 1]);
        }
        let mut a = 0f32;
        let mut b = 0f32;
        if is_token {
            let (column, angle) = columns_of(pair % of_token, first, sizes);
            let at = token * comptime!(sizes.columns()) + column;
            a = product[at];
            b = product[at + half];
            if comptime!(has_bias) {
                a += bias[column];
                b += bias[column + half];
            }
            if comptime!(sizes.rotates) && !is_value {
                let (cos, sin) = (cos[token * half + angle], sin[token * half + angle]);
                let turned = a * cos - b * sin;
                b = b * cos + a * sin;
                a = turned;
            }
        }
        let out = pair / half * comptime!(sizes.width) + pair % half;
        if is_query {
            queries[out] = a;
            queries[out + half] = b;
        } else if is_value {
            values[out] = a;
            values[out + half] = b;
        } else {
            keys[out] = a;
            keys[out + half] = b;
        }
    }
}

/// The gradient by the product: the transpose of a rotation turns back.
#[cube(launch)]
fn join(
    by_queries: &[f32],
    by_keys: &[f32],
    by_values: &[f32],
    cos: &[f32],
    sin: &[f32],
    rows: &[i32],
    out: &mut [f32],
    pairs: usize,
    longest: usize,
    #[comptime] sizes: HeadSizes,
) {
    if ABSOLUTE_POS < pairs {
        let half = comptime!(sizes.width / 2);
        let width = comptime!(sizes.width);
        let of_token = comptime!(sizes.columns() / 2);
        let token = ABSOLUTE_POS / of_token;
        let (column, angle) = columns_of(ABSOLUTE_POS % of_token, 0, sizes);
        let head = column / width;
        // A place without a token has queries alone.
        let is_token = rows[2 * token] >= 0;
        let padded = usize::cast_from(rows[2 * token].max(0)) * longest + usize::cast_from(rows[2 * token + 1]);
        let is_value = head >= comptime!(sizes.heads + sizes.key_heads);
        let first = comptime!(sizes.heads);
        let key_heads = comptime!(sizes.key_heads);
        let mut a = 0f32;
        let mut b = 0f32;
        if is_value {
            let from = (padded * key_heads + head - comptime!(sizes.heads + sizes.key_heads)) * width + angle;
            if is_token {
                a += by_values[from];
                b += by_values[from + half];
            }
        } else if head >= first {
            let from = (padded * key_heads + head - first) * width + angle;
            if is_token {
                a += by_keys[from];
                b += by_keys[from + half];
            }
        } else {
            let from = (token * first + head) * width + angle;
            a += by_queries[from];
            b += by_queries[from + half];
        }
        if comptime!(sizes.rotates) && !is_value {
            let (cos, sin) = (cos[token * half + angle], sin[token * half + angle]);
            let turned = a * cos + b * sin;
            b = b * cos - a * sin;
            a = turned;
        }
        let at = token * comptime!(sizes.columns()) + column;
        out[at] = a;
        out[at + half] = b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, numbers, on_gpu, random, sizes};
    use crate::ops::{add_bias, rotate};

    /// One of the three from the operations that the CPU has.
    fn separately(
        product: Tensor<2>,
        bias: Option<Tensor<1>>,
        angles: &[Tensor<4>; 2],
        packing: &Packing,
        sizes: HeadSizes,
    ) -> (Tensor<3>, [Tensor<4>; 2]) {
        let HeadSizes { heads, key_heads, width, rotates } = sizes;
        let [tokens, _] = product.dims();
        let product = bias.map_or_else(|| product.clone(), |bias| add_bias(product.clone(), bias));
        let part = |first: usize, heads: usize, rotates: bool| {
            let x = product.clone().narrow(1, first * width, heads * width).reshape([1, tokens, heads, width]);
            let [cos, sin] = angles.clone();
            if rotates { rotate(x, cos, sin) } else { x }
        };
        let pad = |x: Tensor<4>| {
            let size = [packing.lengths().len(), packing.tokens(), key_heads, width];
            packing.unpack(x.reshape([tokens, key_heads * width])).reshape(size)
        };
        let queries = part(0, heads, rotates).squeeze_dim(0);
        let keys = pad(part(heads, key_heads, rotates));
        (queries, [keys, pad(part(heads + key_heads, key_heads, false))])
    }

    #[test]
    fn equals_the_separate_operations_forward_and_backward() {
        if !on_gpu() {
            return;
        }
        let reads = [(true, true), (false, true), (true, false)].into_iter().cycle();
        let cases = sizes([7, 30, 3, 3, 8]).zip([true, true, false].into_iter().cycle()).zip(reads);
        for (([rows, most, share, key_heads, half], rotates), (has_bias, of_queries)) in cases {
            let sizes = HeadSizes { heads: share * key_heads, key_heads, width: 2 * half, rotates };
            let lengths = [numbers(rows - 1, most + 1, 5), vec![most]].concat();
            let packing = Packing::new(&lengths, most).in_steps_of(4);
            let tokens = packing.places();
            let angles = random([1, tokens, 1, sizes.width / 2], 3);
            let angles = [angles.clone().cos(), angles.sin()];
            // The outputs as one, for the test compares one; queries may go unread.
            let read = |(queries, [keys, values]): (Tensor<3>, [Tensor<4>; 2]), of_queries: bool| {
                let keys_and_values = Tensor::cat(vec![keys.flatten::<1>(0, 3), values.flatten(0, 3)], 0);
                match of_queries {
                    true => Tensor::cat(vec![queries.flatten(0, 2), keys_and_values], 0),
                    false => keys_and_values,
                }
            };
            let all = |outputs| read(outputs, of_queries);
            let inputs = [random([tokens, sizes.columns()], 1), random([1, sizes.columns()], 2)];
            let with = |function: &dyn Fn(Tensor<2>, Option<Tensor<1>>) -> Tensor<1>, [x, bias]: [Tensor<2>; 2]| {
                match has_bias {
                    true => function(x, Some(bias.squeeze_dim(0))),
                    // So that it has a gradient.
                    false => function(x, None) + bias.sum(),
                }
            };
            check_gradients(
                inputs,
                |inputs| with(&|x, bias| all(split_heads(x, bias, angles.clone(), &packing, sizes)), inputs),
                |inputs| with(&|x, bias| all(separately(x, bias, &angles, &packing, sizes)), inputs),
            );
        }
    }
}
