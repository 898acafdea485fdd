//! The operations as the tape knows them: how each is done again, and its backward pass.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend};

use super::attention::Visible;
use super::route::FusedOps;
use super::tape::{BackwardInputs, Operation, record};
use super::{Choices, Packing, RowMoves, bias, pick_rows};
use crate::Precision;

/// What the backward passes need of a backend. Each gives the gradients by the operation's inputs in their order.
pub trait FusedGradients: FusedOps {
    /// By `x` where the weight is given, and by the weight where `x` is.
    fn project_backward(
        inputs: [Option<FloatTensor<Self>>; 2],
        gradient: FloatTensor<Self>,
        precision: Precision,
    ) -> [Option<FloatTensor<Self>>; 2];

    /// By `x` and `weight`.
    fn rms_norm_backward(
        inputs: [FloatTensor<Self>; 2],
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// By `gate` and `up`.
    fn swiglu_backward(inputs: [FloatTensor<Self>; 2], gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 2];

    /// By what came before, by the queries and, where they are wanted, by keys and values.
    fn attention_backward(
        before: Option<FloatTensor<Self>>,
        inputs: [FloatTensor<Self>; 3],
        visible: &Visible,
        attended: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        for_segment: bool,
    ) -> AttentionGradients<Self>;

    /// By `hidden` and, where it is wanted, by `weight`.
    fn log_probs_backward(
        inputs: [FloatTensor<Self>; 2],
        ids: IntTensor<Self>,
        gradient: FloatTensor<Self>,
        for_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    /// By `hidden` and, where it is wanted, by `weight`.
    fn choice_log_probs_backward(
        inputs: [FloatTensor<Self>; 2],
        choices: &Choices,
        gradient: FloatTensor<Self>,
        for_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);
}

/// Gradients by what came before, by queries, and by keys and values.
pub type AttentionGradients<B> = (Option<FloatTensor<B>>, FloatTensor<B>, Option<[FloatTensor<B>; 2]>);

impl<B: FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn keep(x: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 1>(Keep, [x])
    }

    fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(AddBias, [x, bias])
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
        record::<B, C, _, 2>(Project { precision }, [x, weight])
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        record::<B, C, _, 2>(RmsNorm { epsilon }, [x, weight])
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(Swiglu, [gate, up])
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 1>(Rotate::<B> { cos: cos.into_primitive(), sin: sin.into_primitive() }, [x])
    }

    fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self> {
        record::<B, C, _, 1>(MoveRows(moves), [x])
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
        record::<B, C, _, 3>(AttendCausally { packing }, [queries, keys, values])
    }

    fn attend_also(
        before: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        packing: Packing,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        record::<B, C, _, 4>(AttendAlso { packing, lengths }, [before, queries, keys, values])
    }

    fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(LogProbs::<B> { ids }, [hidden, weight])
    }

    fn choice_log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, choices: Choices) -> FloatTensor<Self> {
        record::<B, C, _, 2>(ChoiceLogProbs { choices }, [hidden, weight])
    }
}

/// Does nothing but have its output kept.
#[derive(Debug, Clone)]
struct Keep;

impl<B: FusedGradients> Operation<B, 1> for Keep {
    const RECOMPUTABLE: bool = false;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        x
    }

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(given.gradient)]
    }
}

#[derive(Debug, Clone)]
struct AddBias;

impl<B: FusedGradients> Operation<B, 2> for AddBias {
    fn forward(&self, [x, bias]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::add_bias(x, bias)
    }

    fn needs(_: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }

    fn gradients(self, given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let [_, by_bias] = given.wanted;
        let by_bias = by_bias.then(|| bias::by_bias::<B>(given.gradient.clone()));
        [Some(given.gradient), by_bias]
    }
}

#[derive(Debug, Clone)]
struct Project {
    precision: Precision,
}

impl<B: FusedGradients> Operation<B, 2> for Project {
    fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::project(x, weight, self.precision)
    }

    fn needs([by_x, by_weight]: [bool; 2]) -> [bool; 2] {
        [by_weight, by_x]
    }

    fn gradients(self, given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::project_backward(given.inputs, given.gradient, self.precision)
    }
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f64,
}

impl<B: FusedGradients> Operation<B, 2> for RmsNorm {
    fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::rms_norm(x, weight, self.epsilon)
    }

    fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::rms_norm_backward(given.take_inputs(), self.epsilon, given.gradient).map(Some)
    }
}

