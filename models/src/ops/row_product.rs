//! The product of rows with a weight; for up to some hundred rows, without packing the weight.
//!
//! A general matrix product first copies its operands into the order in which its innermost loop reads them. For the
//! rows of a decoding step that copy of the weight costs more than the product. Here the weight is read as it lies,
//! once, and the few rows are laid side by side instead: a vector holds one element of many rows, and each weight
//! multiplies all of them.

use std::mem::MaybeUninit;
use std::sync::Mutex;

use pulp::{Arch, Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use super::values::{Matrix, product};

/// Up to how many rows this is faster than a product that packs the weight first.
const MOST_ROWS: usize = 384;

/// Rows of the weight that are dealt out together, or a multiple of it: whole blocks of every size that there is.
const SHARE: usize = 48;

/// Shares that a thread takes on average, so that all end at about the same time.
const SHARES_OF_A_THREAD: usize = 8;

/// `x W^T` of `x`, `[rows, depth]`, and `weight`, `[width, depth]`: `[rows, width]`, all in row-major order.
pub(super) fn multiply_by_rows(x: &[f32], weight: &[f32], depth: usize) -> Vec<f32> {
    let (rows, width) = (x.len() / depth, weight.len() / depth);
    if rows <= MOST_ROWS {
        return multiply_few_rows(x, weight, depth);
    }
    product([Matrix::rows(x, [rows, depth], depth), Matrix::rows(weight, [width, depth], depth).transposed()])
}

/// The same on the calling thread, for any number of rows, into `out`.
pub(super) fn multiply_by_rows_alone(out: &mut [f32], x: &[f32], weight: &[f32], depth: usize) {
    // SAFETY: the two types have the same layout, and what is written through the view, by `panel`, is initialised.
    let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) };
    let shares = Mutex::new(shares(out, x, weight, depth, weight.len() / depth));
    Arch::new().dispatch(Worker { shares: &shares, x, depth });
}

fn multiply_few_rows(x: &[f32], weight: &[f32], depth: usize) -> Vec<f32> {
    let (rows, width, workers) = (x.len() / depth, weight.len() / depth, rayon::current_num_threads());
    let columns = (width / (SHARES_OF_A_THREAD * workers) / SHARE * SHARE).max(SHARE);
    let mut product = Vec::with_capacity(rows * width);
    {
        let shares = Mutex::new(shares(spare(&mut product, rows * width), x, weight, depth, columns));
        (0..workers).into_par_iter().for_each(|_| Arch::new().dispatch(Worker { shares: &shares, x, depth }));
    }
    written(product, rows * width)
}

/// Room for so many elements, which are not filled first: for a few rows that pass would be a tenth of the time.
fn spare(product: &mut Vec<f32>, count: usize) -> &mut [MaybeUninit<f32>] {
    &mut product.spare_capacity_mut()[..count]
}

/// The product when its workers are done.
fn written(mut product: Vec<f32>, count: usize) -> Vec<f32> {
    assert!(count <= product.capacity(), "there is room for every element");
    // SAFETY: the capacity was just checked. The shares that `shares` deals out are all of the first `count` elements,
    // once each; the workers return only when no share is left, every share that one takes goes through `Share::run`,
    // which passes each of its rows to `panel` once, and `panel` writes every column of its rows. So all `count`
    // elements are initialised.
    unsafe { product.set_len(count) };
    product
}

/// Some columns of a product.
struct Share<'a, 'o> {
    /// The columns in each of the rows.
    out: Vec<&'o mut [MaybeUninit<f32>]>,
    weight: &'a [f32],
}

/// A product in shares of so many columns.
fn shares<'a, 'o>(
    out: &'o mut [MaybeUninit<f32>],
    x: &[f32],
    weight: &'a [f32],
    depth: usize,
    columns: usize,
) -> std::vec::IntoIter<Share<'a, 'o>> {
    let (rows, width) = (x.len() / depth, weight.len() / depth);
    assert!(x.len() == rows * depth && weight.len() == width * depth && out.len() == rows * width);
    let share = |weight| Share { out: Vec::with_capacity(rows), weight };
    let mut shares: Vec<Share> = weight.chunks(columns * depth).map(share).collect();
    for row in out.chunks_exact_mut(width) {
        shares.iter_mut().zip(row.chunks_mut(columns)).for_each(|(share, columns)| share.out.push(columns));
    }
    shares.into_iter()
}

/// A thread that takes shares as long as there are any.
struct Worker<'a, 'o> {
    shares: &'a Mutex<std::vec::IntoIter<Share<'a, 'o>>>,
    x: &'a [f32],
    depth: usize,
}

impl Worker<'_, '_> {
    fn take(&self) -> Option<Share<'_, '_>> {
        self.shares.lock().expect("nothing panics where a share is taken").next()
    }
}

