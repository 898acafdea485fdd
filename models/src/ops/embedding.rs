//! Rows of the embedding matrix.

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use super::route::FusedOps;

/// Embeddings `[tokens, width]` of the ids `[tokens]` from the matrix `[vocabulary, width]`.
pub fn embed(weight: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::embed(weight.into_dispatch(), ids.into_dispatch()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, device, random};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        let ids = || Tensor::<1, Int>::from_data([2, 0, 2, 5], &device());
        check_gradients([random([6, 4], 1)], |[weight]| embed(weight, ids()), |[weight]| weight.select(0, ids()));
    }
}
