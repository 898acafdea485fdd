//! Operations of several outputs on Burn's tape, whose nodes have one: behind the node of such an operation each output
//! has its own, which leaves its gradient for that of the operation.

use std::sync::{Arc, Mutex};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::route::Concrete;
use super::tape::{BackwardInputs, Operation, Saved, keep, register};

/// An operation of several outputs and its backward pass on one backend. It is not recomputed.
pub(super) trait ComputeMany<B: Backend, const N: usize, const M: usize>: Operation<N> {
    fn forward(&self, inputs: [FloatTensor<B>; N]) -> [FloatTensor<B>; M];

    /// Gradients by the inputs from those by the outputs, absent where nothing came from one; those by others than the
    /// wanted ones are dropped.
    fn gradients(self, given: BackwardInputs<B, N, ByOutputs<B, M>>) -> [Option<FloatTensor<B>>; N];
}

/// The gradients by an operation's outputs.
type ByOutputs<B, const M: usize> = [Option<FloatTensor<B>>; M];

/// As [`Run`](super::tape::Run), for an operation of several outputs.
pub(super) trait RunMany<O, const N: usize, const M: usize>: Backend {
    fn run_many(operation: O, inputs: [FloatTensor<Self>; N]) -> [FloatTensor<Self>; M];
}

impl<B: Concrete, O: ComputeMany<B, N, M>, const N: usize, const M: usize> RunMany<O, N, M> for B {
    fn run_many(operation: O, inputs: [FloatTensor<B>; N]) -> [FloatTensor<B>; M] {
        operation.forward(inputs)
    }
}

/// The gradients by an operation's outputs, until it goes back itself.
type Waiting<T, const M: usize> = Arc<Mutex<[Option<T>; M]>>;

/// What an operation of several outputs keeps for the backward pass.
#[derive(Debug, Clone)]
struct StateOfMany<T, const N: usize, const M: usize> {
    inputs: [Option<Saved<T>>; N],
    /// The first one.
    output: Option<T>,
    waiting: Waiting<T, M>,
}

/// The backward pass of one output.
#[derive(Debug)]
struct Output<const M: usize>(usize);

impl<B: Backend, const M: usize> Backward<B, 1> for Output<M> {
    type State = Waiting<FloatTensor<B>, M>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        ops.state.lock().expect("nothing panics while it is held")[self.0] = Some(gradient);
    }
}

/// The backward pass of an operation of several outputs.
#[derive(Debug)]
struct BackwardPassOfMany<O, const M: usize>(O);

impl<B: Backend, O: ComputeMany<B, N, M>, const N: usize, const M: usize> Backward<B, N> for BackwardPassOfMany<O, M> {
    type State = StateOfMany<FloatTensor<B>, N, M>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let StateOfMany { inputs, output, waiting } = ops.state;
        let inputs = inputs.map(|input| input.map(|input| input.retrieve(checkpointer)));
        let gradient = waiting.lock().expect("nothing panics while it is held").each_mut().map(Option::take);
        let found = self.0.gradients(BackwardInputs { inputs, output, gradient, wanted });
        register::<B, N>(ops.parents.map(|parent| parent.map(|parent| parent.id)), found, gradients);
    }
}

impl<B: Concrete, C: CheckpointStrategy, O: ComputeMany<B, N, M>, const N: usize, const M: usize> RunMany<O, N, M>
    for Autodiff<B, C>
{
    fn run_many(operation: O, inputs: [FloatTensor<Self>; N]) -> [FloatTensor<Self>; M] {
        let outputs = operation.forward(inputs.each_ref().map(|input| input.primitive().clone()));
        let nodes = inputs.each_ref().map(|input| input.node());
        let step = BackwardPassOfMany::<O, M>(operation).prepare::<C>(nodes).compute_bound();
        // What stands for the operation has no value that anybody reads.
        let value = outputs[0].clone();
        let waiting: Waiting<FloatTensor<B>, M> = Waiting::new([const { None }; M].into());
        let node = match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let inputs = keep::<O, B, C, N>(&inputs, |input| step.checkpoint(input));
                let output = O::WANTS_OUTPUT.then(|| value.clone());
                step.finish(StateOfMany { inputs, output, waiting: waiting.clone() }, value)
            }
            OpsKind::UnTracked(step) => step.finish(value),
        };
        let mut place = 0..;
        outputs.map(|output| {
            let this = Output::<M>(place.next().expect("it does not end"));
            match this.prepare::<C>([node.node()]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(waiting.clone(), output),
                OpsKind::UnTracked(step) => step.finish(output),
            }
        })
    }
}
