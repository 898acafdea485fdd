//! The operations on each backend: kernels on `flex`, the generic bodies elsewhere.

#![allow(deprecated, reason = "Burn deprecates NdArray; the project keeps it as an independent backend")]

#[cfg(feature = "flex")]
mod flex {
    use burn::backend::Flex;
    use burn::backend::tensor::{FloatTensor, IntTensor};

    use super::super::adamw::{self, AdamWStep, UpdateOps};
    use super::super::attention::{self, Visible};
    use super::super::backward::{AttentionGradients, FusedGradients};
    use super::super::route::FusedOps;
    use super::super::{
        Choices, Packing, RowMoves, bias, choices, log_probs, move_rows, pick_rows, projection, rms_norm, rotary,
        swiglu,
    };
    use crate::Precision;

    impl FusedOps for Flex {
        fn keep(x: FloatTensor<Self>) -> FloatTensor<Self> {
            x
        }

        fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
            bias::forward::<Self>(x, bias)
        }

        fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
            projection::kernel::forward(x, weight, precision)
        }

        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
            rms_norm::kernel::forward(x, weight, epsilon)
        }

        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
            swiglu::kernel::forward(gate, up)
        }

        fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
            rotary::kernel::forward(x, cos, sin)
        }

        fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self> {
            move_rows::kernel::forward(x, &moves)
        }

        fn pick_rows(a: FloatTensor<Self>, b: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
            pick_rows::kernel::forward(a, b, rows)
        }

        fn attend_causally(
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
        ) -> FloatTensor<Self> {
            attention::kernel::forward(None, [queries, keys, values], &Visible { packing, keys: None })
        }

        fn attend_also(
            before: FloatTensor<Self>,
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
            lengths: Vec<usize>,
        ) -> FloatTensor<Self> {
            let visible = Visible { packing, keys: Some(lengths) };
            attention::kernel::forward(Some(before), [queries, keys, values], &visible)
        }

        fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
            log_probs::kernel::forward(hidden, weight, ids)
        }

        fn choice_log_probs(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            choices: Choices,
        ) -> FloatTensor<Self> {
            choices::kernel::forward(hidden, weight, &choices)
        }
    }

    impl FusedGradients for Flex {
        fn project_backward(
            inputs: [Option<FloatTensor<Self>>; 2],
            gradient: FloatTensor<Self>,
            precision: Precision,
        ) -> [Option<FloatTensor<Self>>; 2] {
            projection::kernel::backward(inputs, gradient, precision)
        }

        fn rms_norm_backward(
            [x, weight]: [FloatTensor<Self>; 2],
            epsilon: f64,
            gradient: FloatTensor<Self>,
        ) -> [FloatTensor<Self>; 2] {
            rms_norm::kernel::backward(x, weight, gradient, epsilon).into()
        }

        fn swiglu_backward([gate, up]: [FloatTensor<Self>; 2], gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
            swiglu::kernel::backward(gate, up, gradient).into()
        }

        fn attention_backward(
            before: Option<FloatTensor<Self>>,
            inputs: [FloatTensor<Self>; 3],
            visible: &Visible,
            attended: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            for_segment: bool,
        ) -> AttentionGradients<Self> {
            attention::kernel::backward(before, inputs, visible, attended, gradient, for_segment)
        }

        fn log_probs_backward(
            [hidden, weight]: [FloatTensor<Self>; 2],
            ids: IntTensor<Self>,
            gradient: FloatTensor<Self>,
            for_weight: bool,
        ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
            log_probs::kernel::backward(hidden, weight, ids, gradient, for_weight)
        }

        fn choice_log_probs_backward(
            [hidden, weight]: [FloatTensor<Self>; 2],
            choices: &Choices,
            gradient: FloatTensor<Self>,
            for_weight: bool,
        ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
            choices::kernel::backward(hidden, weight, choices, gradient, for_weight)
        }
    }

    impl UpdateOps for Flex {
        fn adamw(
            value: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            step: AdamWStep,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            adamw::kernel::update([value, gradient, first, second], step)
        }
    }
}

