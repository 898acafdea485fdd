//! Tensors of `flex` as slices, and matrix products of parts of them.

use burn::backend::flex::FlexTensor;
use burn::backend::{DType, TensorData, TensorMetadata};
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements that one task works on where an operation goes through a tensor from end to end.
pub(super) const PART: usize = 1 << 14;

/// The tensor with its values in row-major order and in float32; they are copied only if they lie otherwise or have 16
/// bits.
pub(super) fn in_order(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() {
        return tensor;
    }
    let tensor = tensor.to_contiguous();
    let widened = match tensor.dtype() {
        DType::BF16 => each(tensor.storage::<bf16>(), |value| value.to_f32()),
        DType::F16 => each(tensor.storage::<f16>(), |value| value.to_f32()),
        _ => return tensor,
    };
    FlexTensor::from_data(TensorData::new(widened, tensor.shape()))
}

/// What becomes of each value.
pub(super) fn each<T: Copy + Sync>(values: &[T], change: impl Fn(T) -> f32 + Sync) -> Vec<f32> {
    values.par_iter().with_min_len(PART).map(|&value| change(value)).collect()
}

/// The values of a tensor that is [`in_order`].
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the tensor is in order and of f32")
}

/// The values of a tensor of indices; -1 is `usize::MAX`.
pub(super) fn indices(tensor: &FlexTensor) -> Vec<usize> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I64 => tensor.storage::<i64>().iter().map(|&index| index as usize).collect(),
        DType::I32 => tensor.storage::<i32>().iter().map(|&index| index as usize).collect(),
        other => unreachable!("indices are made as i32 and kept as i64 or i32, not {other:?}"),
    }
}

/// Rows of `width` values, each a copy of what `row` gives for its source, or zeros; copied in threads.
pub(super) fn copies<'a, S: Copy + Sync>(
    sources: &[S],
    width: usize,
    row: impl Fn(S) -> Option<&'a [f32]> + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0; sources.len() * width];
    let part = PART.div_ceil(width);
    out.par_chunks_mut(part * width).zip(sources.par_chunks(part)).for_each(|(out, sources)| {
        for (out, &source) in out.chunks_exact_mut(width).zip(sources) {
            if let Some(row) = row(source) {
                out.copy_from_slice(row);
            }
        }
    });
    out
}

/// A tensor of the given values in row-major order.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, dims))
}

/// The dimensions of a tensor of known rank.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

/// A matrix within a slice: element `(i, j)` lies at `i * strides[0] + j * strides[1]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub size: [usize; 2],
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A matrix of rows that lie `row_stride` apart.
    pub fn rows(values: &'a [f32], size: [usize; 2], row_stride: usize) -> Self {
        Self { values, size, strides: [row_stride, 1] }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.size, self.strides);
        Self { values: self.values, size: [columns, rows], strides: [right, down] }
    }
}

/// `a b` in row-major order, spread over the threads.
///
/// The memory is not filled with zeros first: for large products that pass over it, on one thread, is a tenth of the
/// time.
pub(super) fn product([a, b]: [Matrix; 2]) -> Vec<f32> {
    let (rows, width, depth) = (a.size[0], b.size[1], a.size[1]);
    if depth == 0 {
        return vec![0.0; rows * width];
    }
    check([a, b], width, rows * width);
    let mut out: Vec<f32> = Vec::with_capacity(rows * width);
    // SAFETY: `check` shows that every element of `a` and `b` lies within its slice and that `rows * width` elements
    // have room for the product, which the vector reserved. Without the flag to read it, gemm writes every element of
    // the product and reads none, and there is a term to sum (`depth > 0`), so all elements are initialised when the
    // length is set.
    unsafe {
        run_gemm(out.as_mut_ptr(), width, 0.0, 1.0, [a, b], true);
        out.set_len(rows * width);
    }
    out
}