impl WithSimd for Worker<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Some(mut share) = self.take() else { return };
        // Every thread for itself: to fetch the vectors from another core's cache takes longer.
        let x = side_by_side(simd, self.x, self.depth);
        loop {
            let next = self.take();
            let after = next.as_ref().map_or(share.weight, |next| next.weight);
            // As many sums at once as the registers hold beside their operands: AVX2 has 16, the others 32. One to
            // spare, for a sum that has to be kept in memory takes twice the time of all others together.
            if size_of::<S::f32s>() == 32 {
                share.run::<S, 2, 12, 6>(simd, &x, self.depth, after);
            } else {
                share.run::<S, 3, 16, 8>(simd, &x, self.depth, after);
            }
            match next {
                Some(next) => share = next,
                None => break,
            }
        }
    }
}

impl Share<'_, '_> {
    /// `x`: the rows side by side; `after`: the weight that will be read next; `MOST`: the vectors of rows in a block,
    /// at most 3; `FEW` and `MANY`: the weights that it takes at once where it has one vector, and where it has more.
    #[inline(always)]
    fn run<S: Simd, const MOST: usize, const FEW: usize, const MANY: usize>(
        &mut self,
        simd: S,
        x: &[S::f32s],
        depth: usize,
        after: &[f32],
    ) {
        let (mut out, mut x) = (&mut self.out[..], x);
        while !out.is_empty() {
            let vectors = match out.len().div_ceil(lanes::<S>()) {
                4 => 2,
                more => more.min(MOST),
            };
            let (own, others) = out.split_at_mut((vectors * lanes::<S>()).min(out.len()));
            let (own_x, others_x) = x.split_at(vectors * depth);
            match vectors {
                1 => panel::<S, 1, FEW>(simd, own, own_x, [self.weight, after], depth),
                2 => panel::<S, 2, MANY>(simd, own, own_x, [self.weight, after], depth),
                _ => panel::<S, 3, MANY>(simd, own, own_x, [self.weight, after], depth),
            }
            (out, x) = (others, others_x);
        }
    }
}

const fn lanes<S: Simd>() -> usize {
    size_of::<S::f32s>() / size_of::<f32>()
}

/// The most lanes of any vector.
const MOST_LANES: usize = 16;

/// The rows `x`, of length `depth`, in groups of as many as a vector has lanes: vector `k` of a group holds element `k`
/// of each of its rows. Where rows lack in the last group, its last row takes their lanes.
#[inline(always)]
fn side_by_side<S: Simd>(simd: S, x: &[f32], depth: usize) -> Vec<S::f32s> {
    let mut vectors = Vec::with_capacity((x.len() / depth).div_ceil(lanes::<S>()) * depth);
    for group in x.chunks(lanes::<S>() * depth) {
        let last = group.len() / depth - 1;
        let whole = depth - depth % lanes::<S>();
        for start in (0..whole).step_by(lanes::<S>()) {
            let mut square = [simd.splat_f32s(0.0); MOST_LANES];
            for i in 0..lanes::<S>() {
                square[i] = S::as_simd_f32s(&group[i.min(last) * depth + start..][..lanes::<S>()]).0[0];
            }
            transpose(simd, &mut square);
            vectors.extend_from_slice(&square[..lanes::<S>()]);
        }
        for place in whole..depth {
            let mut elements = [0.0; MOST_LANES];
            for i in 0..lanes::<S>() {
                elements[i] = group[i.min(last) * depth + place];
            }
            vectors.push(S::as_simd_f32s(&elements).0[0]);
        }
    }
    vectors
}

/// Exchanges rows and columns of a square of as many vectors as a vector has lanes, by halves, quarters and so on.
#[inline(always)]
fn transpose<S: Simd>(simd: S, square: &mut [S::f32s; MOST_LANES]) {
    let mut places = [0; MOST_LANES];
    for (i, place) in places.iter_mut().enumerate() {
        *place = i as u32;
    }
    let places = S::as_simd_u32s(&places).0[0];
    let mut half = lanes::<S>() / 2;
    while half > 0 {
        let right = simd.less_than_u32s(simd.splat_u32s(0), simd.and_u32s(places, simd.splat_u32s(half as u32)));
        for i in 0..lanes::<S>() {
            if i & half == 0 {
                let (upper, lower) = (square[i], square[i + half]);
                square[i] = simd.select_f32s(right, simd.rotate_right_f32s(lower, half), upper);
                square[i + half] = simd.select_f32s(right, lower, simd.rotate_left_f32s(upper, half));
            }
        }
        half /= 2;
    }
}

