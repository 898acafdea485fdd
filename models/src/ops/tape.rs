//! The operations on Burn's tape: their backward passes, and how they are done again.
//!
//! With gradient checkpointing the tape keeps an operation's output only where [`Keep`] says so, and computes the others again
//! from there when the backward pass asks for them.

use std::any::TypeId;
use std::fmt::Debug;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::{CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend};

use super::RowMoves;
use super::attention::Visible;
use super::route::FusedOps;

/// What the backward passes need of a backend. Each gives the gradients by the operation's inputs in their order.
pub trait FusedGradients: FusedOps {
    /// By `x` where the weight is given, and by the weight where `x` is.
    fn project_backward(
        inputs: [Option<FloatTensor<Self>>; 2],
        gradient: FloatTensor<Self>,
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

/// An operation that can be done again and gone back through; what it holds are inputs that no gradient flows to.
trait Operation<B: Backend, const N: usize>: Clone + Send + Debug + 'static {
    /// Whether its output may be computed again instead of being kept.
    const CAN_BE_DONE_AGAIN: bool = true;
    /// Whether the way back is shorter with the output at hand.
    const WANTS_OUTPUT: bool = false;

    fn forward(&self, inputs: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// The inputs that the way back needs, where gradients by the `wanted` ones are asked for.
    fn needs(_wanted: [bool; N]) -> [bool; N] {
        [true; N]
    }

    /// Gradients by the inputs; those by others than the wanted ones are dropped.
    fn gradients(self, way: Way<B, N>) -> [Option<FloatTensor<B>>; N];
}

/// What an operation goes back with.
struct Way<B: Backend, const N: usize> {
    /// The inputs that it needs.
    inputs: [Option<FloatTensor<B>>; N],
    /// The output, if it wants it and it was kept.
    output: Option<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    wanted: [bool; N],
}

impl<B: Backend, const N: usize> Way<B, N> {
    /// All inputs, for an operation that needs them.
    fn take_inputs(&mut self) -> [FloatTensor<B>; N] {
        self.inputs.each_mut().map(|input| input.take().expect("what is needed was kept"))
    }
}

/// Where an input is when it is needed again.
#[derive(Debug, Clone)]
enum Saved<T> {
    /// Here, for the tape does not know it.
    Here(T),
    /// With the tape.
    OnTape(NodeId),
}

/// What an operation keeps for the way back.
#[derive(Debug, Clone)]
struct State<T, const N: usize> {
    inputs: [Option<Saved<T>>; N],
    output: Option<T>,
}

/// The way back through an operation.
#[derive(Debug)]
struct Back<O>(O);

impl<B: Backend, O: Operation<B, N>, const N: usize> Backward<B, N> for Back<O> {
    type State = State<FloatTensor<B>, N>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let State { inputs, output } = ops.state;
        let inputs = inputs.map(|input| {
            input.map(|input| match input {
                Saved::Here(value) => value,
                Saved::OnTape(node) => checkpointer.retrieve_node_output(node),
            })
        });
        let gradient = gradients.consume::<B>(&ops.node);
        let found = self.0.gradients(Way { inputs, output, gradient, wanted });
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// An operation done again.
#[derive(Debug)]
struct Again<O, T, const N: usize> {
    operation: O,
    inputs: [Saved<T>; N],
}

impl<B, O, const N: usize> RetroForward for Again<(O, std::marker::PhantomData<B>), FloatTensor<B>, N>
where
    B: Backend,
    O: Operation<B, N>,
{
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let inputs = self.inputs.each_ref().map(|input| match input {
            Saved::Here(value) => value.clone(),
            Saved::OnTape(node) => states.get_state::<FloatTensor<B>>(node),
        });
        states.save(output, self.operation.0.forward(inputs));
    }
}

/// Does an operation and enters it into the tape.
fn record<B: Backend, C: CheckpointStrategy, O: Operation<B, N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let output = operation.forward(inputs.each_ref().map(|input| input.primitive().clone()));
    let nodes = inputs.each_ref().map(|input| input.node());
    let step = Back(operation.clone()).prepare::<C>(nodes);
    let step = if O::CAN_BE_DONE_AGAIN {
        let saved = inputs.each_ref().map(|input| match input.is_tracked() {
            true => Saved::OnTape(input.id()),
            false => Saved::Here(input.primitive().clone()),
        });
        let again = Again { operation: (operation, std::marker::PhantomData::<B>), inputs: saved };
        step.memory_bound().retro_forward(again).parents(inputs.iter().filter(|input| input.is_tracked()))
    } else {
        step.compute_bound()
    };
    match step.stateful() {
        OpsKind::Tracked(mut step) => {
            let needs = O::needs(inputs.each_ref().map(|input| input.is_tracked()));
            let mut place = 0;
            let saved = inputs.map(|input| {
                place += 1;
                needs[place - 1].then(|| match input.is_tracked() {
                    true => Saved::OnTape(step.checkpoint(&input)),
                    false => Saved::Here(input.into_primitive()),
                })
            });
            let keeps_output = O::WANTS_OUTPUT && TypeId::of::<C>() == TypeId::of::<NoCheckpointing>();
            let state = State { inputs: saved, output: keeps_output.then(|| output.clone()) };
            step.finish(state, output)
        }
        OpsKind::UnTracked(step) => step.finish(output),
    }
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn keep(x: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 1>(Keep, [x])
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(Project, [x, weight])
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

    fn attend_causally(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        rows: Vec<usize>,
    ) -> FloatTensor<Self> {
        record::<B, C, _, 3>(AttendCausally { rows }, [queries, keys, values])
    }

    fn attend_also(
        before: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        rows: Vec<usize>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        record::<B, C, _, 4>(AttendAlso { rows, lengths }, [before, queries, keys, values])
    }

    fn log_probs(hidden: FloatTensor<Self>, weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(LogProbs::<B> { ids }, [hidden, weight])
    }
}

/// Does nothing but have its output kept.
#[derive(Debug, Clone)]
struct Keep;

impl<B: FusedGradients> Operation<B, 1> for Keep {
    const CAN_BE_DONE_AGAIN: bool = false;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        x
    }

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn gradients(self, way: Way<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(way.gradient)]
    }
}

