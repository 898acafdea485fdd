//! Rows of different lengths without their padding.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::move_rows::{RowMoves, move_rows};

/// The tokens of right-padded rows, one row after the other, with the padding left out. What works token by token works
/// on these; only the attention looks at rows. A clone is the same packing, so that a device is told of it once.
#[derive(Debug, Clone)]
pub struct Packing {
    lengths: Arc<[usize]>,
    tokens: usize,
    /// Absent if there is no padding.
    moves: Option<RowMoves>,
}

impl Packing {
    /// For rows of the given lengths, none above `tokens`, to which they are padded.
    pub fn new(lengths: &[usize], tokens: usize) -> Self {
        let is_padded = lengths.iter().any(|&length| length < tokens);
        let valid = |(row, &length): (usize, &usize)| row * tokens..row * tokens + length;
        let picked = || lengths.iter().enumerate().flat_map(valid).collect::<Vec<usize>>();
        Self {
            lengths: lengths.into(),
            tokens,
            moves: is_padded.then(|| RowMoves::pick(&picked(), lengths.len() * tokens)),
        }
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Tokens that the rows are padded to.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// `[rows * tokens, width]` without the padding, `[valid tokens, width]`.
    pub fn pack(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.moves {
            Some(moves) => move_rows(x, moves),
            None => x,
        }
    }

    /// `[valid tokens, width]` with zeros for the padding, `[rows * tokens, width]`.
    pub fn unpack(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.moves {
            Some(moves) => move_rows(x, &moves.back()),
            None => x,
        }
    }
}
