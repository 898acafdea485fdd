//! The residual stream.

use burn::tensor::Tensor;

use super::layers::RmsNorm;
use crate::ops;

/// What the parts of blocks read, each after a norm, and add to: `[tokens, d_model]`. What was added last waits for the
/// norm that follows, which on a GPU adds it with the same kernel.
pub(crate) struct Residual {
    x: Tensor<2>,
    waiting: Option<Tensor<2>>,
}

impl Residual {
    /// The stream at the first block.
    pub(super) fn new(x: Tensor<2>) -> Self {
        Self { x, waiting: None }.checkpoint()
    }

    /// With the output of a part of a block.
    pub(super) fn plus(self, added: Tensor<2>) -> Self {
        Self { waiting: Some(added), x: self.sum() }
    }

    fn sum(self) -> Tensor<2> {
        match self.waiting {
            Some(added) => self.x + added,
            None => self.x,
        }
    }

    /// The same, which gradient checkpointing keeps.
    pub(super) fn checkpoint(self) -> Self {
        match self.waiting {
            Some(_) if ops::norm_adds(&self.x) => self,
            _ => Self { x: ops::checkpoint(self.sum()), waiting: None },
        }
    }

    /// The same, and its norm.
    pub(super) fn normed(self, norm: &RmsNorm) -> (Self, Tensor<2>) {
        let Self { x, waiting } = self;
        let [x, normed] = match waiting {
            Some(added) => norm.of_sum(x, added),
            None => [x.clone(), norm.forward(x)],
        };
        (Self { x, waiting: None }, normed)
    }
}