#[derive(Debug, Clone)]
struct Project;

impl<B: FusedGradients> Operation<B, 2> for Project {
    fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::project(x, weight)
    }

    fn needs([by_x, by_weight]: [bool; 2]) -> [bool; 2] {
        [by_weight, by_x]
    }

    fn gradients(self, way: Way<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::project_backward(way.inputs, way.gradient)
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

    fn gradients(self, mut way: Way<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::rms_norm_backward(way.take_inputs(), self.epsilon, way.gradient).map(Some)
    }
}

#[derive(Debug, Clone)]
struct Swiglu;

impl<B: FusedGradients> Operation<B, 2> for Swiglu {
    fn forward(&self, [gate, up]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::swiglu(gate, up)
    }

    fn gradients(self, mut way: Way<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        B::swiglu_backward(way.take_inputs(), way.gradient).map(Some)
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

    fn gradients(self, way: Way<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        // A rotation's transpose turns back.
        [Some(B::rotate(way.gradient, self.cos, B::float_neg(self.sin)))]
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

    fn gradients(self, way: Way<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::move_rows(way.gradient, self.0.back()))]
    }
}

#[derive(Debug, Clone)]
struct AttendCausally {
    rows: Vec<usize>,
}

impl<B: FusedGradients> Operation<B, 3> for AttendCausally {
    const WANTS_OUTPUT: bool = true;

    fn forward(&self, [queries, keys, values]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
        B::attend_causally(queries, keys, values, self.rows.clone())
    }

    fn gradients(self, mut way: Way<B, 3>) -> [Option<FloatTensor<B>>; 3] {
        let inputs = way.take_inputs();
        let attended = way.output.unwrap_or_else(|| Operation::<B, 3>::forward(&self, inputs.clone()));
        let [_, by_keys, by_values] = way.wanted;
        let visible = Visible { rows: self.rows, keys: None };
        let (_, by_queries, by_segment) =
            B::attention_backward(None, inputs, &visible, attended, way.gradient, by_keys || by_values);
        let [by_keys, by_values] = by_segment.map_or([None, None], |by| by.map(Some));
        [Some(by_queries), by_keys, by_values]
    }
}

#[derive(Debug, Clone)]
struct AttendAlso {
    rows: Vec<usize>,
    lengths: Vec<usize>,
}

impl<B: FusedGradients> Operation<B, 4> for AttendAlso {
    const WANTS_OUTPUT: bool = true;

    fn forward(&self, [before, queries, keys, values]: [FloatTensor<B>; 4]) -> FloatTensor<B> {
        B::attend_also(before, queries, keys, values, self.rows.clone(), self.lengths.clone())
    }

    fn gradients(self, mut way: Way<B, 4>) -> [Option<FloatTensor<B>>; 4] {
        let inputs = way.take_inputs();
        let attended = way.output.unwrap_or_else(|| Operation::<B, 4>::forward(&self, inputs.clone()));
        let ([before, queries, keys, values], [_, _, by_keys, by_values]) = (inputs, way.wanted);
        let visible = Visible { rows: self.rows, keys: Some(self.lengths) };
        let (by_before, by_queries, by_segment) = B::attention_backward(
            Some(before),
            [queries, keys, values],
            &visible,
            attended,
            way.gradient,
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
    const CAN_BE_DONE_AGAIN: bool = false;

    fn forward(&self, [hidden, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::log_probs(hidden, weight, self.ids.clone())
    }

    fn gradients(self, mut way: Way<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let [_, by_weight] = way.wanted;
        let (by_hidden, by_weight) = B::log_probs_backward(way.take_inputs(), self.ids, way.gradient, by_weight);
        [Some(by_hidden), by_weight]
    }
}
