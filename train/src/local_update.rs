//! What a rank's local batch adds to an update.

use burn::module::Module;
use burn::tensor::{Device, Gradients as Tape, Tensor};

use crate::gradients::Gradients;
use crate::trainable::Trainable;

/// A rank's part of one update. The parts of all ranks add up to the update of the batch.
#[derive(Debug)]
pub struct LocalUpdate {
    /// The loss's gradients.
    pub gradients: Gradients,
    /// What there is to log of it, the loss among it.
    pub metrics: Metrics,
    device: Device,
}

/// Metrics by their names, each `[1]` and without gradient, in the order in which they are logged; those of
/// micro-batches and ranks add up.
#[derive(Debug, Default)]
pub struct Metrics(Vec<(&'static str, Tensor<1>)>);

impl LocalUpdate {
    /// Without gradients and metrics yet.
    pub fn new(model: &impl Trainable) -> Self {
        Self { gradients: Gradients::default(), metrics: Metrics::default(), device: model.device() }
    }

    /// The same with metrics of these names that are 0. Ranks must have the same metrics, and where there are fewer
    /// rows than ranks one of them adds none.
    pub fn with_metrics(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        for name in names {
            self.metrics.add(name, Tensor::zeros([1], &self.device));
        }
        self
    }

    /// Adds a micro-batch: the gradients of its part of the loss, `[1]`, and its parts of the metrics.
    pub fn add(
        &mut self,
        model: &impl Module,
        loss: Tensor<1>,
        metrics: impl IntoIterator<Item = (&'static str, Tensor<1>)>,
    ) {
        self.add_gradients(model, loss.backward());
        for (name, value) in metrics {
            self.metrics.add(name, value);
        }
    }

    /// Adds the gradients of a backward pass.
    pub fn add_gradients(&mut self, model: &impl Module, tape: Tape) {
        self.gradients.add(Gradients::collect(model, tape));
    }

    /// Adds to a metric that the host knows.
    pub fn add_value(&mut self, name: &'static str, value: f64) {
        self.metrics.add(name, Tensor::from_data([value as f32], &self.device));
    }
}

impl Metrics {
    /// Adds to the metric of this name, which may be a new one; a gradient history is dropped.
    pub fn add(&mut self, name: &'static str, value: Tensor<1>) {
        let value = value.inner();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.clone() + value,
            None => self.0.push((name, value)),
        }
    }

    /// The metric of this name.
    pub fn get(&self, name: &str) -> Option<Tensor<1>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// All metrics with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor<1>)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The names and the metrics.
    pub(crate) fn unzip(self) -> (Vec<&'static str>, Vec<Tensor<1>>) {
        self.0.into_iter().unzip()
    }
}
