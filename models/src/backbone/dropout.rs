//! Dropout whose zeros depend on the seed, the step, the row and the place in it, and on nothing else: not on how a
//! batch is split, nor on where a run was resumed.

use std::sync::Arc;

use burn::tensor::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::host;
use crate::ops::WeightFactors;
use crate::random::generator;

/// Marks the generators of dropout.
const DROPOUT: u64 = 0x4452_4f50_0000_0000;

/// Marks those of the weights of attention among them.
const WEIGHTS: u64 = 1 << 24;

/// The row of what a batch's prompts have in common.
const PREFIX: u64 = u64::MAX;

/// Which values a training step sets to zero: of the embeddings, and of what each attention and each MLP adds to the
/// residual stream (Srivastava et al., JMLR 15, 2014), and of the weights within each attention (Vaswani et al., arXiv
/// 1706.03762). Those that stay are scaled up, so that a sum keeps its expectation.
#[derive(Debug, Clone)]
pub struct Dropout {
    values: Share,
    weights: Share,
    seed: u64,
    step: u64,
    /// A number for each row that runs; none for the prefix that the batch shares.
    rows: Vec<u64>,
}

/// Of 65,536 values so many are zero.
#[derive(Debug, Clone, Copy)]
struct Share(u16);

impl Share {
    fn new(rate: f64) -> Self {
        Self((rate * 65_536.0).round().clamp(0.0, 65_535.0) as u16)
    }

    /// What the values that stay are multiplied by.
    fn kept(self) -> f32 {
        65_536.0 / (65_536.0 - f32::from(self.0))
    }

    /// Draws factors for values.
    fn draw(self, generator: &mut ChaCha8Rng, bytes: &mut Vec<u8>, factors: &mut [f32]) {
        bytes.resize(2 * factors.len(), 0);
        generator.fill_bytes(bytes);
        for (factor, pair) in factors.iter_mut().zip(bytes.chunks_exact(2)) {
            *factor = if u16::from_le_bytes([pair[0], pair[1]]) < self.0 { 0.0 } else { self.kept() };
        }
    }
}

impl Dropout {
    /// The zeros of a step of the prefix that a batch shares: a share of `rate`, from 0 to below 1, of all values, and
    /// of `attention` of the attentions' weights.
    pub fn new(rate: f64, attention: f64, seed: u64, step: usize) -> Self {
        Self { values: Share::new(rate), weights: Share::new(attention), seed, step: step as u64, rows: Vec::new() }
    }

    /// The zeros of the rows of these numbers, which name them in the whole batch.
    #[must_use]
    pub fn of_rows(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        Self { rows: rows.into_iter().map(|row| row as u64).collect(), ..self.clone() }
    }

    /// The generator of a row of `rows`, whose first token has the position `start`, for a site of the model.
    fn generator(&self, row: usize, rows: usize, start: usize, site: u64) -> ChaCha8Rng {
        let share = (rows / self.rows.len().max(1)).max(1);
        let number = if self.rows.is_empty() { PREFIX } else { self.rows[row / share] };
        // Samples of one row are told apart by the site.
        let site = site << 32 | ((row % share) as u64) << 16 ^ start as u64;
        generator([self.seed ^ DROPOUT, self.step, number, site])
    }
}

/// The rows that run through the model together: their first tokens' positions and numbers of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped<'a> {
    pub dropout: Option<&'a Dropout>,
    pub starts: &'a [usize],
    pub lengths: &'a [usize],
}

impl Dropped<'_> {
    /// Sets values of the embeddings `x`, `[tokens of all rows, d_model]`, to zero.
    pub fn embeddings(&self, x: Tensor<2>) -> Tensor<2> {
        self.values(x, 0)
    }

    fn values(&self, x: Tensor<2>, site: u64) -> Tensor<2> {
        let Some(dropout) = self.dropout.filter(|dropout| dropout.values.0 > 0) else {
            return x;
        };
        let [places, d_model] = x.dims();
        let mut factors = vec![0.0; places * d_model];
        let (mut rest, mut bytes) = (factors.as_mut_slice(), Vec::new());
        for (row, (&start, &length)) in self.starts.iter().zip(self.lengths).enumerate() {
            let (of_row, others) = rest.split_at_mut(length * d_model);
            let mut generator = dropout.generator(row, self.lengths.len(), start, site);
            dropout.values.draw(&mut generator, &mut bytes, of_row);
            rest = others;
        }
        let device = x.device();
        x * host::floats(factors, [places, d_model], &device)
    }
}

/// [`Dropped`] in a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerDropped<'a> {
    pub(super) rows: Dropped<'a>,
    pub(super) layer: u64,
}

impl LayerDropped<'_> {
    /// Sets values of what the attention adds, `[tokens of all rows, d_model]`, to zero.
    pub fn attended(&self, x: Tensor<2>) -> Tensor<2> {
        self.rows.values(x, 1 + 2 * self.layer)
    }

    /// Sets values of what the MLP adds to zero.
    pub fn added(&self, x: Tensor<2>) -> Tensor<2> {
        self.rows.values(x, 2 + 2 * self.layer)
    }

    /// What the weights of so many heads for the keys of a segment, `[segment rows, length, ..]`, are multiplied by. In
    /// each row of the segment the first `seen` keys are seen; absent, a query sees those up to its own place.
    pub fn weights(&self, heads: usize, keys: &Tensor<4>, seen: Option<&[usize]>, segment: usize) -> WeightFactors {
        let Dropped { dropout, starts, lengths } = self.rows;
        let dropout = dropout.filter(|dropout| dropout.weights.0 > 0)?;
        let [segment_rows, length, ..] = keys.dims();
        let share = lengths.len() / segment_rows;
        let site = WEIGHTS + (self.layer << 8) + segment as u64;
        let mut factors = vec![0.0; lengths.iter().sum::<usize>() * heads * length];
        let (mut rest, mut bytes) = (factors.as_mut_slice(), Vec::new());
        for (row, (&start, &tokens)) in starts.iter().zip(lengths).enumerate() {
            let (of_row, others) = rest.split_at_mut(tokens * heads * length);
            let mut generator = dropout.generator(row, lengths.len(), start, site);
            for (place, of_head) in of_row.chunks_mut(length).enumerate() {
                let seen = seen.map_or(place / heads + 1, |seen| seen[row / share]);
                dropout.weights.draw(&mut generator, &mut bytes, &mut of_head[..seen]);
            }
            rest = others;
        }
        Some(Arc::new(factors))
    }
}