/// Implements the operations by their generic bodies.
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
macro_rules! generic_bodies {
    ($module:ident, $backend:ident) => {
        mod $module {
            use burn::backend::tensor::{FloatTensor, IntTensor};
            use burn::backend::$backend;
            use burn::tensor::{Float, Int, Tensor};

            use super::super::adamw::{self, AdamWStep, UpdateOps};
            use super::super::attention::{self, Visible};
            use super::super::backward::{AttentionGradients, FusedGradients};
            use super::super::route::FusedOps;
            use super::super::{
                Choices, Packing, RowMoves, bias, choices, log_probs, move_rows, pick_rows, projection, rms_norm,
                rotary, swiglu,
            };
            use crate::Precision;

            fn float<const D: usize>(x: FloatTensor<$backend>) -> Tensor<D> {
                Tensor::<D, Float>::from_primitive::<$backend>(x)
            }

            fn int<const D: usize>(x: IntTensor<$backend>) -> Tensor<D, Int> {
                Tensor::<D, Int>::from_primitive::<$backend>(x)
            }

            fn own<const D: usize>(x: Tensor<D>) -> FloatTensor<$backend> {
                x.try_into_primitive::<$backend>().expect("what is computed from a backend's tensors is on it")
            }

            impl FusedOps for $backend {
                fn keep(x: FloatTensor<Self>) -> FloatTensor<Self> {
                    x
                }

                fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
                    bias::forward::<Self>(x, bias)
                }

                fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
                    own(projection::generic::forward(float(x), float(weight), precision))
                }

                fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
                    own(rms_norm::generic::forward(float(x), float(weight), epsilon))
                }

                fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                    own(swiglu::generic::forward(float(gate), float(up)))
                }

                fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
                    own(rotary::generic::forward(float(x), float(cos), float(sin)))
                }

                fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self> {
                    own(move_rows::generic::forward(float(x), &moves))
                }

                fn pick_rows(a: FloatTensor<Self>, b: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
                    pick_rows::forward::<Self>(a, b, rows)
                }

                fn attend_causally(
                    queries: FloatTensor<Self>,
                    keys: FloatTensor<Self>,
                    values: FloatTensor<Self>,
                    packing: Packing,
                ) -> FloatTensor<Self> {
                    own(attention::generic::attend_causally(float(queries), float(keys), float(values), &packing))
                }

                fn attend_also(
                    before: FloatTensor<Self>,
                    queries: FloatTensor<Self>,
                    keys: FloatTensor<Self>,
                    values: FloatTensor<Self>,
                    packing: Packing,
                    lengths: Vec<usize>,
                ) -> FloatTensor<Self> {
                    own(attention::generic::attend_also(
                        float(before),
                        float(queries),
                        float(keys),
                        float(values),
                        &packing,
                        &lengths,
                    ))
                }

                fn log_probs(
                    hidden: FloatTensor<Self>,
                    weight: FloatTensor<Self>,
                    ids: IntTensor<Self>,
                ) -> FloatTensor<Self> {
                    own(log_probs::generic::forward(float(hidden), float(weight), int(ids)))
                }

                fn choice_log_probs(
                    hidden: FloatTensor<Self>,
                    weight: FloatTensor<Self>,
                    choices: Choices,
                ) -> FloatTensor<Self> {
                    own(choices::generic::forward(float(hidden), float(weight), &choices))
                }
            }

            impl FusedGradients for $backend {
                fn project_backward(
                    inputs: [Option<FloatTensor<Self>>; 2],
                    gradient: FloatTensor<Self>,
                    precision: Precision,
                ) -> [Option<FloatTensor<Self>>; 2] {
                    let inputs = inputs.map(|input| input.map(float));
                    projection::generic::backward(inputs, float(gradient), precision).map(|by| by.map(own))
                }

                fn rms_norm_backward(
                    [x, weight]: [FloatTensor<Self>; 2],
                    epsilon: f64,
                    gradient: FloatTensor<Self>,
                ) -> [FloatTensor<Self>; 2] {
                    let (by_x, by_weight) =
                        rms_norm::generic::backward(float(x), float(weight), float(gradient), epsilon);
                    [own(by_x), own(by_weight)]
                }

                fn swiglu_backward(
                    [gate, up]: [FloatTensor<Self>; 2],
                    gradient: FloatTensor<Self>,
                ) -> [FloatTensor<Self>; 2] {
                    let (by_gate, by_up) = swiglu::generic::backward(float(gate), float(up), float(gradient));
                    [own(by_gate), own(by_up)]
                }

                fn attention_backward(
                    before: Option<FloatTensor<Self>>,
                    inputs: [FloatTensor<Self>; 3],
                    visible: &Visible,
                    attended: FloatTensor<Self>,
                    gradient: FloatTensor<Self>,
                    for_segment: bool,
                ) -> AttentionGradients<Self> {
                    let [queries, keys, values] = inputs;
                    let (by_before, by_queries, by_segment) = attention::generic::backward(
                        before.map(float),
                        (float(queries), [keys, values].map(float)),
                        visible,
                        float(attended),
                        float(gradient),
                        for_segment,
                    );
                    (by_before.map(own), own(by_queries), by_segment.map(|by| by.map(own)))
                }

                fn log_probs_backward(
                    [hidden, weight]: [FloatTensor<Self>; 2],
                    ids: IntTensor<Self>,
                    gradient: FloatTensor<Self>,
                    for_weight: bool,
                ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
                    let (by_hidden, by_weight) = log_probs::generic::backward(
                        float(hidden),
                        float(weight),
                        int(ids),
                        float(gradient),
                        for_weight,
                    );
                    (own(by_hidden), by_weight.map(own))
                }

                fn choice_log_probs_backward(
                    [hidden, weight]: [FloatTensor<Self>; 2],
                    choices: &Choices,
                    gradient: FloatTensor<Self>,
                    for_weight: bool,
                ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
                    let (by_hidden, by_weight) =
                        choices::generic::backward(float(hidden), float(weight), choices, float(gradient), for_weight);
                    (own(by_hidden), by_weight.map(own))
                }
            }

            impl UpdateOps for $backend {
                fn adamw(
                    value: FloatTensor<Self>,
                    gradient: FloatTensor<Self>,
                    first: FloatTensor<Self>,
                    second: FloatTensor<Self>,
                    step: AdamWStep,
                ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                    let [value, first, second] =
                        adamw::generic::update([value, gradient, first, second].map(float), step);
                    (own(value), own(first), own(second))
                }
            }
        }
    };
}

#[cfg(feature = "ndarray")]
generic_bodies!(ndarray, NdArray);
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
generic_bodies!(cube, Cube);
