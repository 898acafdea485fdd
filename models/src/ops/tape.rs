//! The backward passes, as steps of Burn's tape.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend};

use super::RowMoves;
use super::attention::Visible;
use super::route::FusedOps;

/// What the backward passes need of a backend. Each gives the gradients by the operation's inputs in their order.
pub trait FusedGradients: FusedOps {
    /// By `x` and `weight`, where they are wanted.
    fn project_backward(
        inputs: [FloatTensor<Self>; 2],
        gradient: FloatTensor<Self>,
        wanted: [bool; 2],
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
}

/// Gradients by what came before, by queries, and by keys and values.
pub type AttentionGradients<B> = (Option<FloatTensor<B>>, FloatTensor<B>, Option<[FloatTensor<B>; 2]>);

/// A step whose backward pass is a function of its state and the output's gradient.
///
/// `wanted` says by which inputs a gradient is asked for; what is given for others is dropped.
trait Rule<B: Backend, const N: usize>: Send + std::fmt::Debug + 'static {
    type State: Clone + Send + std::fmt::Debug + 'static;

    fn gradients(state: Self::State, gradient: FloatTensor<B>, wanted: [bool; N]) -> [Option<FloatTensor<B>>; N];
}

/// A [`Rule`] on Burn's tape.
#[derive(Debug)]
struct Step<R>(R);

impl<B: Backend, R: Rule<B, N>, const N: usize> Backward<B, N> for Step<R> {
    type State = R::State;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(R::gradients(ops.state, gradient, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Enters `output` into the tape.
fn record<B: Backend, C: CheckpointStrategy, R: Rule<B, N>, const N: usize>(
    rule: R,
    inputs: [NodeGuard; N],
    state: R::State,
    output: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match Step(rule).prepare::<C>(inputs).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(state, output),
        OpsKind::UnTracked(step) => step.finish(output),
    }
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let output = B::project(x.clone(), weight.clone());
        record::<B, C, _, 2>(Project, [x_node, weight_node], [x, weight], output)
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let output = B::rms_norm(x.clone(), weight.clone(), epsilon);
        record::<B, C, _, 2>(RmsNorm, [x_node, weight_node], (x, weight, epsilon), output)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let output = B::swiglu(gate.clone(), up.clone());
        record::<B, C, _, 2>(Swiglu, [gate_node, up_node], (gate, up), output)
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let output = B::rotate(x, cos.clone(), sin.clone());
        record::<B, C, _, 1>(Rotate, [node], (cos, sin), output)
    }

    fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::move_rows(x, moves.clone());
        record::<B, C, _, 1>(MoveRows, [node], moves, output)
    }

    fn attend_causally(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        rows: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [(queries, a), (keys, b), (values, c)] = [queries, keys, values].map(|x| x.into_parts());
        let output = B::attend_causally(queries.clone(), keys.clone(), values.clone(), rows.clone());
        let state = ([queries, keys, values], Visible { rows, keys: None }, output.clone());
        record::<B, C, _, 3>(AttendCausally, [a, b, c], state, output)
    }

    fn attend_also(
        before: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        rows: Vec<usize>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [(before, a), (queries, b), (keys, c), (values, d)] =
            [before, queries, keys, values].map(|x| x.into_parts());
        let (q, k, v) = (queries.clone(), keys.clone(), values.clone());
        let output = B::attend_also(before.clone(), q, k, v, rows.clone(), lengths.clone());
        let state = (before, [queries, keys, values], Visible { rows, keys: Some(lengths) }, output.clone());
        record::<B, C, _, 4>(AttendAlso, [a, b, c, d], state, output)
    }

    fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), weight.into_parts());
        let output = B::log_probs(hidden.clone(), weight.clone(), ids.clone());
        record::<B, C, _, 2>(LogProbs, [hidden_node, weight_node], ([hidden, weight], ids), output)
    }
}

#[derive(Debug)]
struct Project;

impl<B: FusedGradients> Rule<B, 2> for Project {
    type State = [FloatTensor<B>; 2];

    fn gradients(inputs: Self::State, gradient: FloatTensor<B>, wanted: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        B::project_backward(inputs, gradient, wanted)
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: FusedGradients> Rule<B, 2> for RmsNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn gradients(
        (x, weight, epsilon): Self::State,
        gradient: FloatTensor<B>,
        _: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        B::rms_norm_backward([x, weight], epsilon, gradient).map(Some)
    }
}

#[derive(Debug)]
struct Swiglu;

impl<B: FusedGradients> Rule<B, 2> for Swiglu {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn gradients((gate, up): Self::State, gradient: FloatTensor<B>, _: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        B::swiglu_backward([gate, up], gradient).map(Some)
    }
}

#[derive(Debug)]
struct Rotate;

impl<B: FusedGradients> Rule<B, 1> for Rotate {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn gradients((cos, sin): Self::State, gradient: FloatTensor<B>, _: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        // A rotation's transpose turns back.
        [Some(B::rotate(gradient, cos, B::float_neg(sin)))]
    }
}

#[derive(Debug)]
struct MoveRows;

impl<B: FusedGradients> Rule<B, 1> for MoveRows {
    type State = RowMoves;

    fn gradients(moves: RowMoves, gradient: FloatTensor<B>, _: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::move_rows(gradient, moves.back()))]
    }
}

#[derive(Debug)]
struct AttendCausally;

impl<B: FusedGradients> Rule<B, 3> for AttendCausally {
    type State = ([FloatTensor<B>; 3], Visible, FloatTensor<B>);

    fn gradients(
        (inputs, visible, attended): Self::State,
        gradient: FloatTensor<B>,
        [_, by_keys, by_values]: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let (_, by_queries, by_segment) =
            B::attention_backward(None, inputs, &visible, attended, gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [Some(by_queries), by_keys, by_values]
    }
}

#[derive(Debug)]
struct AttendAlso;

impl<B: FusedGradients> Rule<B, 4> for AttendAlso {
    type State = (FloatTensor<B>, [FloatTensor<B>; 3], Visible, FloatTensor<B>);

    fn gradients(
        (before, inputs, visible, attended): Self::State,
        gradient: FloatTensor<B>,
        [_, _, by_keys, by_values]: [bool; 4],
    ) -> [Option<FloatTensor<B>>; 4] {
        let (by_before, by_queries, by_segment) =
            B::attention_backward(Some(before), inputs, &visible, attended, gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [by_before, Some(by_queries), by_keys, by_values]
    }
}

#[derive(Debug)]
struct LogProbs;

impl<B: FusedGradients> Rule<B, 2> for LogProbs {
    type State = ([FloatTensor<B>; 2], IntTensor<B>);

    fn gradients(
        (inputs, ids): Self::State,
        gradient: FloatTensor<B>,
        [_, by_weight]: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (by_hidden, by_weight) = B::log_probs_backward(inputs, ids, gradient, by_weight);
        [Some(by_hidden), by_weight]
    }
}
