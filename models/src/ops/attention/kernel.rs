//! The attention on the CPU.
//!
//! The queries that share a row of the segment are dealt out to tasks in blocks. A task goes head by head: a product
//! for the scores, one pass over them, a product with the values.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{Attention, Gradients, Visible};
use crate::ops::simd::{dot, exp, exp_in_place, largest, vectorized};
use crate::ops::values::{Matrix, PART, dims, in_order, multiply, tensor, values};

/// About as many queries of one head are worked on at once; their scores stay in the cache.
const BLOCK: usize = 96;

/// The sizes of a call. A place is a token of a row; places of all rows lie one after the other.
#[derive(Clone, Copy)]
struct Sizes {
    places: usize,
    heads: usize,
    width: usize,
    length: usize,
    key_heads: usize,
}

impl Sizes {
    fn of(queries: &FlexTensor, keys: &FlexTensor) -> Self {
        let [places, heads, width] = dims(queries);
        let [_, length, key_heads, _] = dims(keys);
        Self { places, heads, width, length, key_heads }
    }

    /// Elements of the queries at one place.
    fn query(&self) -> usize {
        self.heads * self.width
    }

    /// Elements of the result at one place.
    fn attended(&self) -> usize {
        self.heads * (self.width + 1)
    }

    /// Weights of the queries at one place.
    fn weights(&self) -> usize {
        self.heads * self.length
    }

    /// Elements of a row of the segment.
    fn segment(&self) -> usize {
        self.length * self.key_heads * self.width
    }

    /// Where the key head that serves a query head begins.
    fn key_head(&self, head: usize) -> usize {
        head / (self.heads / self.key_heads) * self.width
    }

    /// The first `seen` keys or values for a query head, `[seen, width]`.
    fn of_head<'a>(&self, segment: &'a [f32], head: usize, seen: usize) -> Matrix<'a> {
        Matrix::rows(&segment[self.key_head(head)..], [seen, self.width], self.key_heads * self.width)
    }

    /// A query head's part of values that lie `wide` to a head, `[places, width]`.
    fn at_head<'a>(&self, x: &'a [f32], head: usize, wide: usize) -> Matrix<'a> {
        Matrix::rows(&x[head * wide..], [x.len() / (self.heads * wide), self.width], self.heads * wide)
    }
}

/// The blocks of all queries, in order.
///
/// They depend on the sizes alone, not on the number of threads, and so do the sums over them.
fn blocks(visible: &Visible, segment_rows: usize) -> Vec<Block> {
    let rows = visible.rows_without_prefix();
    let rows = rows.chunks(rows.len() / segment_rows).enumerate();
    let of_row = |(segment_row, rows): (usize, &[usize])| {
        let places = rows.iter().sum::<usize>();
        let size = places.div_ceil(places.div_ceil(BLOCK).max(1)).max(1);
        (0..places).step_by(size).map(move |first| Block { segment_row, first, places: size.min(places - first) })
    };
    rows.flat_map(of_row).collect()
}

/// Consecutive queries that share a row of the segment.
#[derive(Clone, Copy)]
struct Block {
    segment_row: usize,
    /// Its first place among those that share the row.
    first: usize,
    places: usize,
}

impl Block {
    /// Keys that the query at a place of the block sees.
    fn end(&self, visible: &Visible, place: usize) -> usize {
        visible.keys.as_ref().map_or(self.first + place + 1, |lengths| lengths[self.segment_row])
    }

    /// Keys that any of its queries sees.
    fn seen(&self, visible: &Visible) -> usize {
        self.end(visible, self.places - 1)
    }
}

/// Deals out what lies `stride` to a place to the blocks.
fn deal<'a, T>(mut x: &'a mut [T], blocks: &[Block], stride: usize) -> Vec<&'a mut [T]> {
    let take = |block: &Block| {
        let (part, rest) = std::mem::take(&mut x).split_at_mut(block.places * stride);
        x = rest;
        part
    };
    blocks.iter().map(take).collect()
}

