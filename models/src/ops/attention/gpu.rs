//! Attention in kernels for GPUs. No table of scores is written to memory.
//!
//! Forward and by queries, each plane has a query of one head: its lanes take keys side by side, and then columns of the
//! values. By keys and values, each has a key of one key head, and its lanes take the queries.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Int, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{Attention, Gradients, Visible};
use crate::ops::gpu::{
    argument, empty_beside, in_order, most_of_lanes, of_lane, own_row, row_numbers, rows_on, sum_over_lanes,
};
use crate::ops::route::Generic;

/// Lower than any score.
const LOWEST: f32 = -1e30;

impl Attention for Cube {
    fn forward(before: Option<CubeTensor>, inputs: [CubeTensor; 3], visible: &Visible) -> CubeTensor {
        let [queries, keys, values] = inputs.map(in_order);
        let before = before.map(in_order);
        let call = Call::new(&queries, &keys, visible, before.is_some());
        let out = empty_beside(&queries, [call.places, call.heads, call.form.width + 1]);
        let launch = rows_on(&queries, call.places * call.heads);
        attend::launch(
            &queries.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&queries),
            argument(&keys),
            argument(&values),
            argument(before.as_ref().unwrap_or(&queries)),
            argument(call.factors.as_ref().unwrap_or(&queries)),
            argument(&call.rows),
            argument(call.lengths.as_ref().unwrap_or(&call.rows)),
            argument(&out),
            call.places * call.heads,
            call.heads,
            call.group,
            call.length,
            call.share,
            call.factor_heads,
            call.form,
        );
        out
    }

    fn backward(
        before: Option<CubeTensor>,
        inputs: [CubeTensor; 3],
        visible: &Visible,
        attended: CubeTensor,
        gradient: CubeTensor,
        for_segment: bool,
    ) -> Gradients<CubeTensor> {
        let [queries, keys, values] = inputs.map(in_order);
        let [attended, gradient] = [attended, gradient].map(in_order);
        let before = before.map(in_order);
        let call = Call::new(&queries, &keys, visible, before.is_some());
        let (client, of_queries) = (&queries.client, call.places * call.heads);
        let by_before = before.as_ref().map(|before| empty_beside(before, before.shape().dims::<3>()));
        let offsets = empty_beside(&queries, [of_queries, 2]);
        // Where nothing came before, this is not written.
        let unused = empty_beside(&queries, [1]);
        let launch = rows_on(&queries, of_queries);
        weigh_normalizers::launch(
            client,
            launch.cube_count,
            launch.cube_dim,
            argument(&attended),
            argument(&gradient),
            argument(before.as_ref().unwrap_or(&attended)),
            argument(&offsets),
            argument(by_before.as_ref().unwrap_or(&unused)),
            of_queries,
            call.form,
        );
        let by_queries = empty_beside(&queries, queries.shape().dims::<3>());
        let launch = rows_on(&queries, of_queries);
        by_queries::launch(
            client,
            launch.cube_count,
            launch.cube_dim,
            argument(&queries),
            argument(&keys),
            argument(&values),
            argument(&gradient),
            argument(&offsets),
            argument(call.factors.as_ref().unwrap_or(&queries)),
            argument(&call.rows),
            argument(call.lengths.as_ref().unwrap_or(&call.rows)),
            argument(&by_queries),
            of_queries,
            call.heads,
            call.group,
            call.length,
            call.share,
            call.factor_heads,
            call.form,
        );
        let by_segment = for_segment.then(|| {
            let size: [usize; 4] = keys.shape().dims();
            let of_keys = size[0] * size[1] * size[2];
            let [by_keys, by_values] = [&keys, &values].map(|x| empty_beside(x, size));
            let launch = rows_on(&queries, of_keys);
            by_segment::launch(
                client,
                launch.cube_count,
                launch.cube_dim,
                argument(&queries),
                argument(&keys),
                argument(&values),
                argument(&gradient),
                argument(&offsets),
                argument(call.factors.as_ref().unwrap_or(&queries)),
                argument(&call.starts),
                argument(call.lengths.as_ref().unwrap_or(&call.starts)),
                argument(&by_keys),
                argument(&by_values),
                of_keys,
                call.heads,
                call.group,
                call.length,
                call.share,
                call.factor_heads,
                call.form,
            );
            [by_keys, by_values]
        });
        (by_before, by_queries, by_segment)
    }
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    /// Units that share a query or a key.
    lanes: u32,
    /// Of a head.
    width: usize,
    /// A query sees keys of its own row, up to its own place.
    causal: bool,
    /// Other segments came before.
    joined: bool,
    /// There is a table of factors.
    factored: bool,
}

