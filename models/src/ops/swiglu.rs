//! The gated activation of the MLP.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{Operation, Run};

/// `silu(gate) * up` (Shazeer, arXiv 2002.05202), element by element; both are `[rows, width]`.
///
/// # Panics
///
/// If they are not of one size.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gate and up must have the same shape");
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

routed! {
    trait SwigluOps: Run<Swiglu, 2> {
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(Swiglu, [gate, up])
        }
    }
}

#[derive(Debug, Clone)]
struct Swiglu;

impl Operation<2> for Swiglu {}

pub(super) mod generic {
    use burn::tensor::activation::{sigmoid, silu};

    use super::super::route::Plain;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{FloatTensor, Swiglu, Tensor};

    impl<B: Plain> Compute<B, 2> for Swiglu {
        fn forward(&self, [gate, up]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
            B::primitive(forward(B::float(gate), B::float(up)))
        }

        fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
            backward(given.take_inputs().map(B::float), B::float(given.gradient)).map(|by| Some(B::primitive(by)))
        }
    }

    /// See [`super::swiglu`].
    pub fn forward(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        silu(gate) * up
    }

    fn backward([gate, up]: [Tensor<2>; 2], gradient: Tensor<2>) -> [Tensor<2>; 2] {
        let open = sigmoid(gate.clone());
        let by_up = gradient.clone() * gate.clone() * open.clone();
        // silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g)
        let slope = open.clone() * (gate * (open.neg() + 1.0) + 1.0);
        [gradient * up * slope, by_up]
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::simd::{exp, vectorized};
    use super::super::tape::{BackwardInputs, Compute};
    use super::super::values::{PART, dims, in_order, tensor, values};
    use super::Swiglu;

    impl Compute<Flex, 2> for Swiglu {
        fn forward(&self, inputs: [FlexTensor; 2]) -> FlexTensor {
            forward(inputs)
        }

        fn gradients(self, mut given: BackwardInputs<Flex, 2>) -> [Option<FlexTensor>; 2] {
            backward(given.take_inputs(), given.gradient).map(Some)
        }
    }

    fn forward(inputs: [FlexTensor; 2]) -> FlexTensor {
        let [gate, up] = inputs.map(in_order);
        let size: [usize; 2] = dims(&gate);
        let mut out = vec![0.0; size[0] * size[1]];
        let inputs = values(&gate).par_chunks(PART).zip(values(&up).par_chunks(PART));
        out.par_chunks_mut(PART).zip(inputs).for_each(|(out, (gate, up))| {
            vectorized(
                #[inline(always)]
                || {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = gate / (1.0 + exp(-gate)) * up;
                    }
                },
            );
        });
        tensor(out, size)
    }

    fn backward([gate, up]: [FlexTensor; 2], gradient: FlexTensor) -> [FlexTensor; 2] {
        let [gate, up, gradient] = [gate, up, gradient].map(in_order);
        let size: [usize; 2] = dims(&gate);
        let (mut by_gate, mut by_up) = (vec![0.0; size[0] * size[1]], vec![0.0; size[0] * size[1]]);
        let inputs = values(&gate).par_chunks(PART).zip(values(&up).par_chunks(PART));
        let outputs = by_gate.par_chunks_mut(PART).zip(by_up.par_chunks_mut(PART));
        outputs.zip(inputs).zip(values(&gradient).par_chunks(PART)).for_each(
            |(((by_gate, by_up), (gate, up)), gradient)| {
                vectorized(
                    #[inline(always)]
                    || {
                        let outputs = by_gate.iter_mut().zip(by_up);
                        for (((by_gate, by_up), gradient), (gate, up)) in outputs.zip(gradient).zip(gate.iter().zip(up))
                        {
                            let open = 1.0 / (1.0 + exp(-gate));
                            *by_up = gradient * gate * open;
                            *by_gate = gradient * up * open * (1.0 + gate * (1.0 - open));
                        }
                    },
                );
            },
        );
        [tensor(by_gate, size), tensor(by_up, size)]
    }
}