/// The values of each block where they lie `stride` to a place.
fn parts<'a, T>(x: &'a [T], blocks: &[Block], stride: usize) -> Vec<&'a [T]> {
    let mut start = 0;
    let take = |block: &Block| {
        let end = start + block.places * stride;
        let part = &x[start..end];
        start = end;
        part
    };
    blocks.iter().map(take).collect()
}

impl Attention for Flex {
    fn forward(before: Option<FlexTensor>, inputs: [FlexTensor; 3], visible: &Visible) -> FlexTensor {
        let [queries, keys, segment_values] = inputs.map(in_order);
        let sizes = Sizes::of(&queries, &keys);
        let blocks = blocks(visible, dims::<4>(&keys)[0]);
        let has_before = before.is_some();
        // What came before is joined in place if nobody else holds it.
        let mut attended = match before {
            Some(before) => before.to_contiguous(),
            None => {
                let size = [sizes.places, sizes.heads, sizes.width + 1];
                tensor(vec![0.0; size.iter().product()], size)
            }
        };
        let out = deal(attended.storage_mut::<f32>(), &blocks, sizes.attended());
        let queries = parts(values(&queries), &blocks, sizes.query());
        let (keys, segment_values) = (values(&keys), values(&segment_values));
        let weighing = weighing(visible, &sizes, &blocks);
        blocks.par_iter().zip(out).zip(queries).zip(weighing).for_each(|(((block, out), queries), weighing)| {
            let segment = block.segment_row * sizes.segment()..(block.segment_row + 1) * sizes.segment();
            let (keys, segment_values) = (&keys[segment.clone()], &segment_values[segment]);
            let (seen, wide) = (block.seen(visible), sizes.width + 1);
            let mut scores = vec![0.0; block.places * seen];
            for head in 0..sizes.heads {
                score(&sizes, queries, keys, head, &mut scores, seen);
                vectorized(
                    #[inline(always)]
                    || {
                        for (place, scores) in scores.chunks_exact_mut(seen.max(1)).enumerate() {
                            let (visible, hidden) = scores.split_at_mut(block.end(visible, place));
                            let start = (place * sizes.heads + head) * wide;
                            weighing.hide(visible, place * sizes.length);
                            join(visible, &mut out[start..start + wide], has_before);
                            hidden.fill(0.0);
                            weighing.weigh(visible, (place * sizes.heads + head) * sizes.length);
                        }
                    },
                );
                let weights = Matrix::rows(&scores, [block.places, seen], seen);
                let factors = [weights, sizes.of_head(segment_values, head, seen)];
                multiply(&mut out[head * wide..], sizes.heads * wide, 1.0, 1.0, factors, false);
            }
        });
        attended
    }

    fn backward(
        before: Option<FlexTensor>,
        inputs: [FlexTensor; 3],
        visible: &Visible,
        attended: FlexTensor,
        gradient: FlexTensor,
        for_segment: bool,
    ) -> Gradients<FlexTensor> {
        let [queries, keys, segment_values] = inputs.map(in_order);
        let [attended, gradient] = [attended, gradient].map(in_order);
        let before = before.map(in_order);
        let sizes = Sizes::of(&queries, &keys);
        let segment_size: [usize; 4] = dims(&keys);
        let blocks = blocks(visible, segment_size[0]);
        let mut by_queries = vec![0.0; sizes.places * sizes.query()];
        let mut by_before = vec![0.0; if before.is_some() { sizes.places * sizes.attended() } else { 0 }];

        let queries = parts(values(&queries), &blocks, sizes.query());
        let attended = parts(values(&attended), &blocks, sizes.attended());
        let gradient = parts(values(&gradient), &blocks, sizes.attended());
        let weighing = weighing(visible, &sizes, &blocks);
        let before_parts = before.as_ref().map(|before| parts(values(before), &blocks, sizes.attended()));
        let mut by_before_parts: Vec<Option<&mut [f32]>> = match before {
            Some(_) => deal(&mut by_before, &blocks, sizes.attended()).into_iter().map(Some).collect(),
            None => blocks.iter().map(|_| None).collect(),
        };
        let tasks = blocks.par_iter().zip(deal(&mut by_queries, &blocks, sizes.query())).zip(&mut by_before_parts);
        let by_segment: Vec<BySegment> = tasks
            .enumerate()
            .map(|(place, ((block, by_queries), by_before))| {
                let segment = block.segment_row * sizes.segment()..(block.segment_row + 1) * sizes.segment();
                let task = Task {
                    sizes,
                    block: *block,
                    visible,
                    queries: queries[place],
                    keys: &values(&keys)[segment.clone()],
                    values: &values(&segment_values)[segment],
                    attended: attended[place],
                    gradient: gradient[place],
                    weighing: weighing[place],
                    before: before_parts.as_ref().map(|parts| parts[place]),
                };
                task.run(by_queries, by_before.as_deref_mut(), for_segment)
            })
            .collect();

        let by_segment = for_segment.then(|| {
            [0, 1]
                .map(|which| tensor(sum_of_blocks(&sizes, &blocks, &by_segment, which, segment_size[0]), segment_size))
        });
        let by_before = before.map(|_| tensor(by_before, [sizes.places, sizes.heads, sizes.width + 1]));
        (by_before, tensor(by_queries, [sizes.places, sizes.heads, sizes.width]), by_segment)
    }
}

