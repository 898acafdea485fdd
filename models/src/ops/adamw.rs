//! The optimiser's update of one parameter.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// The numbers of one step of AdamW.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// What the gradient is multiplied by first, to clip it.
    pub gradient_factor: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of the step, from 1, by which the moments' bias is corrected.
    pub number: u32,
}

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on one parameter: the moved value and its first and second moments.
///
/// All are matrices of one size. Nothing here is differentiable.
///
/// # Panics
///
/// If they are not of one size.
pub fn adamw(
    value: Tensor<2>,
    gradient: Tensor<2>,
    [first, second]: [Tensor<2>; 2],
    step: AdamWStep,
) -> (Tensor<2>, [Tensor<2>; 2]) {
    let size = value.dims();
    assert!([&gradient, &first, &second].iter().all(|x| x.dims() == size), "all tensors must have the shape {size:?}");
    let (value, first, second) = Dispatch::adamw(
        value.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(value), [first, second].map(Tensor::from_dispatch))
}

/// Routes the update to the backend of its tensors.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
)]
trait AdamWOps: Backend {
    fn adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AdamWStep {
    /// What the value is multiplied by, the size of the step, and what the root of the second moment is multiplied by.
    fn factors(&self) -> [f64; 3] {
        let correction = |beta: f64| 1.0 - beta.powf(f64::from(self.number));
        let keep = 1.0 - self.learning_rate * self.weight_decay;
        [keep, self.learning_rate / correction(self.beta1), correction(self.beta2).sqrt().recip()]
    }
}

mod generic {
    use super::super::route::Plain;
    use super::{AdamWOps, AdamWStep, FloatTensor, Tensor};

    impl<B: Plain> AdamWOps for B {
        fn adamw(
            value: FloatTensor<B>,
            gradient: FloatTensor<B>,
            first: FloatTensor<B>,
            second: FloatTensor<B>,
            step: AdamWStep,
        ) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
            update([value, gradient, first, second].map(B::float), step).map(B::primitive).into()
        }
    }

    /// The moved value and the moments of a value, its gradient and its moments.
    pub fn update([value, gradient, first, second]: [Tensor<2>; 4], step: AdamWStep) -> [Tensor<2>; 3] {
        let [keep, rate, root_factor] = step.factors();
        let gradient = gradient.mul_scalar(step.gradient_factor);
        let first = first.mul_scalar(step.beta1) + gradient.clone().mul_scalar(1.0 - step.beta1);
        let second = second.mul_scalar(step.beta2) + gradient.square().mul_scalar(1.0 - step.beta2);
        let root = second.clone().sqrt().mul_scalar(root_factor).add_scalar(step.epsilon);
        let value = value.mul_scalar(keep) - first.clone().mul_scalar(rate) / root;
        [value, first, second]
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::simd::vectorized;
    use super::super::values::{PART, values};
    use super::{AdamWOps, AdamWStep};

    impl AdamWOps for Flex {
        fn adamw(
            value: FlexTensor,
            gradient: FlexTensor,
            first: FlexTensor,
            second: FlexTensor,
            step: AdamWStep,
        ) -> (FlexTensor, FlexTensor, FlexTensor) {
            update([value, gradient, first, second], step)
        }
    }

    fn update(tensors: [FlexTensor; 4], step: AdamWStep) -> (FlexTensor, FlexTensor, FlexTensor) {
        // What is changed in place has to begin where its storage does.
        let [mut value, gradient, mut first, mut second] = tensors.map(|x| x.to_contiguous());
        let factor = step.gradient_factor as f32;
        let [keep, rate, root_factor] = step.factors().map(|factor| factor as f32);
        let [beta1, beta2, epsilon] = [step.beta1, step.beta2, step.epsilon].map(|x| x as f32);
        let [rest1, rest2] = [step.beta1, step.beta2].map(|beta| (1.0 - beta) as f32);
        let state =
            first.storage_mut::<f32>().par_chunks_mut(PART).zip(second.storage_mut::<f32>().par_chunks_mut(PART));
        let parts = value.storage_mut::<f32>().par_chunks_mut(PART).zip(values(&gradient).par_chunks(PART)).zip(state);
        parts.for_each(|((value, gradient), (first, second))| {
            vectorized(
                #[inline(always)]
                || {
                    for (((value, gradient), first), second) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                        let gradient = gradient * factor;
                        *first = *first * beta1 + gradient * rest1;
                        *second = *second * beta2 + gradient * gradient * rest2;
                        *value = *value * keep - *first * rate / (second.sqrt() * root_factor + epsilon);
                    }
                },
            );
        });
        (value, first, second)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, in_order, own};
    use super::{AdamWOps, AdamWStep};