impl Form {
    /// Columns that each lane has.
    fn columns(self) -> usize {
        self.width.div_ceil(self.lanes as usize)
    }

    fn scale(self) -> f32 {
        (self.width as f32).sqrt().recip()
    }
}

/// The sizes and tables of a call.
struct Call {
    places: usize,
    heads: usize,
    /// Heads that share a key head.
    group: usize,
    /// Keys of a row of the segment, with padding.
    length: usize,
    /// Rows of queries that share a row of the segment.
    share: usize,
    /// `[places, 2]`: each query's row, and how many of the row's tokens come before it.
    rows: CubeTensor,
    /// `[rows + 1]`: the first place of each row.
    starts: CubeTensor,
    /// `[segment rows]`: how many keys count; absent where a query sees those up to its own place.
    lengths: Option<CubeTensor>,
    /// `[places, factor_heads, length]`: what weights are multiplied by; below 0 for a key that a query does not see.
    factors: Option<CubeTensor>,
    factor_heads: usize,
    form: Form,
}

impl Call {
    fn new(queries: &CubeTensor, keys: &CubeTensor, visible: &Visible, joined: bool) -> Self {
        let ([places, heads, width], [segment_rows, length, key_heads, _]) =
            (queries.shape().dims::<3>(), keys.shape().dims::<4>());
        let packing = &visible.packing;
        let device = Cube::float::<3>(queries.clone()).device();
        let tables = packing.tables(&device);
        let (factors, factor_heads) = match (&visible.factors, visible.hidden()) {
            (None, None) => (None, 1),
            (None, Some(_)) => (tables.seen.clone(), 1),
            (Some(factors), hidden) => {
                let sees = |i: usize| hidden.is_none_or(|hidden| !hidden[i / (heads * length) * length + i % length]);
                let factors = factors.iter().enumerate().map(|(i, &factor)| if sees(i) { factor } else { -1.0 });
                let factors = factors.collect::<Vec<f32>>();
                (Some(Tensor::<1>::from_data(factors.as_slice(), &device)), heads)
            }
        };
        let form = Form {
            lanes: rows_on(queries, 1).lanes,
            width,
            causal: visible.keys.is_none(),
            joined,
            factored: factors.is_some(),
        };
        let int = |table: Tensor<1, Int>| row_numbers(table.try_into_primitive::<Cube>().expect("it is on the device"));
        Self {
            places,
            heads,
            group: heads / key_heads,
            length,
            share: packing.lengths().len() / segment_rows,
            rows: int(tables.rows.clone()),
            starts: int(tables.starts.clone()),
            lengths: visible.keys.as_ref().map(|keys| int(keys.table(&device))),
            factors: factors.map(Cube::primitive),
            factor_heads,
            form,
        }
    }
}

/// The first of the keys of a query's row, counted through all rows, and how many it may see.
#[cube]
fn keys_of(
    place: usize,
    rows: &[i32],
    lengths: &[i32],
    length: usize,
    share: usize,
    #[comptime] form: Form,
) -> (usize, usize) {
    let row = usize::cast_from(rows[2 * place]);
    if comptime!(form.causal) {
        (row * length, usize::cast_from(rows[2 * place + 1]) + 1)
    } else {
        let row = row / share;
        (row * length, usize::cast_from(lengths[row]))
    }
}

/// The factor of a weight, below 0 for a key that is not seen.
#[cube]
fn factor_of(
    factors: &[f32],
    place: usize,
    head: usize,
    key: usize,
    length: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) -> f32 {
    let mut factor = 1f32;
    if comptime!(form.factored) {
        factor = factors[(place * factor_heads + head % factor_heads) * length + key];
    }
    factor
}

/// The product of two rows that begin at the given elements.
#[cube]
fn dot(a: &[f32], from_a: usize, b: &[f32], from_b: usize, #[comptime] form: Form) -> f32 {
    let mut sum = 0f32;
    for i in 0..comptime!(form.width) {
        sum += a[from_a + i] * b[from_b + i];
    }
    sum
}