/// The scores of one head for the first `seen` keys, `[places, seen]`.
fn score(sizes: &Sizes, queries: &[f32], keys: &[f32], head: usize, scores: &mut [f32], seen: usize) {
    let scale = (sizes.width as f32).sqrt().recip();
    let factors = [sizes.at_head(queries, head, sizes.width), sizes.of_head(keys, head, seen).transposed()];
    multiply(scores, seen, 0.0, scale, factors, false);
}

/// What a block's scores and weights go by besides the queries and keys, where there is any of it.
#[derive(Clone, Copy)]
struct Weighing<'a> {
    /// What each weight is multiplied by, `[places, heads, length]`.
    factors: Option<&'a [f32]>,
    /// What a query does not see, `[places, length]`.
    hidden: Option<&'a [bool]>,
}

fn weighing<'a>(visible: &'a Visible, sizes: &Sizes, blocks: &[Block]) -> Vec<Weighing<'a>> {
    let factors = visible.factors.as_ref().map(|factors| parts(factors, blocks, sizes.weights()));
    let hidden = visible.hidden().map(|hidden| parts(hidden, blocks, sizes.length));
    let of_block = |block: usize| Weighing {
        factors: factors.as_ref().map(|factors| factors[block]),
        hidden: hidden.as_ref().map(|hidden| hidden[block]),
    };
    (0..blocks.len()).map(of_block).collect()
}

impl Weighing<'_> {
    /// Multiplies weights by their factors, which begin at `start`.
    #[inline(always)]
    fn weigh(&self, weights: &mut [f32], start: usize) {
        if let Some(factors) = self.factors {
            weights.iter_mut().zip(&factors[start..]).for_each(|(weight, factor)| *weight *= factor);
        }
    }

    /// Leaves no weight to the scores of keys that are not seen, as told from `start` on.
    #[inline(always)]
    fn hide(&self, scores: &mut [f32], start: usize) {
        if let Some(hidden) = self.hidden {
            for (score, hidden) in scores.iter_mut().zip(&hidden[start..]) {
                *score = if *hidden { f32::NEG_INFINITY } else { *score };
            }
        }
    }
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

/// Gradients of a block by all keys and all values of its row of the segment, where they are wanted.
type BySegment = Option<[Vec<f32>; 2]>;

/// The sum of the blocks' gradients by keys (0) or values (1), `[rows, segment]`: in threads, and in each row block
/// after block, so that the number of threads changes nothing.
fn sum_of_blocks(sizes: &Sizes, blocks: &[Block], parts: &[BySegment], which: usize, rows: usize) -> Vec<f32> {
    let mut sums = vec![0.0; rows * sizes.segment()];
    let mut pieces = Vec::new();
    let (mut rest, mut first) = (sums.as_mut_slice(), 0);
    for of_row in blocks.chunk_by(|a, b| a.segment_row == b.segment_row) {
        // Rows without queries have no block.
        let skipped = of_row[0].segment_row * sizes.segment() - (rows * sizes.segment() - rest.len());
        let (row, others) = rest.split_at_mut(skipped).1.split_at_mut(sizes.segment());
        let parts = &parts[first..first + of_row.len()];
        pieces.extend(row.chunks_mut(PART).enumerate().map(|(piece, sum)| (sum, piece * PART, parts)));
        (rest, first) = (others, first + of_row.len());
    }
    pieces.into_par_iter().for_each(|(sum, start, parts)| {
        for part in parts.iter().flatten() {
            sum.iter_mut().zip(&part[which][start..]).for_each(|(sum, part)| *sum += part);
        }
    });
    sums
}

