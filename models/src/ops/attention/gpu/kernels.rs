//! The kernels of the attention.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::keys::{Form, factor_of, keys_of, place_of};
use crate::ops::gpu::{dot_of_lanes, most_of_lanes, of_lane, own_row, sum_over_lanes};

/// Lower than any score.
const LOWEST: f32 = -1e30;

/// The product of two rows that begin at the given elements.
#[cube]
fn dot(a: &[f32], from_a: usize, b: &[f32], from_b: usize, #[comptime] form: Form) -> f32 {
    let mut sum = 0f32;
    for i in 0..comptime!(form.width) {
        sum += a[from_a + i] * b[from_b + i];
    }
    sum
}

/// A zero for each column that a lane has.
#[cube]
fn zeros(#[comptime] form: Form) -> Array<f32> {
    let columns = comptime!(form.columns());
    let mut zeros = Array::<f32>::new(columns);
    #[unroll]
    for c in 0..columns {
        zeros[c] = 0.0;
    }
    zeros
}

/// Adds to a lane's columns as many times those of the row that begins at `start`.
#[cube]
fn add_row(sums: &mut Array<f32>, times: f32, table: &[f32], start: usize, #[comptime] form: Form) {
    #[unroll]
    for c in 0..comptime!(form.columns()) {
        let column = UNIT_POS_X as usize + c * comptime!(form.lanes as usize);
        if column < comptime!(form.width) {
            sums[c] += times * table[start + column];
        }
    }
}

/// Writes a lane's columns into the row that begins at `start`.
#[cube]
fn write_row(out: &mut [f32], start: usize, values: &Array<f32>, #[comptime] form: Form) {
    #[unroll]
    for c in 0..comptime!(form.columns()) {
        let column = UNIT_POS_X as usize + c * comptime!(form.lanes as usize);
        if column < comptime!(form.width) {
            out[start + column] = values[c];
        }
    }
}

#[cube(launch)]
pub(super) fn attend(
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
    prefix: usize,
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
        let visible = keys_of(place, rows, lengths, length, prefix, share, form);
        let seen = visible.seen;
        // The mixed values, of which each lane has some columns; the largest score, and the sum of exp(score - largest).
        let mut mixed = zeros(form);
        let mut largest = f32::new(LOWEST);
        let mut sum = 0f32;
        if comptime!(form.joined) {
            let start = query * (width + 1);
            largest = before[start + width];
            sum = 1.0;
            add_row(&mut mixed, 1.0, before, start, form);
        } else if seen == 0 {
            largest = 0.0;
            sum = 1.0;
        }
        for base in range_stepped(0, seen, lanes) {
            let key = base + lane;
            let mut score = f32::new(LOWEST);
            let mut factor = 1f32;
            if key < seen {
                factor = factor_of(factors, place, head, key, length, factor_heads, form);
                if factor >= 0.0 {
                    let at = (place_of(&visible, key, form) * key_heads + key_head) * width;
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
                let at = (place_of(&visible, base + other, form) * key_heads + key_head) * width;
                add_row(&mut mixed, weight, values, at, form);
            }
            largest = top;
        }
        #[unroll]
        for c in 0..columns {
            mixed[c] /= sum;
        }
        let start = query * (width + 1);
        write_row(out, start, &mixed, form);
        if lane == 0 {
            out[start + width] = largest + sum.ln();
        }
    }
}

/// For every query of every head the logarithm of its normaliser and what the normaliser's gradient is worth to every
/// score that it sums, `[queries, 2]`; and the gradient by what came before.
#[cube(launch)]
pub(super) fn weigh_normalizers(
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
        let normalizer = attended[start + width];
        let offset = gradient[start + width] - dot_of_lanes(gradient, start, attended, start, width, form.lanes);
        if lane == 0 {
            offsets[2 * query] = normalizer;
            offsets[2 * query + 1] = offset;
        }
        if comptime!(form.joined) {
            let share = (before[start + width] - normalizer).exp();
            let along = dot_of_lanes(gradient, start, before, start, width, form.lanes);
            for column in range_stepped(lane, width, lanes) {
                by_before[start + column] = gradient[start + column] * share;
            }
            if lane == 0 {
                by_before[start + width] = (along + offset) * share;
            }
        }
    }
}

#[cube(launch)]
pub(super) fn by_queries(
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
    prefix: usize,
    share: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) {
    let query = own_row();
    if query < of_queries {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let lane = UNIT_POS_X as usize;
        let (place, head) = (query / heads, query % heads);
        let (key_heads, key_head) = (heads / group, head / group);
        let visible = keys_of(place, rows, lengths, length, prefix, share, form);
        let seen = visible.seen;
        let (normalizer, offset) = (offsets[2 * query], offsets[2 * query + 1]);
        let mut sums = zeros(form);
        for base in range_stepped(0, seen, lanes) {
            let key = base + lane;
            let mut by_score = 0f32;
            if key < seen {
                let factor = factor_of(factors, place, head, key, length, factor_heads, form);
                if factor >= 0.0 {
                    let at = (place_of(&visible, key, form) * key_heads + key_head) * width;
                    let score = dot(queries, query * width, keys, at, form) * comptime!(form.scale());
                    let by_weight = dot(gradient, query * (width + 1), values, at, form);
                    by_score = (score - normalizer).exp() * (factor * by_weight + offset) * comptime!(form.scale());
                }
            }
            let together = (seen - base).min(lanes);
            for other in 0..together {
                let by_score = of_lane(by_score, other as u32, form.lanes);
                let at = (place_of(&visible, base + other, form) * key_heads + key_head) * width;
                add_row(&mut sums, by_score, keys, at, form);
            }
        }
        write_row(by_queries, query * width, &sums, form);
    }
}

#[cube(launch)]
pub(super) fn by_segment(
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
    of_rows: usize,
    heads: usize,
    group: usize,
    length: usize,
    prefix: usize,
    share: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) {
    let own = own_row();
    if own < of_keys {
        let width = comptime!(form.width);
        let lanes = comptime!(form.lanes as usize);
        let lane = UNIT_POS_X as usize;
        let key_heads = heads / group;
        let key_head = own % key_heads;
        let (row, key) = (own / key_heads / length, own / key_heads % length);
        let at = own * width;
        // The places of the queries that may see the key.
        let mut first_row = row * share;
        let mut after = first_row + share;
        if comptime!(form.prefixed) {
            if row == 0 {
                after = of_rows;
            } else if comptime!(!form.causal) {
                after = first_row;
                first_row -= share;
            }
        }
        let mut first = usize::cast_from(starts[first_row]);
        let mut end = usize::cast_from(starts[after]);
        if comptime!(form.causal) {
            first = (first + key).min(end);
            // What follows the prefix are others' tokens, which do not see its padding.
            if comptime!(form.prefixed) && row == 0 && key >= prefix {
                end = first;
            }
        } else if key >= usize::cast_from(lengths[row]) {
            end = first;
        }
        let count = (end - first) * group;
        let mut of_key = zeros(form);
        let mut of_value = zeros(form);
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
                add_row(&mut of_key, by_score, queries, query * width, form);
                add_row(&mut of_value, weight, gradient, query * (width + 1), form);
            }
        }
        write_row(by_keys, at, &of_key, form);
        write_row(by_values, at, &of_value, form);
    }
}
