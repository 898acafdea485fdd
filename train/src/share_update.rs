//! What a worker's share of a batch adds to an update.

use burn::tensor::{Device, Tensor};

use crate::gradients::Gradients;

/// A share's part of one update. The parts of all shares add up to the update of the batch.
#[derive(Debug, Default)]
pub struct ShareUpdate {
    /// The loss's gradients.
    pub gradients: Gradients,
    /// What there is to say of it, the loss among it.
    pub figures: Figures,
}

/// Figures by their names, each `[1]` and without gradient, in the order in which they are logged; those of micro-batches and shares add up.
#[derive(Debug, Default)]
pub struct Figures(Vec<(&'static str, Tensor<1>)>);

impl ShareUpdate {
    /// No gradients yet, and figures of these names that are 0, as a share without rows has them.
    pub(crate) fn with_figures(names: impl IntoIterator<Item = &'static str>, device: &Device) -> Self {
        let figures = names.into_iter().map(|name| (name, Tensor::zeros([1], device))).collect();
        Self { gradients: Gradients::default(), figures: Figures(figures) }
    }
}

impl Figures {
    /// Adds to the figure of this name, which may be a new one.
    pub(crate) fn add(&mut self, name: &'static str, value: Tensor<1>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.clone() + value,
            None => self.0.push((name, value)),
        }
    }

    /// The figure of this name.
    pub fn get(&self, name: &str) -> Option<Tensor<1>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// All figures with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor<1>)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The names and the figures.
    pub(crate) fn unzip(self) -> (Vec<&'static str>, Vec<Tensor<1>>) {
        self.0.into_iter().unzip()
    }
}