/// The backward pass of one block.
struct Task<'a> {
    sizes: Sizes,
    block: Block,
    visible: &'a Visible,
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    attended: &'a [f32],
    gradient: &'a [f32],
    weighing: Weighing<'a>,
    before: Option<&'a [f32]>,
}

impl Task<'_> {
    fn run(&self, by_queries: &mut [f32], mut by_before: Option<&mut [f32]>, for_segment: bool) -> BySegment {
        let Self { sizes, block, .. } = *self;
        let (places, seen, wide) = (block.places, block.seen(self.visible), sizes.width + 1);
        let mut by_segment = for_segment.then(|| [(); 2].map(|()| vec![0.0; sizes.segment()]));
        let (mut weights, mut by_scores) = (vec![0.0; places * seen], vec![0.0; places * seen]);
        for head in 0..sizes.heads {
            score(&sizes, self.queries, self.keys, head, &mut weights, seen);
            let by_mixed = sizes.at_head(self.gradient, head, wide);
            let factors = [by_mixed, sizes.of_head(self.values, head, seen).transposed()];
            multiply(&mut by_scores, seen, 0.0, 1.0, factors, false);
            vectorized(
                #[inline(always)]
                || self.turn(head, seen, &mut weights, &mut by_scores, by_before.as_deref_mut()),
            );
            let by_scores = Matrix::rows(&by_scores, [places, seen], seen);
            let keys = sizes.of_head(self.keys, head, seen);
            multiply(&mut by_queries[head * sizes.width..], sizes.query(), 0.0, 1.0, [by_scores, keys], false);
            if let Some([by_keys, by_values]) = &mut by_segment {
                let (start, row) = (sizes.key_head(head), sizes.key_heads * sizes.width);
                let queries = sizes.at_head(self.queries, head, sizes.width);
                multiply(&mut by_keys[start..], row, 1.0, 1.0, [by_scores.transposed(), queries], false);
                let weights = Matrix::rows(&weights, [places, seen], seen).transposed();
                multiply(&mut by_values[start..], row, 1.0, 1.0, [weights, by_mixed], false);
            }
        }
        by_segment
    }

    /// Turns one head's scores into weights, the weights' gradients into the scores', and gives what came before its
    /// gradient.
    #[inline(always)]
    fn turn(
        &self,
        head: usize,
        seen: usize,
        weights: &mut [f32],
        by_scores: &mut [f32],
        mut by_before: Option<&mut [f32]>,
    ) {
        let Self { sizes, block, visible, attended, gradient, weighing, before, .. } = self;
        let wide = sizes.width + 1;
        let scale = (sizes.width as f32).sqrt().recip();
        for place in 0..block.places {
            let start = (place * sizes.heads + head) * wide;
            let (mixed, normalizer) = attended[start..start + wide].split_at(sizes.width);
            let (by_mixed, by_normalizer) = gradient[start..start + wide].split_at(sizes.width);
            let offset = by_normalizer[0] - dot(by_mixed, mixed);
            let end = block.end(visible, place);
            let of_place = place * seen..(place + 1) * seen;
            let (weights, hidden) = weights[of_place.clone()].split_at_mut(end);
            hidden.fill(0.0);
            let (by_scores, hidden) = by_scores[of_place].split_at_mut(end);
            hidden.fill(0.0);
            weighing.hide(weights, place * sizes.length);
            exp_in_place(weights, normalizer[0]);
            let first = (place * sizes.heads + head) * sizes.length;
            weighing.weigh(by_scores, first);
            for (by_score, weight) in by_scores.iter_mut().zip(weights.iter()) {
                *by_score = *weight * (*by_score + offset) * scale;
            }
            weighing.weigh(weights, first);
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