/// `out = keep * out + scale * a b`, where `out` has rows of `b`'s width that lie `row_stride` apart.
///
/// `threaded` spreads a single large product over the threads; products of which many run at once do without.
pub(super) fn multiply(out: &mut [f32], row_stride: usize, keep: f32, scale: f32, [a, b]: [Matrix; 2], threaded: bool) {
    check([a, b], row_stride, out.len());
    // SAFETY: `check` shows that every element `(i, j)` of the three matrices lies within its slice and that no two
    // elements of `out` are one; `out` is borrowed mutably, so that neither `a` nor `b` can overlap it.
    unsafe { run_gemm(out.as_mut_ptr(), row_stride, keep, scale, [a, b], threaded) }
}

/// Makes sure that two matrices and their product, in `room` elements with rows `row_stride` apart, lie within their
/// slices.
fn check([a, b]: [Matrix; 2], row_stride: usize, room: usize) {
    let ([m, k], n) = (a.size, b.size[1]);
    assert_eq!(b.size[0], k, "the inner dimensions of the product differ");
    let end = |size: [usize; 2], strides: [usize; 2]| {
        if size.contains(&0) { 0 } else { (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1] + 1 }
    };
    assert!(end(a.size, a.strides) <= a.values.len(), "the left matrix ends beyond its slice");
    assert!(end(b.size, b.strides) <= b.values.len(), "the right matrix ends beyond its slice");
    assert!(n <= row_stride || m <= 1, "the rows of the product overlap");
    assert!(end([m, n], [row_stride, 1]) <= room, "the product ends beyond its slice");
}

/// The product at `out`; where `keep` is 0, what is there is written and not read.
///
/// # Safety
///
/// [`check`] must hold, and the elements of the product must be valid to write, and where `keep` is not 0 initialised;
/// no other reference to them may exist.
unsafe fn run_gemm(out: *mut f32, row_stride: usize, keep: f32, scale: f32, [a, b]: [Matrix; 2], threaded: bool) {
    let parallelism = if threaded { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: as the caller promises.
    unsafe {
        gemm::gemm(
            a.size[0],
            b.size[1],
            a.size[1],
            out,
            1,
            row_stride as isize,
            keep != 0.0,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            keep,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`multiply`] as the sum it stands for.
    fn multiply_safely(out: &mut [f32], row_stride: usize, keep: f32, scale: f32, [a, b]: [Matrix; 2]) {
        let at = |matrix: Matrix, i: usize, j: usize| matrix.values[i * matrix.strides[0] + j * matrix.strides[1]];
        for i in 0..a.size[0] {
            for j in 0..b.size[1] {
                let sum: f32 = (0..a.size[1]).map(|l| at(a, i, l) * at(b, l, j)).sum();
                let kept = if keep == 0.0 { 0.0 } else { keep * out[i * row_stride + j] };
                out[i * row_stride + j] = kept + scale * sum;
            }
        }
    }

    #[test]
    fn products_equal_their_safe_twin() {
        let numbers = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect()
        };
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 9, 33), (70, 64, 40), (2, 0, 3)] {
            for threaded in [false, true] {
                for (keep, scale) in [(0.0, 1.0), (1.0, 0.5)] {
                    let (a, b) = (numbers(m * (k + 3), 1), numbers(n * (k + 1), 2));
                    let factors = [Matrix::rows(&a, [m, k], k + 3), Matrix::rows(&b, [n, k], k + 1).transposed()];
                    let mut whole = vec![0.0; m * n];
                    multiply_safely(&mut whole, n, 0.0, 1.0, factors);
                    for (x, y) in product(factors).iter().zip(&whole) {
                        assert!((x - y).abs() < 1e-4, "{m} {k} {n}: {x} {y}");
                    }
                    let mut out = numbers(m * (n + 2), 3);
                    let mut twin = out.clone();
                    multiply(&mut out, n + 2, keep, scale, factors, threaded);
                    multiply_safely(&mut twin, n + 2, keep, scale, factors);
                    for (x, y) in out.iter().zip(&twin) {
                        assert!((x - y).abs() < 1e-4, "{m} {k} {n}: {x} {y}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond its slice")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let a = [0.0; 5];
        multiply(&mut [0.0; 4], 2, 0.0, 1.0, [Matrix::rows(&a, [2, 3], 3), Matrix::rows(&a, [3, 2], 2)], false);
    }
}
