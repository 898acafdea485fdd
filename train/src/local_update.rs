//! What a rank's local batch adds to an update.

use burn::module::Module;
use burn::tensor::{Gradients as Tape, Tensor};
use latentr3_models::host;

use crate::gradients::Gradients;

/// A rank's part of one update. The parts of all ranks add up to the update of the batch.
#[derive(Debug, Default)]
pub struct LocalUpdate {
    /// The loss's gradients.
    pub gradients: Gradients,
    /// What there is to log of it, the loss among it.
    pub metrics: Metrics,
}

/// Metrics by their names, in the order in which they are logged; those of micro-batches and ranks add up.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Metric>);

/// A sum of what the host knows and of what lies on the device.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    known: f64,
    /// `[1]`, without gradient.
    on_device: Option<Tensor<1>>,
}

impl LocalUpdate {
    /// The same with metrics of these names that are 0. Ranks must have the same metrics, and where there are fewer
    /// rows than ranks one of them adds none.
    pub fn with_metrics(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        for name in names {
            self.metrics.add_value(name, 0.0);
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
}

impl Metrics {
    /// Adds `[1]` to the metric of this name, which may be a new one; a gradient history is dropped.
    pub fn add(&mut self, name: &'static str, value: Tensor<1>) {
        let value = value.inner();
        let metric = self.named(name);
        metric.on_device = Some(match metric.on_device.take() {
            Some(sum) => sum + value,
            None => value,
        });
    }

    /// The same of what the host knows.
    pub fn add_value(&mut self, name: &'static str, value: f64) {
        self.named(name).known += value;
    }

    fn named(&mut self, name: &'static str) -> &mut Metric {
        let place = self.0.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
            self.0.push(Metric { name, known: 0.0, on_device: None });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// The metrics' names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|metric| metric.name).collect()
    }

    /// The metrics' values, in one read together with another one, `[1]`.
    pub(crate) fn read_with(&self, other: Tensor<1>) -> (Vec<f64>, f64) {
        let on_device = self.0.iter().filter_map(|metric| metric.on_device.clone());
        let mut read = host::read_all(on_device.chain([other]).collect()).into_iter().map(|value| f64::from(value[0]));
        let mut next = || read.next().expect("all that lies on the device was read");
        let value = |metric: &Metric| metric.known + metric.on_device.as_ref().map_or(0.0, |_| next());
        (self.0.iter().map(value).collect(), next())
    }

    /// The value of the metric of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        let metric = self.0.iter().find(|metric| metric.name == name)?;
        Some(metric.known + metric.on_device.clone().map_or(0.0, |value| f64::from(host::read(value)[0])))
    }
}