    impl AdamWOps for Cube {
        fn adamw(
            value: CubeTensor,
            gradient: CubeTensor,
            first: CubeTensor,
            second: CubeTensor,
            step: AdamWStep,
        ) -> (CubeTensor, CubeTensor, CubeTensor) {
            let [value, first, second] = [value, first, second].map(own);
            let gradient = in_order(gradient);
            let elements = gradient.meta.num_elements();
            let (count, dim) = elements_on(&value, elements);
            let [keep, rate, root_factor] = step.factors().map(|factor| factor as f32);
            update::launch(
                &value.client,
                count,
                dim,
                argument(&value),
                argument(&first),
                argument(&second),
                argument(&gradient),
                elements,
                step.gradient_factor as f32,
                step.beta1 as f32,
                (1.0 - step.beta1) as f32,
                step.beta2 as f32,
                (1.0 - step.beta2) as f32,
                step.epsilon as f32,
                keep,
                rate,
                root_factor,
            );
            (value, first, second)
        }
    }

    #[cube(launch)]
    fn update(
        value: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
        elements: usize,
        factor: f32,
        beta1: f32,
        rest1: f32,
        beta2: f32,
        rest2: f32,
        epsilon: f32,
        keep: f32,
        rate: f32,
        root_factor: f32,
    ) {
        let i = ABSOLUTE_POS;
        if i < elements {
            let gradient = gradient[i] * factor;
            let moment = first[i] * beta1 + gradient * rest1;
            let square = second[i] * beta2 + gradient * gradient * rest2;
            first[i] = moment;
            second[i] = square;
            value[i] = value[i] * keep - moment * rate / (square.sqrt() * root_factor + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{random, same, sizes};

    #[test]
    fn equals_the_generic_body() {
        let steps = [(1, 0.0), (3, 0.1), (1000, 0.0)];
        for (size, (number, weight_decay)) in sizes([300, 200]).zip(steps.into_iter().cycle()) {
            let step = AdamWStep {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                learning_rate: 0.01,
                gradient_factor: 0.7,
                weight_decay,
                number,
            };
            let tensors = [random(size, 1), random(size, 2), random(size, 3), random(size, 4).square()];
            let expected = generic::update(tensors.clone(), step);
            let [value, gradient, first, second] = tensors;
            let (value, [first, second]) = adamw(value, gradient, [first, second], step);
            for (ours, expected) in [value, first, second].into_iter().zip(expected) {
                same(&ours, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn what_others_hold_stays_as_it_is() {
        let step = AdamWStep {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            learning_rate: 0.1,
            gradient_factor: 1.0,
            weight_decay: 0.0,
            number: 1,
        };
        let value = random([4, 4], 1);
        let kept = value.to_data();
        let zeros = value.zeros_like();
        let (moved, _) = adamw(value.clone(), random([4, 4], 2), [zeros.clone(), zeros.clone()], step);
        value.to_data().assert_eq(&kept, true);
        assert_ne!(moved.to_data(), kept);
        assert_eq!(zeros.sum().into_scalar::<f32>(), 0.0);
    }
}
