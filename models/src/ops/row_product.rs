//! The product of rows with a weight; for a few rows, without packing the weight.
//!
//! A general matrix product first copies its operands into the order in which its innermost loop reads them. For the few
//! rows of a decoding step that copy of the weight costs more than the product. Here both operands are read as they lie:
//! each element of `x W^T` is the product of two rows.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::values::{Matrix, multiply};

/// Up to how many rows this is faster than a product that packs the weight first: about this many, or half the depth.
const MOST_ROWS: usize = 192;

/// Elements of the weight that are worked on together, 128 KiB of them.
const TILE: usize = 1 << 15;

/// Rows of the weight that a task takes at least.
const PANEL: usize = 32;

/// `x W^T` of `x`, `[rows, depth]`, and `weight`, `[width, depth]`, into `out`, `[rows, width]`, all in row-major order.
pub(super) fn multiply_by_rows(out: &mut [f32], x: &[f32], weight: &[f32], depth: usize) {
    let (rows, width) = (x.len() / depth, weight.len() / depth);
    if rows <= MOST_ROWS.max(depth / 2) {
        return multiply_few_rows(out, x, weight, depth);
    }
    let factors = [Matrix::rows(x, [rows, depth], depth), Matrix::rows(weight, [width, depth], depth).transposed()];
    multiply(out, width, 0.0, 1.0, factors, true);
}

fn multiply_few_rows(out: &mut [f32], x: &[f32], weight: &[f32], depth: usize) {
    let (rows, width) = (x.len() / depth, weight.len() / depth);
    assert!(x.len() == rows * depth && weight.len() == width * depth && out.len() == rows * width);
    let panel = width.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(PANEL);
    // Each task has its own columns of every row.
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..width.div_ceil(panel)).map(|_| Vec::with_capacity(rows)).collect();
    for row in out.chunks_exact_mut(width) {
        tasks.iter_mut().zip(row.chunks_mut(panel)).for_each(|(task, columns)| task.push(columns));
    }
    tasks.into_par_iter().enumerate().for_each(|(place, mut out)| {
        Arch::new().dispatch(Panel { out: &mut out, x, weight: &weight[place * panel * depth..], depth });
    });
}

/// Elements of a cache line.
const LINE: usize = 16;

/// Asks for values that will be read soon; a processor for which this has no way to ask gets them when it reads them.
#[inline(always)]
fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the instruction is part of every x86-64; it neither changes a value nor faults, whatever the address,
        // and this one points to a value that is borrowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// The columns of a product that belong to some rows of the weight.
struct Panel<'a, 'o> {
    out: &'a mut [&'o mut [f32]],
    x: &'a [f32],
    /// Begins with the panel's own rows and goes on with those of the next, likely the task's next panel.
    weight: &'a [f32],
    depth: usize,
}

impl WithSimd for Panel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // As many sums at once as the vector registers hold beside their operands.
        if size_of::<S::f32s>() >= 64 { self.run::<S, 6, 4>(simd) } else { self.run::<S, 4, 3>(simd) }
    }
}

impl Panel<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const X: usize, const W: usize>(&mut self, simd: S) {
        let depth = self.depth;
        // Some rows of `x` stay in the nearest cache while the weights of a tile pass by, which stay in the next.
        let tile = (TILE / depth).max(1).next_multiple_of(W);
        let (own, passes) = (self.out[0].len() * depth, self.out.len().div_ceil(X));
        for (start, weights) in self.weight[..own].chunks(tile * depth).enumerate() {
            // Meanwhile the next tile is fetched from memory, a share with every block.
            let next = &self.weight[(start * tile * depth + weights.len())..];
            let blocks = passes * weights.len().div_ceil(W * depth);
            let share = (tile * depth).div_ceil(blocks).next_multiple_of(LINE);
            let mut next = next[..next.len().min(tile * depth)].chunks(share);
            for (out, x) in self.out.chunks_mut(X).zip(self.x.chunks(X * depth)) {
                let x = block_of::<X>(x, depth);
                for (block, weights) in weights.chunks(W * depth).enumerate() {
                    if let Some(share) = next.next() {
                        prefetch(share);
                    }
                    let count = weights.len() / depth;
                    let products = products::<S, X, W>(simd, x, block_of(weights, depth));
                    let column = start * tile + block * W;
                    for (out, products) in out.iter_mut().zip(products) {
                        let out = &mut out[column..column + count];
                        match <&mut [f32; W]>::try_from(&mut *out) {
                            Ok(out) => *out = products,
                            Err(_) => out.copy_from_slice(&products[..count]),
                        }
                    }
                }
            }
        }
    }
}

/// The rows of a block; one that is not full repeats its last row, and what comes of the repetitions is not used.
#[inline(always)]
fn block_of<const N: usize>(rows: &[f32], depth: usize) -> [&[f32]; N] {
    let last = rows.len() / depth - 1;
    let mut block = [rows; N];
    for (i, row) in block.iter_mut().enumerate() {
        *row = &rows[i.min(last) * depth..][..depth];
    }
    block
}

/// The products of each of the rows `x` with each of the rows `weights`, all of one length.
///
/// Loops and no closures: only what is inlined is compiled for the vector instructions.
#[inline(always)]
fn products<S: Simd, const X: usize, const W: usize>(simd: S, x: [&[f32]; X], weights: [&[f32]; W]) -> [[f32; W]; X] {
    let length = S::as_simd_f32s(x[0]).0.len();
    let (mut x_vectors, mut w_vectors) = ([S::as_simd_f32s(x[0]).0; X], [S::as_simd_f32s(weights[0]).0; W]);
    for i in 0..X {
        x_vectors[i] = &S::as_simd_f32s(x[i]).0[..length];
    }
    for j in 0..W {
        w_vectors[j] = &S::as_simd_f32s(weights[j]).0[..length];
    }
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; W]; X];
    for place in 0..length {
        let mut weights = [zero; W];
        for j in 0..W {
            weights[j] = w_vectors[j][place];
        }
        for i in 0..X {
            let x = x_vectors[i][place];
            for j in 0..W {
                sums[i][j] = simd.mul_add_f32s(x, weights[j], sums[i][j]);
            }
        }
    }
    let mut products = [[0.0; W]; X];
    for i in 0..X {
        for j in 0..W {
            let mut sum = simd.reduce_sum_f32s(sums[i][j]);
            for (a, b) in S::as_simd_f32s(x[i]).1.iter().zip(S::as_simd_f32s(weights[j]).1) {
                sum += a * b;
            }
            products[i][j] = sum;
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_plain_sums_at_every_size() {
        let numbers = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect()
        };
        for (rows, depth, width) in [(1, 1, 1), (2, 3, 5), (7, 64, 33), (13, 100, 70), (40, 16, 257)] {
            let (x, weight) = (numbers(rows * depth, 1), numbers(width * depth, 2));
            let mut out = vec![f32::NAN; rows * width];
            multiply_few_rows(&mut out, &x, &weight, depth);
            for (i, x) in x.chunks(depth).enumerate() {
                for (j, weight) in weight.chunks(depth).enumerate() {
                    let plain: f32 = x.iter().zip(weight).map(|(a, b)| a * b).sum();
                    let got = out[i * width + j];
                    assert!((got - plain).abs() < 1e-4, "{rows} {depth} {width}: {got} instead of {plain}");
                }
            }
        }
    }
}