#[derive(Debug, Clone)]
struct Swiglu;

impl<B: FusedGradients> Operation<B, 2> for Swiglu {
    fn forward(&self, [gate, up]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::swiglu(gate, up)
    }

    fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::swiglu_backward(given.take_inputs(), given.gradient).map(Some)
    }
}

#[derive(Debug, Clone)]
struct Rotate<B: Backend> {
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
}

impl<B: FusedGradients> Operation<B, 1> for Rotate<B> {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::rotate(x, self.cos.clone(), self.sin.clone())
    }

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        // A rotation's transpose turns back.
        [Some(B::rotate(given.gradient, self.cos, B::float_neg(self.sin)))]
    }
}

#[derive(Debug, Clone)]
struct MoveRows(RowMoves);

impl<B: FusedGradients> Operation<B, 1> for MoveRows {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::move_rows(x, self.0.clone())
    }

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::move_rows(given.gradient, self.0.back()))]
    }
}

#[derive(Debug, Clone)]
struct AttendCausally {
    packing: Packing,
}

impl<B: FusedGradients> Operation<B, 3> for AttendCausally {
    const WANTS_OUTPUT: bool = true;

    fn forward(&self, [queries, keys, values]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
        B::attend_causally(queries, keys, values, self.packing.clone())
    }

    fn gradients(self, mut given: BackwardInputs<B, 3>) -> [Option<FloatTensor<B>>; 3] {
        let inputs = given.take_inputs();
        let attended = given.output.unwrap_or_else(|| Operation::<B, 3>::forward(&self, inputs.clone()));
        let [_, by_keys, by_values] = given.wanted;
        let visible = Visible { packing: self.packing, keys: None };
        let (_, by_queries, by_segment) =
            B::attention_backward(None, inputs, &visible, attended, given.gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [Some(by_queries), by_keys, by_values]
    }
}

#[derive(Debug, Clone)]
struct AttendAlso {
    packing: Packing,
    lengths: Vec<usize>,
}

impl<B: FusedGradients> Operation<B, 4> for AttendAlso {
    const WANTS_OUTPUT: bool = true;

    fn forward(&self, [before, queries, keys, values]: [FloatTensor<B>; 4]) -> FloatTensor<B> {
        B::attend_also(before, queries, keys, values, self.packing.clone(), self.lengths.clone())
    }

    fn gradients(self, mut given: BackwardInputs<B, 4>) -> [Option<FloatTensor<B>>; 4] {
        let inputs = given.take_inputs();
        let attended = given.output.unwrap_or_else(|| Operation::<B, 4>::forward(&self, inputs.clone()));
        let ([before, queries, keys, values], [_, _, by_keys, by_values]) = (inputs, given.wanted);
        let visible = Visible { packing: self.packing, keys: Some(self.lengths) };
        let (by_before, by_queries, by_segment) = B::attention_backward(
            Some(before),
            [queries, keys, values],
            &visible,
            attended,
            given.gradient,
            by_keys || by_values,
        );
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [by_before, Some(by_queries), by_keys, by_values]
    }
}

#[derive(Debug, Clone)]
struct LogProbs<B: Backend> {
    ids: IntTensor<B>,
}

impl<B: FusedGradients> Operation<B, 2> for LogProbs<B> {
    const RECOMPUTABLE: bool = false;

    fn forward(&self, [hidden, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::log_probs(hidden, weight, self.ids.clone())
    }

    fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let [_, by_weight] = given.wanted;
        let (by_hidden, by_weight) = B::log_probs_backward(given.take_inputs(), self.ids, given.gradient, by_weight);
        [Some(by_hidden), by_weight]
    }
}

#[derive(Debug, Clone)]
struct ChoiceLogProbs {
    choices: Choices,
}

impl<B: FusedGradients> Operation<B, 2> for ChoiceLogProbs {
    const RECOMPUTABLE: bool = false;

    fn forward(&self, [hidden, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::choice_log_probs(hidden, weight, self.choices.clone())
    }

    fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let [_, by_weight] = given.wanted;
        let (by_hidden, by_weight) =
            B::choice_log_probs_backward(given.take_inputs(), &self.choices, given.gradient, by_weight);
        [Some(by_hidden), by_weight]
    }
}
