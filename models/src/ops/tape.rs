//! How an operation enters Burn's tape, goes through the backward pass, and is recomputed.
//!
//! With gradient checkpointing the tape keeps no output of an operation that can be recomputed; when the backward pass
//! asks for it, it is computed from what was kept before it.

use std::any::TypeId;
use std::fmt::Debug;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::{CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::route::Concrete;

/// What the tape knows of an operation of `N` inputs; what it holds are inputs that no gradient flows to.
pub(super) trait Operation<const N: usize>: Clone + Send + Debug + 'static {
    /// Whether its output may be recomputed instead of being kept.
    const RECOMPUTABLE: bool = true;
    /// Whether the backward pass is shorter with the output at hand.
    const WANTS_OUTPUT: bool = false;

    /// The inputs that the backward pass needs, where gradients by the `wanted` ones are asked for.
    fn needs(_wanted: [bool; N]) -> [bool; N] {
        [true; N]
    }
}

/// An operation and its backward pass on one backend.
pub(super) trait Compute<B: Backend, const N: usize>: Operation<N> {
    fn forward(&self, inputs: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// Gradients by the inputs; those by others than the wanted ones are dropped.
    fn gradients(self, given: BackwardInputs<B, N>) -> [Option<FloatTensor<B>>; N];
}

/// A backend that an operation can be called on: one that computes it, or the tape of such a backend.
pub(super) trait Run<O, const N: usize>: Backend {
    fn run(operation: O, inputs: [FloatTensor<Self>; N]) -> FloatTensor<Self>;
}

impl<B: Concrete, O: Compute<B, N>, const N: usize> Run<O, N> for B {
    fn run(operation: O, inputs: [FloatTensor<B>; N]) -> FloatTensor<B> {
        operation.forward(inputs)
    }
}

/// What an operation's backward pass has: `G` is the gradient by its output, or what there is of those by several.
pub(super) struct BackwardInputs<B: Backend, const N: usize, G = FloatTensor<B>> {
    /// The inputs that it needs.
    pub inputs: [Option<FloatTensor<B>>; N],
    /// The output, of several the first, if it wants it and it was kept.
    pub output: Option<FloatTensor<B>>,
    pub gradient: G,
    pub wanted: [bool; N],
}

impl<B: Backend, const N: usize, G> BackwardInputs<B, N, G> {
    /// All inputs, for an operation that needs them.
    pub fn take_inputs(&mut self) -> [FloatTensor<B>; N] {
        self.inputs.each_mut().map(|input| input.take().expect("what is needed was kept"))
    }
}

/// Where an input is when it is needed again.
#[derive(Debug, Clone)]
pub(super) enum Saved<T> {
    /// Here, for the tape does not know it.
    Here(T),
    /// With the tape.
    OnTape(NodeId),
}

impl<T: Clone + Send + 'static> Saved<T> {
    pub fn retrieve(self, checkpointer: &mut Checkpointer) -> T {
        match self {
            Saved::Here(value) => value,
            Saved::OnTape(node) => checkpointer.retrieve_node_output(node),
        }
    }
}

/// The inputs that the backward pass of an operation needs; `checkpoint` has the tape keep one.
pub(super) fn keep<O: Operation<N>, B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: &[FloatTensor<Autodiff<B, C>>; N],
    mut checkpoint: impl FnMut(&FloatTensor<Autodiff<B, C>>) -> NodeId,
) -> [Option<Saved<FloatTensor<B>>>; N] {
    let needs = O::needs(inputs.each_ref().map(|input| input.is_tracked()));
    std::array::from_fn(|i| {
        needs[i].then(|| match inputs[i].is_tracked() {
            true => Saved::OnTape(checkpoint(&inputs[i])),
            false => Saved::Here(inputs[i].primitive().clone()),
        })
    })
}

/// What an operation keeps for the backward pass.
#[derive(Debug, Clone)]
struct State<T, const N: usize> {
    inputs: [Option<Saved<T>>; N],
    output: Option<T>,
}

/// The backward pass of an operation.
#[derive(Debug)]
struct BackwardPass<O>(O);

impl<B: Backend, O: Compute<B, N>, const N: usize> Backward<B, N> for BackwardPass<O> {
    type State = State<FloatTensor<B>, N>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let State { inputs, output } = ops.state;
        let inputs = inputs.map(|input| input.map(|input| input.retrieve(checkpointer)));
        let gradient = gradients.consume::<B>(&ops.node);
        let found = self.0.gradients(BackwardInputs { inputs, output, gradient, wanted });
        register::<B, N>(ops.parents.map(|parent| parent.map(|parent| parent.id)), found, gradients);
    }
}

/// Gives the inputs on the tape their gradients.
pub(super) fn register<B: Backend, const N: usize>(
    parents: [Option<NodeId>; N],
    found: [Option<FloatTensor<B>>; N],
    gradients: &mut Gradients,
) {
    for (parent, gradient) in parents.into_iter().zip(found) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            gradients.register::<B>(parent, gradient);
        }
    }
}

/// An operation that is recomputed.
#[derive(Debug)]
struct Recompute<B: Backend, O, const N: usize> {
    operation: O,
    inputs: [Saved<FloatTensor<B>>; N],
}

impl<B: Backend, O: Compute<B, N>, const N: usize> RetroForward for Recompute<B, O, N> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let inputs = self.inputs.each_ref().map(|input| match input {
            Saved::Here(value) => value.clone(),
            Saved::OnTape(node) => states.get_state::<FloatTensor<B>>(node),
        });
        #[cfg(test)]
        RECOMPUTED.set(RECOMPUTED.get() + 1);
        states.save(output, self.operation.forward(inputs));
    }
}

impl<B: Concrete, C: CheckpointStrategy, O: Compute<B, N>, const N: usize> Run<O, N> for Autodiff<B, C> {
    /// Does the operation and enters it into the tape.
    fn run(operation: O, inputs: [FloatTensor<Self>; N]) -> FloatTensor<Self> {
        let output = operation.forward(inputs.each_ref().map(|input| input.primitive().clone()));
        let nodes = inputs.each_ref().map(|input| input.node());
        let step = BackwardPass(operation.clone()).prepare::<C>(nodes);
        let tracked = inputs.each_ref().map(|input| input.is_tracked());
        let step = if O::RECOMPUTABLE && tracked.contains(&true) {
            let saved = inputs.each_ref().map(|input| match input.is_tracked() {
                true => Saved::OnTape(input.id()),
                false => Saved::Here(input.primitive().clone()),
            });
            let recompute = Recompute::<B, O, N> { operation, inputs: saved };
            step.memory_bound().retro_forward(recompute).parents(inputs.iter().filter(|input| input.is_tracked()))
        } else {
            step.compute_bound()
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let saved = keep::<O, B, C, N>(&inputs, |input| step.checkpoint(input));
                let keeps_output = O::WANTS_OUTPUT && TypeId::of::<C>() == TypeId::of::<NoCheckpointing>();
                let state = State { inputs: saved, output: keeps_output.then(|| output.clone()) };
                step.finish(state, output)
            }
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Operations that this thread recomputed.
    pub(crate) static RECOMPUTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
