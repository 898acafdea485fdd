//! A batch's shared prefix that several backward passes share.

use burn::tensor::{Gradients, Tensor};

use crate::on_tape;

use super::state::{KeyValue, Segment, SharedPrefix};

/// A shared prefix detached from its graph: the gradients of all micro-batches are collected, and go back through the
/// graph once.
#[derive(Debug)]
pub struct DetachedPrefix {
    whole: Segment,
    leaf: SharedPrefix,
    /// Sum of the gradients by the leaf's keys and values, in the order of the layers.
    by_key_values: Vec<Tensor<4>>,
    by_hidden: Option<Tensor<3>>,
}

impl DetachedPrefix {
    /// Detaches a prefix that was computed with gradients.
    pub fn new(SharedPrefix { tokens, segment: whole }: SharedPrefix) -> Self {
        let segment = Segment {
            layers: whole
                .layers
                .iter()
                .map(|KeyValue { keys, values }| KeyValue { keys: leaf(keys), values: leaf(values) })
                .collect(),
            hidden: leaf(&whole.hidden),
            starts: whole.starts.clone(),
            lengths: whole.lengths.clone(),
        };
        let leaf = SharedPrefix { tokens, segment };
        Self { whole, leaf, by_key_values: Vec::new(), by_hidden: None }
    }

    /// The prefix for others to build on.
    pub fn prefix(&self) -> &SharedPrefix {
        &self.leaf
    }

    /// Takes what a backward pass found to be the gradients by the prefix.
    pub fn collect(&mut self, tape: &mut Gradients) {
        let found: Vec<Tensor<4>> = key_values(&self.leaf.segment)
            .map(|tensor| tensor.grad_remove(tape).unwrap_or_else(|| tensor.clone().inner().zeros_like()))
            .collect();
        self.by_key_values = match std::mem::take(&mut self.by_key_values) {
            sums if sums.is_empty() => found,
            sums => sums.into_iter().zip(found).map(|(sum, found)| sum + found).collect(),
        };
        // Nothing reads the hidden states of a model without thoughts.
        if let Some(found) = self.leaf.segment.hidden.grad_remove(tape) {
            self.by_hidden = Some(match self.by_hidden.take() {
                Some(sum) => sum + found,
                None => found,
            });
        }
    }

    /// Goes back from the prefix with all that was collected; `None` if nothing was, or nothing that trains had a part
    /// in the prefix.
    pub fn backward(self) -> Option<Gradients> {
        // A function whose gradient by the prefix is what was collected.
        let along = |tensor: Tensor<1>, gradient: Tensor<1>| {
            let gradient = on_tape(gradient, tensor.gradient_checkpointing_strategy());
            (tensor * gradient).sum()
        };
        // Where only some of the model trains, it may be that nothing of it had a part in the keys or values of a
        // layer.
        let by_layers = key_values(&self.whole)
            .zip(self.by_key_values)
            .filter(|(tensor, _)| tensor.is_tracked())
            .map(|(tensor, gradient)| along(tensor.clone().flatten(0, 3), gradient.flatten(0, 3)));
        let by_hidden = self
            .by_hidden
            .filter(|_| self.whole.hidden.is_tracked())
            .map(|gradient| along(self.whole.hidden.clone().flatten(0, 2), gradient.flatten(0, 2)));
        let sum = by_layers.chain(by_hidden).reduce(|sum, part| sum + part)?;
        Some(sum.backward())
    }
}

fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    on_tape(tensor.clone().inner(), tensor.gradient_checkpointing_strategy()).require_grad()
}

fn key_values(segment: &Segment) -> impl Iterator<Item = &Tensor<4>> {
    segment.layers.iter().flat_map(|KeyValue { keys, values }| [keys, values])
}
