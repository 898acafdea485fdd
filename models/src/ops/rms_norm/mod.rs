//! Root mean square norm.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "flex")]
mod kernel;

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

use super::route::routed;
use super::tape::{Operation, Run};
use crate::device::driver;

/// `x / sqrt(mean(x^2) + epsilon) * weight` for the rows of `x`, `[rows, width]`; `weight` is `[width]`.
///
/// # Panics
///
/// If `x` and `weight` differ in width, or the width is 0.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    check_width(&x, &weight);
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon))
}

fn check_width(x: &Tensor<2>, weight: &Tensor<1>) {
    assert!(weight.dims() == [x.dims()[1]] && weight.dims()[0] > 0, "the weight must be as wide as the rows");
}

routed! {
    trait RmsNormOps: Run<RmsNorm, 2> {
        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
            Self::run(RmsNorm { epsilon }, [x, weight])
        }
    }
}

/// `x + added`, both `[rows, width]`, and its [`rms_norm`].
///
/// # Panics
///
/// As [`rms_norm`], or if `x` and `added` differ in size.
pub fn norm_of_sum(x: Tensor<2>, added: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> [Tensor<2>; 2] {
    check_width(&x, &weight);
    assert_eq!(x.dims(), added.dims(), "what is added must be as large");
    #[cfg(feature = "gpu")]
    if norm_adds(&x) {
        return gpu::norm_of_sum(x, added, weight, epsilon);
    }
    let sum = x + added;
    [sum.clone(), rms_norm(sum, weight, epsilon)]
}

/// Whether one operation adds to `x` and norms the sum: on a GPU, where it saves launches. With gradient checkpointing
/// it does not, for what comes out of one operation with others is not computed again.
pub fn norm_adds(x: &Tensor<2>) -> bool {
    let checkpoints = x.gradient_checkpointing_strategy() == Some(GradientCheckpointingStrategy::Balanced);
    !checkpoints && driver(&x.device()).is_some()
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f64,
}

impl Operation<2> for RmsNorm {}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{FloatTensor, RmsNorm, Tensor};

    impl<B: Plain> Compute<B, 2> for RmsNorm {
        fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), B::float(weight), self.epsilon))
        }

        fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
            let [x, weight] = given.take_inputs();
            let (by_x, by_weight) = backward(B::float(x), B::float(weight), B::float(given.gradient), self.epsilon);
            [Some(B::primitive(by_x)), Some(B::primitive(by_weight))]
        }
    }

    /// See [`super::rms_norm`].
    pub fn forward(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
        x.clone() * inverse_rms(x, epsilon) * weight.unsqueeze()
    }

    fn backward(x: Tensor<2>, weight: Tensor<1>, gradient: Tensor<2>, epsilon: f64) -> (Tensor<2>, Tensor<1>) {
        let inverse = inverse_rms(x.clone(), epsilon);
        let normed = x * inverse.clone();
        let by_weight = (gradient.clone() * normed.clone()).sum_dim(0).squeeze_dim(0);
        let by_normed = gradient * weight.unsqueeze();
        let along = (by_normed.clone() * normed.clone()).mean_dim(1);
        ((by_normed - normed * along) * inverse, by_weight)
    }

    fn inverse_rms(x: Tensor<2>, epsilon: f64) -> Tensor<2> {
        x.square().mean_dim(1).add_scalar(epsilon).sqrt().recip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random, sizes};

    /// Of two numbers at least: the norm of one is 1 or -1, and its gradient nothing but rounding.
    fn rows() -> impl Iterator<Item = [usize; 2]> {
        sizes([300, 130]).map(|[rows, width]| [rows, width + 1])
    }

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for [rows, width] in rows() {
            let inputs = [random([rows, width], 1), random([1, width], 2)];
            check_gradients(
                inputs,
                |[x, weight]| rms_norm(x, weight.squeeze_dim(0), 1e-5),
                |[x, weight]| generic::forward(x, weight.squeeze_dim(0), 1e-5),
            );
        }
    }

    /// Of the sum, of its norm, and of both together.
    #[test]
    fn the_norm_of_a_sum_equals_the_generic_body_forward_and_backward() {
        let separately = |x, added, weight| {
            let sum: Tensor<2> = x + added;
            [sum.clone(), generic::forward(sum, weight, 1e-5)]
        };
        let reads = [[true, false], [false, true], [true, true]];
        for ([rows, width], read) in rows().zip(reads.into_iter().cycle()) {
            let all = |outputs: [Tensor<2>; 2], weight: Tensor<2>| {
                let read = outputs.into_iter().zip(read).filter_map(|(output, is_read)| is_read.then_some(output));
                // So that every input has a gradient.
                Tensor::cat(read.chain([weight]).collect(), 0)
            };
            let row = |weight: &Tensor<2>| weight.clone().squeeze_dim(0);
            check_gradients(
                [random([rows, width], 1), random([rows, width], 2), random([1, width], 3)],
                |[x, added, weight]| all(norm_of_sum(x, added, row(&weight), 1e-5), weight),
                |[x, added, weight]| all(separately(x, added, row(&weight)), weight),
            );
        }
    }
}