#[cube(launch)]
fn attend(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    before: &[f32],
    factors: &[f32],
    rows: &[i32],
    lengths: &[i32],
    out: &mut [f32],
    of_queries: usize,
    heads: usize,
    group: usize,
    length: usize,
    share: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) {
    let query = own_row();
    if query < of_queries {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let columns = comptime!(form.columns());
        let lane = UNIT_POS_X as usize;
        let (place, head) = (query / heads, query % heads);
        let (key_heads, key_head) = (heads / group, head / group);
        let (first, seen) = keys_of(place, rows, lengths, length, share, form);
        // The mixed values, of which each lane has some columns; the largest score, and the sum of exp(score - largest).
        let mut mixed = Array::<f32>::new(columns);
        let mut largest = f32::new(LOWEST);
        let mut sum = 0f32;
        #[unroll]
        for c in 0..columns {
            mixed[c] = 0.0;
        }
        if comptime!(form.joined) {
            let start = query * (width + 1);
            largest = before[start + width];
            sum = 1.0;
            #[unroll]
            for c in 0..columns {
                let column = lane + c * lanes;
                if column < width {
                    mixed[c] = before[start + column];
                }
            }
        }
        for base in range_stepped(0, seen, lanes) {
            let key = base + lane;
            let mut score = f32::new(LOWEST);
            let mut factor = 1f32;
            if key < seen {
                factor = factor_of(factors, place, head, key, length, factor_heads, form);
                if factor >= 0.0 {
                    let at = ((first + key) * key_heads + key_head) * width;
                    score = dot(queries, query * width, keys, at, form) * comptime!(form.scale());
                }
            }
            let top = largest.max(most_of_lanes(score, form.lanes));
            let shrink = (largest - top).exp();
            let mut weight = 0f32;
            if score > LOWEST {
                weight = (score - top).exp();
            }
            sum = sum * shrink + sum_over_lanes(weight, form.lanes);
            let weight = weight * factor;
            #[unroll]
            for c in 0..columns {
                mixed[c] *= shrink;
            }
            let together = (seen - base).min(lanes);
            for other in 0..together {
                let weight = of_lane(weight, other as u32, form.lanes);
                let at = ((first + base + other) * key_heads + key_head) * width;
                #[unroll]
                for c in 0..columns {
                    let column = lane + c * lanes;
                    if column < width {
                        mixed[c] += weight * values[at + column];
                    }
                }
            }
            largest = top;
        }
        let start = query * (width + 1);
        #[unroll]
        for c in 0..columns {
            let column = lane + c * lanes;
            if column < width {
                out[start + column] = mixed[c] / sum;
            }
        }
        if lane == 0 {
            out[start + width] = largest + sum.ln();
        }
    }
}

/// For every query of every head the logarithm of its normaliser and what the normaliser's gradient is worth to every
/// score that it sums, `[queries, 2]`; and the gradient by what came before.
#[cube(launch)]
fn weigh_normalizers(
    attended: &[f32],
    gradient: &[f32],
    before: &[f32],
    offsets: &mut [f32],
    by_before: &mut [f32],
    of_queries: usize,
    #[comptime] form: Form,
) {
    let query = own_row();
    if query < of_queries {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let lane = UNIT_POS_X as usize;
        let start = query * (width + 1);
        let mut along = 0f32;
        for column in range_stepped(lane, width, lanes) {
            along += gradient[start + column] * attended[start + column];
        }
        let normalizer = attended[start + width];
        let offset = gradient[start + width] - sum_over_lanes(along, form.lanes);
        if lane == 0 {
            offsets[2 * query] = normalizer;
            offsets[2 * query + 1] = offset;
        }
        if comptime!(form.joined) {
            let share = (before[start + width] - normalizer).exp();
            let mut along = 0f32;
            for column in range_stepped(lane, width, lanes) {
                along += gradient[start + column] * before[start + column];
                by_before[start + column] = gradient[start + column] * share;
            }
            let along = sum_over_lanes(along, form.lanes);
            if lane == 0 {
                by_before[start + width] = (along + offset) * share;
            }
        }
    }
}

