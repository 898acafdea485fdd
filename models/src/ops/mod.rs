//! Operations with hand-written kernels.
//!
//! The file or folder of an operation holds all of it: the function that the models call, the trait by which the call
//! finds the backend of its tensors, what the tape knows of it, and its forward and backward pass. The generic body,
//! written with Burn's own tensor operations, runs on every backend without kernels. `kernel`, where there is one, runs
//! on `flex`, and `gpu` on all GPUs. Shared by all operations are `route` and `tape`, by the kernels of the CPU
//! `values`, `simd` and `row_product`, and by those of GPUs `gpu`.

#![cfg_attr(
    not(any(feature = "ndarray", feature = "gpu")),
    allow(dead_code, reason = "every backend compiled in has kernels; the generic bodies wait for others")
)]
#![cfg_attr(
    not(any(feature = "flex", feature = "ndarray", feature = "gpu")),
    allow(unused_variables, reason = "without a backend nothing is routed")
)]
#![allow(deprecated, reason = "Burn deprecates NdArray; the project keeps it as an independent backend")]

mod adamw;
mod attention;
mod bias;
mod checkpoint;
mod choices;
mod gather_rows;
#[cfg(feature = "gpu")]
mod gpu;
mod in_order;
#[cfg(feature = "gpu")]
mod join_rows;
mod key_lengths;
mod log_probs;
mod mixed_values;
mod packing;
mod projection;
mod rms_norm;
mod rotary;
mod route;
#[cfg(feature = "flex")]
mod row_product;
mod select_rows;
#[cfg(feature = "gpu")]
mod several_outputs;
#[cfg(feature = "flex")]
mod simd;
#[cfg(feature = "gpu")]
mod split_heads;
mod squares;
mod swiglu;
mod table;
mod tape;
#[cfg(test)]
pub(crate) mod testing;
mod total;
#[cfg(feature = "flex")]
mod values;

/// Operations that gradient checkpointing had this thread do again.
#[cfg(test)]
pub(crate) fn operations_done_again() -> usize {
    tape::RECOMPUTED.get()
}

pub use adamw::{AdamWStep, adamw};
pub use attention::{WeightFactors, attend_also, attend_causally};
pub use bias::add_bias;
pub use checkpoint::checkpoint;
pub use choices::{Choices, choice_log_probs};
pub use gather_rows::{RowGather, gather_rows};
pub use in_order::in_order;
#[cfg(feature = "gpu")]
pub use join_rows::{join_three, join_two};
pub use key_lengths::KeyLengths;
pub use log_probs::log_probs;
pub use mixed_values::mixed_values;
pub use packing::Packing;
pub use projection::project;
pub use rms_norm::{norm_adds, norm_of_sum, rms_norm};
pub use rotary::rotate;
pub use select_rows::select_rows;
#[cfg(feature = "gpu")]
pub use split_heads::{HeadSizes, split_heads};
pub use squares::{add_squares, squares};
pub use swiglu::swiglu;
#[cfg(feature = "gpu")]
pub use swiglu::swiglu_of_halves;
pub use table::{Sendable, Table, send_together};
pub use total::total;

/// What the operations compute, written with Burn's own: for backends without kernels, and to compare with.
pub mod generic {
    pub use super::attention::generic::{attend_also, attend_causally};
    pub use super::choices::generic::forward as choice_log_probs;
    pub use super::gather_rows::generic::forward as gather_rows;
    pub use super::log_probs::generic::forward as log_probs;
    pub use super::mixed_values::generic::forward as mixed_values;
    pub use super::projection::generic::forward as project;
    pub use super::rms_norm::generic::forward as rms_norm;
    pub use super::rotary::generic::forward as rotate;
    pub use super::swiglu::generic::forward as swiglu;
}
