//! Operations with hand-written kernels for the CPU.
//!
//! A file of an operation holds what it computes from Burn's own tensor operations (the generic body, which every
//! backend without a kernel runs), where there is one the kernel for `flex`, and the backward pass. `FusedOps` routes a call to the
//! backend that the tensors live on, `UpdateOps` that of the optimiser's update, which has no backward pass; the backward passes are
//! entered into the tape by `Autodiff`'s implementation, in `backward`. What operations share is in `tape`, `values`, `simd`,
//! `row_product` and `packing`.

#![cfg_attr(
    not(any(feature = "ndarray", feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")),
    allow(dead_code, reason = "every backend compiled in has kernels; the generic bodies wait for others")
)]

mod adamw;
mod attention;
mod backends;
mod backward;
mod bias;
mod choices;
mod keep;
mod log_probs;
mod move_rows;
mod packing;
mod pick_rows;
mod projection;
mod rms_norm;
mod rotary;
#[cfg(feature = "flex")]
mod row_product;
#[cfg(feature = "flex")]
mod simd;
mod swiglu;
mod tape;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(feature = "flex")]
mod values;

/// Operations that gradient checkpointing had this thread do again.
#[cfg(test)]
pub(crate) fn operations_done_again() -> usize {
    tape::RECOMPUTED.get()
}

pub use adamw::{AdamWStep, adamw};
pub use attention::{attend_also, attend_causally, mixed_values};
pub use bias::add_bias;
pub use choices::{Choices, choice_log_probs};
pub use keep::keep;
pub use log_probs::log_probs;
pub use move_rows::{RowMoves, move_rows};
pub use packing::Packing;
pub use pick_rows::pick_rows;
pub use projection::project;
pub use rms_norm::rms_norm;
pub use rotary::rotate;
pub use swiglu::swiglu;

/// What the operations compute, written with Burn's own: for backends without kernels, and to compare with.
pub mod generic {
    pub use super::attention::generic::{attend_also, attend_causally};
    pub use super::choices::generic::forward as choice_log_probs;
    pub use super::log_probs::generic::forward as log_probs;
    pub use super::move_rows::generic::forward as move_rows;
    pub use super::projection::generic::forward as project;
    pub use super::rms_norm::generic::forward as rms_norm;
    pub use super::rotary::generic::forward as rotate;
    pub use super::swiglu::generic::forward as swiglu;
}

#[allow(deprecated, reason = "Burn deprecates NdArray; the project keeps it as an independent backend")]
#[allow(unused_variables, reason = "without a backend nothing is routed")]
mod route {
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Backend, backend_extension};

    use super::{Choices, Packing, RowMoves};
    use crate::Precision;

    /// Routes each operation to the backend of its tensors.
    #[backend_extension(
        Flex: cfg(feature = "flex"),
        NdArray: cfg(feature = "ndarray"),
        Cube: cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")),
        Autodiff,
    )]
    pub trait FusedOps: Backend {
        /// See [`super::keep`].
        fn keep(x: FloatTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::add_bias`].
        fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::project`].
        fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;
        /// See [`super::rms_norm`].
        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
        /// See [`super::swiglu`].
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::rotate`].
        fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::move_rows`].
        fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self>;
        /// See [`super::pick_rows`].
        fn pick_rows(a: FloatTensor<Self>, b: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::attend_causally`].
        fn attend_causally(
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
        ) -> FloatTensor<Self>;
        /// See [`super::attend_also`].
        fn attend_also(
            before: FloatTensor<Self>,
            queries: FloatTensor<Self>,
            keys: FloatTensor<Self>,
            values: FloatTensor<Self>,
            packing: Packing,
            lengths: Vec<usize>,
        ) -> FloatTensor<Self>;
        /// See [`super::log_probs`].
        fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;
        /// See [`super::choice_log_probs`].
        fn choice_log_probs(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            choices: Choices,
        ) -> FloatTensor<Self>;
    }
}
