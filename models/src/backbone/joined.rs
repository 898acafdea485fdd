//! Projections of one input as one, which takes a GPU one product instead of several. A CPU gains nothing by it.

use burn::tensor::Tensor;

pub use self::on_gpus::Joined;
use super::layers::Linear;
use super::rope::RopeAngles;
#[cfg(feature = "gpu")]
use crate::Precision;
use crate::ops::Packing;

#[cfg(feature = "gpu")]
mod on_gpus {
    use burn::tensor::FloatDType;

    use super::{Linear, Packing, Precision, RopeAngles, Tensor};
    use crate::ops::{HeadSizes, add_bias, join_three, join_two, project, split_heads, swiglu_of_halves};

    /// Projections of one input, their outputs one after the other.
    #[derive(Debug, Clone)]
    pub struct Joined {
        /// `[d_output of all, d_input]`.
        weight: Tensor<2>,
        /// `[d_output of all]`.
        bias: Option<Tensor<1>>,
        precision: Precision,
    }

    fn below_one_another(matrices: Vec<Tensor<2>>) -> Option<Tensor<2>> {
        let mut matrices = matrices.into_iter();
        assert!(matrices.len() <= 3, "a layer has at most three projections of one input");
        Some(match (matrices.next()?, matrices.next()?, matrices.next()) {
            (a, b, None) => join_two(a, b),
            (a, b, Some(c)) => join_three(a, b, c),
        })
    }

    impl Joined {
        /// The projections of a model on a GPU as one; `None` where one is adapted or kept in 16 bits.
        pub(in crate::backbone) fn new(projections: &[&Linear]) -> Option<Self> {
            let is_plain = |projection: &&Linear| {
                projection.weight.adapter().is_none() && projection.weight.val().dtype() == FloatDType::F32.into()
            };
            let biases = projections.iter().map(|projection| projection.bias.as_ref().map(|bias| bias.val()));
            let biases: Vec<_> = biases.flatten().collect();
            if !projections.iter().all(is_plain) || ![0, projections.len()].contains(&biases.len()) {
                return None;
            }
            let as_column = |bias: Tensor<1>| bias.unsqueeze_dim::<2>(1);
            Some(Self {
                weight: below_one_another(projections.iter().map(|projection| projection.weight.val()).collect())?,
                bias: below_one_another(biases.into_iter().map(as_column).collect()).map(|bias| bias.squeeze_dim(1)),
                precision: projections[0].precision,
            })
        }

        /// Queries `[tokens, heads, head_dim]`, and keys and values `[rows, longest row, kv_heads, head_dim]`, of `x`,
        /// `[tokens, d_model]`; `rotates` says whether queries and keys are rotated.
        pub(in crate::backbone) fn heads(
            &self,
            x: Tensor<2>,
            packing: &Packing,
            (angles, rotates): (&RopeAngles, bool),
            [heads, key_heads, width]: [usize; 3],
        ) -> (Tensor<3>, [Tensor<4>; 2]) {
            let device = x.device();
            let product = project(x, self.weight.clone(), self.precision);
            let sizes = HeadSizes { heads, key_heads, width, rotates };
            split_heads(product, self.bias.clone(), angles.cos_and_sin(&device), packing, sizes)
        }

        /// `silu(gate(x)) * up(x)` of `x`, `[tokens, d_model]`: `[tokens, d_ff]`.
        pub(in crate::backbone) fn swiglu(&self, x: Tensor<2>) -> Tensor<2> {
            let product = project(x, self.weight.clone(), self.precision);
            swiglu_of_halves(match &self.bias {
                Some(bias) => add_bias(product, bias.clone()),
                None => product,
            })
        }
    }
}

#[cfg(not(feature = "gpu"))]
mod on_gpus {
    use super::{Linear, Packing, RopeAngles, Tensor};

    /// There are none.
    #[derive(Debug, Clone)]
    pub enum Joined {}

    impl Joined {
        pub(in crate::backbone) fn new(_: &[&Linear]) -> Option<Self> {
            None
        }

        pub(in crate::backbone) fn heads(
            &self,
            _: Tensor<2>,
            _: &Packing,
            _: (&RopeAngles, bool),
            _: [usize; 3],
        ) -> (Tensor<3>, [Tensor<4>; 2]) {
            match *self {}
        }

        pub(in crate::backbone) fn swiglu(&self, _: Tensor<2>) -> Tensor<2> {
            match *self {}
        }
    }
}