/// All columns of some rows `out`; `x` holds these rows side by side, in `R` groups.
#[inline(always)]
fn panel<S: Simd, const R: usize, const W: usize>(
    simd: S,
    out: &mut [&mut [MaybeUninit<f32>]],
    x: &[S::f32s],
    [weight, after]: [&[f32]; 2],
    depth: usize,
) {
    let mut groups = [x; R];
    for i in 0..R {
        groups[i] = &x[i * depth..][..depth];
    }
    let width = weight.len() / depth;
    for start in (0..width).step_by(W) {
        let next = if start + W < width { block_of(weight, start + W, depth) } else { block_of(after, 0, depth) };
        let weights = block_of(weight, start, depth);
        let sums: [[S::f32s; R]; W] = products(simd, groups, weights, next);
        let sums: &[f32] = bytemuck::cast_slice(sums.as_flattened());
        let count = W.min(width - start);
        for (i, out) in out.iter_mut().enumerate() {
            let out = &mut out[start..][..count];
            match <&mut [MaybeUninit<f32>; W]>::try_from(&mut *out) {
                Ok(out) => (0..W).for_each(|j| _ = out[j].write(sums[j * R * lanes::<S>() + i])),
                Err(_) => (0..count).for_each(|j| _ = out[j].write(sums[j * R * lanes::<S>() + i])),
            }
        }
    }
}

/// `W` rows of a weight from row `start` on; the last row stands for rows beyond it.
#[inline(always)]
fn block_of<const W: usize>(weight: &[f32], start: usize, depth: usize) -> [&[f32]; W] {
    let last = weight.len() / depth - 1;
    let mut block = [weight; W];
    for j in 0..W {
        block[j] = &weight[(start + j).min(last) * depth..][..depth];
    }
    block
}

/// Elements of a cache line.
const LINE: usize = 16;

/// The products of each row in the groups `x` with each of the rows `weights`; meanwhile the rows `next` are fetched
/// from memory.
///
/// Loops and no closures: only what is inlined is compiled for the vector instructions.
#[inline(always)]
fn products<S: Simd, const R: usize, const W: usize>(
    simd: S,
    x: [&[S::f32s]; R],
    weights: [&[f32]; W],
    next: [&[f32]; W],
) -> [[S::f32s; R]; W] {
    let depth = weights[0].len();
    let mut sums = [[simd.splat_f32s(0.0); R]; W];
    let whole = depth - depth % LINE;
    for start in (0..whole).step_by(LINE) {
        for row in &next {
            prefetch(&row[start]);
        }
        // Of a length that the compiler knows: it unrolls this loop.
        let (x, weights) = (within(x, start, LINE), within(weights, start, LINE));
        for place in 0..LINE {
            add_products(simd, &mut sums, x, weights, place);
        }
    }
    let (x, weights) = (within(x, whole, depth - whole), within(weights, whole, depth - whole));
    for place in 0..depth - whole {
        add_products(simd, &mut sums, x, weights, place);
    }
    sums
}

/// The same part of each of some rows.
#[inline(always)]
fn within<T, const N: usize>(rows: [&[T]; N], start: usize, length: usize) -> [&[T]; N] {
    let mut parts = rows;
    for i in 0..N {
        parts[i] = &rows[i][start..][..length];
    }
    parts
}

#[inline(always)]
fn add_products<S: Simd, const R: usize, const W: usize>(
    simd: S,
    sums: &mut [[S::f32s; R]; W],
    x: [&[S::f32s]; R],
    weights: [&[f32]; W],
    place: usize,
) {
    let mut elements = [simd.splat_f32s(0.0); R];
    for i in 0..R {
        elements[i] = x[i][place];
    }
    for j in 0..W {
        let weight = simd.splat_f32s(weights[j][place]);
        for i in 0..R {
            sums[j][i] = simd.mul_add_f32s(elements[i], weight, sums[j][i]);
        }
    }
}

/// Asks for the cache line of a value that will be read soon; a processor for which this has no way to ask gets it when
/// it reads it.
#[inline(always)]
fn prefetch(value: &f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the instruction is part of every x86-64; it neither changes a value nor faults, whatever the address,
        // and this one points to a value that is borrowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_plain_sums_at_every_size() {
        let numbers = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect()
        };
        for (rows, depth, width) in
            [(1, 1, 1), (2, 3, 5), (7, 64, 33), (13, 100, 70), (40, 16, 257), (64, 21, 20), (150, 48, 9)]
        {
            let (x, weight) = (numbers(rows * depth, 1), numbers(width * depth, 2));
            let out = multiply_few_rows(&x, &weight, depth);
            let mut alone = vec![f32::NAN; rows * width];
            multiply_by_rows_alone(&mut alone, &x, &weight, depth);
            assert!(out == alone, "{rows} {depth} {width}: the threads change the result");
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