#[cube(launch)]
fn by_queries(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    gradient: &[f32],
    offsets: &[f32],
    factors: &[f32],
    rows: &[i32],
    lengths: &[i32],
    by_queries: &mut [f32],
    of_queries: usize,
    heads: usize,
    group: usize,
    length: usize,
    share: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) {
    let query = own_row();
    if query < of_queries {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let columns = comptime!(form.columns());
        let lane = UNIT_POS_X as usize;
        let (place, head) = (query / heads, query % heads);
        let (key_heads, key_head) = (heads / group, head / group);
        let (first, seen) = keys_of(place, rows, lengths, length, share, form);
        let (normalizer, offset) = (offsets[2 * query], offsets[2 * query + 1]);
        let mut sums = Array::<f32>::new(columns);
        #[unroll]
        for c in 0..columns {
            sums[c] = 0.0;
        }
        for base in range_stepped(0, seen, lanes) {
            let key = base + lane;
            let mut by_score = 0f32;
            if key < seen {
                let factor = factor_of(factors, place, head, key, length, factor_heads, form);
                if factor >= 0.0 {
                    let at = ((first + key) * key_heads + key_head) * width;
                    let score = dot(queries, query * width, keys, at, form) * comptime!(form.scale());
                    let by_weight = dot(gradient, query * (width + 1), values, at, form);
                    by_score = (score - normalizer).exp() * (factor * by_weight + offset) * comptime!(form.scale());
                }
            }
            let together = (seen - base).min(lanes);
            for other in 0..together {
                let by_score = of_lane(by_score, other as u32, form.lanes);
                let at = ((first + base + other) * key_heads + key_head) * width;
                #[unroll]
                for c in 0..columns {
                    let column = lane + c * lanes;
                    if column < width {
                        sums[c] += by_score * keys[at + column];
                    }
                }
            }
        }
        #[unroll]
        for c in 0..columns {
            let column = lane + c * lanes;
            if column < width {
                by_queries[query * width + column] = sums[c];
            }
        }
    }
}

#[cube(launch)]
fn by_segment(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    gradient: &[f32],
    offsets: &[f32],
    factors: &[f32],
    starts: &[i32],
    lengths: &[i32],
    by_keys: &mut [f32],
    by_values: &mut [f32],
    of_keys: usize,
    heads: usize,
    group: usize,
    length: usize,
    share: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) {
    let own = own_row();
    if own < of_keys {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let columns = comptime!(form.columns());
        let lane = UNIT_POS_X as usize;
        let key_heads = heads / group;
        let key_head = own % key_heads;
        let (row, key) = (own / key_heads / length, own / key_heads % length);
        let at = own * width;
        // The places of the queries that may see the key.
        let mut first = usize::cast_from(starts[row * share]);
        let mut end = usize::cast_from(starts[(row + 1) * share]);
        if comptime!(form.causal) {
            first = (first + key).min(end);
        } else if key >= usize::cast_from(lengths[row]) {
            end = first;
        }
        let count = (end - first) * group;
        let mut of_key = Array::<f32>::new(columns);
        let mut of_value = Array::<f32>::new(columns);
        #[unroll]
        for c in 0..columns {
            of_key[c] = 0.0;
            of_value[c] = 0.0;
        }
        for base in range_stepped(0, count, lanes) {
            let mut by_score = 0f32;
            let mut weight = 0f32;
            if base + lane < count {
                let place = first + (base + lane) / group;
                let head = key_head * group + (base + lane) % group;
                let query = place * heads + head;
                let factor = factor_of(factors, place, head, key, length, factor_heads, form);
                if factor >= 0.0 {
                    let score = dot(queries, query * width, keys, at, form) * comptime!(form.scale());
                    let share = (score - offsets[2 * query]).exp();
                    let by_weight = dot(gradient, query * (width + 1), values, at, form);
                    weight = share * factor;
                    by_score = share * (factor * by_weight + offsets[2 * query + 1]) * comptime!(form.scale());
                }
            }
            let together = (count - base).min(lanes);
            for other in 0..together {
                let by_score = of_lane(by_score, other as u32, form.lanes);
                let weight = of_lane(weight, other as u32, form.lanes);
                let query = (first + (base + other) / group) * heads + key_head * group + (base + other) % group;
                #[unroll]
                for c in 0..columns {
                    let column = lane + c * lanes;
                    if column < width {
                        of_key[c] += by_score * queries[query * width + column];
                        of_value[c] += weight * gradient[query * (width + 1) + column];
                    }
                }
            }
        }
        #[unroll]
        for c in 0..columns {
            let column = lane + c * lanes;
            if column < width {
                by_keys[at + column] = of_key[c];
                by_values[at + column] = of_value[c];
            }
        }
    }
}