#[cfg(feature = "gpu")]
pub use gpu::swiglu_of_halves;

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Cube, Dispatch};
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order};
    use super::super::route::routed_to_gpus;
    use super::super::tape::{BackwardInputs, Compute, Operation, Run};
    use super::Swiglu;

    /// [`swiglu`](super::swiglu) of the two halves of each row of `x`, `[rows, 2 * width]`.
    ///
    /// # Panics
    ///
    /// If a row has no halves, or on a CPU.
    pub fn swiglu_of_halves(x: Tensor<2>) -> Tensor<2> {
        assert!(x.dims()[1].is_multiple_of(2) && !x.dims().contains(&0), "{:?} has no halves", x.dims());
        Tensor::from_dispatch(Dispatch::swiglu_of_halves(x.into_dispatch()))
    }

    routed_to_gpus! {
        trait SwigluOfHalvesOps: Run<SwigluOfHalves, 1> {
            fn swiglu_of_halves(x: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::run(SwigluOfHalves, [x])
            }
        }
    }

    /// See [`swiglu_of_halves`].
    #[derive(Debug, Clone)]
    pub struct SwigluOfHalves;

    impl Operation<1> for SwigluOfHalves {}

    impl Compute<Cube, 1> for SwigluOfHalves {
        fn forward(&self, [x]: [CubeTensor; 1]) -> CubeTensor {
            let x = in_order(x);
            let [rows, both] = x.meta.shape().dims();
            let out = empty_beside(&x, [rows, both / 2]);
            let (count, dim) = elements_on(&x, rows * both / 2);
            forward_of_halves::launch(&x.client, count, dim, argument(&x), argument(&out), rows * both / 2, both / 2);
            out
        }

        fn gradients(self, mut given: BackwardInputs<Cube, 1>) -> [Option<CubeTensor>; 1] {
            let [x] = given.take_inputs().map(in_order);
            let gradient = in_order(given.gradient);
            let [rows, both] = x.meta.shape().dims();
            let out = empty_beside(&x, [rows, both]);
            let (count, dim) = elements_on(&x, rows * both / 2);
            backward_of_halves::launch(
                &x.client,
                count,
                dim,
                argument(&x),
                argument(&gradient),
                argument(&out),
                rows * both / 2,
                both / 2,
            );
            [Some(out)]
        }
    }

    impl Compute<Cube, 2> for Swiglu {
        fn forward(&self, inputs: [CubeTensor; 2]) -> CubeTensor {
            let [gate, up] = inputs.map(in_order);
            let [rows, width] = gate.meta.shape().dims();
            let out = empty_beside(&gate, [rows, width]);
            let (count, dim) = elements_on(&gate, rows * width);
            let arguments = [&gate, &up, &out].map(argument);
            let [gate_values, up, out_values] = arguments;
            forward::launch(&gate.client, count, dim, gate_values, up, out_values, rows * width);
            out
        }

        fn gradients(self, mut given: BackwardInputs<Cube, 2>) -> [Option<CubeTensor>; 2] {
            let [gate, up] = given.take_inputs().map(in_order);
            let gradient = in_order(given.gradient);
            let [rows, width] = gate.meta.shape().dims();
            let outputs = [(); 2].map(|()| empty_beside(&gate, [rows, width]));
            let (count, dim) = elements_on(&gate, rows * width);
            backward::launch(
                &gate.client,
                count,
                dim,
                argument(&gate),
                argument(&up),
                argument(&gradient),
                argument(&outputs[0]),
                argument(&outputs[1]),
                rows * width,
            );
            outputs.map(Some)
        }
    }

    #[cube]
    fn gated(gate: f32, up: f32) -> f32 {
        gate / (1.0 + (-gate).exp()) * up
    }

    /// The gradients by `gate` and `up`.
    #[cube]
    fn back(gate: f32, up: f32, gradient: f32) -> (f32, f32) {
        let open = 1.0 / (1.0 + (-gate).exp());
        (gradient * up * open * (1.0 + gate * (1.0 - open)), gradient * gate * open)
    }

    #[cube(launch)]
    fn forward(gate: &[f32], up: &[f32], out: &mut [f32], elements: usize) {
        if ABSOLUTE_POS < elements {
            out[ABSOLUTE_POS] = gated(gate[ABSOLUTE_POS], up[ABSOLUTE_POS]);
        }
    }

    #[cube(launch)]
    fn forward_of_halves(x: &[f32], out: &mut [f32], elements: usize, width: usize) {
        if ABSOLUTE_POS < elements {
            // Before a row's first half lie both halves of the rows before it.
            let gate = ABSOLUTE_POS + ABSOLUTE_POS / width * width;
            out[ABSOLUTE_POS] = gated(x[gate], x[gate + width]);
        }
    }

    #[cube(launch)]
    fn backward_of_halves(x: &[f32], gradient: &[f32], out: &mut [f32], elements: usize, width: usize) {
        if ABSOLUTE_POS < elements {
            let gate = ABSOLUTE_POS + ABSOLUTE_POS / width * width;
            let (by_gate, by_up) = back(x[gate], x[gate + width], gradient[ABSOLUTE_POS]);
            out[gate] = by_gate;
            out[gate + width] = by_up;
        }
    }

    #[cube(launch)]
    fn backward(gate: &[f32], up: &[f32], gradient: &[f32], by_gate: &mut [f32], by_up: &mut [f32], elements: usize) {
        if ABSOLUTE_POS < elements {
            let (of_gate, of_up) = back(gate[ABSOLUTE_POS], up[ABSOLUTE_POS], gradient[ABSOLUTE_POS]);
            by_gate[ABSOLUTE_POS] = of_gate;
            by_up[ABSOLUTE_POS] = of_up;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random, sizes};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for size in sizes([300, 130]) {
            let inputs = [random(size, 1).mul_scalar(4.0), random(size, 2)];
            check_gradients(inputs.clone(), |[gate, up]| swiglu(gate, up), |[gate, up]| generic::forward(gate, up));
            #[cfg(feature = "gpu")]
            if crate::ops::testing::on_gpu() {
                let joined = |[gate, up]: [Tensor<2>; 2]| swiglu_of_halves(Tensor::cat(vec![gate, up], 1));
                check_gradients(inputs, joined, |[gate, up]| generic::forward(gate, up));
            }
        }
    }
}
