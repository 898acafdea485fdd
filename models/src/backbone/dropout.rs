//! Dropout whose zeros depend on the seed, the step, the row and the place in it, and on nothing else: not on how a
//! batch is split, nor on where a run was resumed.

use burn::tensor::{Tensor, TensorData};
use rand::Rng;

use crate::random::generator;

/// Marks the generators of dropout.
const DROPOUT: u64 = 0x4452_4f50_0000_0000;

/// The row of what a batch's prompts have in common.
const HEAD: u64 = u64::MAX;

/// Which values a training step sets to zero: of the embeddings, and of what each attention and each MLP adds to the
/// residual stream (Srivastava et al., JMLR 15, 2014). Those that stay are scaled up, so that a sum keeps its
/// expectation.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Of 65,536 values so many are zero.
    rate: u16,
    seed: u64,
    step: u64,
    /// A number for each row that runs; none for the prefix that the batch shares.
    rows: Vec<u64>,
}

impl Dropout {
    /// The zeros of a step of the prefix that a batch shares, a share of `rate`, from 0 to below 1, of all values.
    pub fn new(rate: f64, seed: u64, step: usize) -> Self {
        let rate = (rate * 65_536.0).round().clamp(0.0, 65_535.0) as u16;
        Self { rate, seed, step: step as u64, rows: Vec::new() }
    }

    /// The zeros of the rows of these numbers, which name them in the whole batch.
    #[must_use]
    pub fn of_rows(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        Self { rows: rows.into_iter().map(|row| row as u64).collect(), ..self.clone() }
    }

    /// Sets values of `x`, `[tokens of all rows, d_model]`, to zero. Each row has its tokens' first position and their
    /// number; `site` is where in the model `x` lies.
    pub(super) fn apply(&self, x: Tensor<2>, starts: &[usize], lengths: &[usize], site: u64) -> Tensor<2> {
        let [places, d_model] = x.dims();
        let kept = 65_536.0 / (65_536.0 - f32::from(self.rate));
        let mut factors = Vec::with_capacity(places * d_model);
        let mut bytes = Vec::new();
        let share = lengths.len() / self.rows.len().max(1);
        for (row, (&start, &length)) in starts.iter().zip(lengths).enumerate() {
            let number = if self.rows.is_empty() { HEAD } else { self.rows[row / share] };
            // Samples of one row are told apart by the site.
            let site = site << 32 | ((row % share.max(1)) as u64) << 16 ^ start as u64;
            let mut generator = generator([self.seed ^ DROPOUT, self.step, number, site]);
            bytes.resize(2 * length * d_model, 0);
            generator.fill_bytes(&mut bytes);
            let factor = |pair: &[u8]| if u16::from_le_bytes([pair[0], pair[1]]) < self.rate { 0.0 } else { kept };
            factors.extend(bytes.chunks_exact(2).map(factor));
        }
        let factors = Tensor::<2>::from_data(TensorData::new(factors, [places, d_model]), &x.device().inner());
        let factors = if x.is_autodiff() { Tensor::from_inner(factors) } else { factors };
        x * factors
    }
}
