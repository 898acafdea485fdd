//! How far a figure is from the golden one, and how far it may be.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde_json::Value;

use super::figures::GradientFigures;
use crate::models::host;
use crate::train::{Gradients, LocalUpdate};

/// Largest deviation of a figure.
pub(super) const LIMIT: f64 = 1e-4;
/// A loss may be a sum that cancels; a smaller one is compared as if it were this large.
const SMALLEST_LOSS: f64 = 0.1;

/// How far a figure is from the golden one.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviation {
    /// Which figure.
    pub what: String,
    /// The largest difference of its values, divided by the largest of them; not a number if one of them is not.
    pub error: f64,
    /// What is accepted.
    pub limit: f64,
}

impl Deviation {
    /// Whether it is accepted.
    pub fn holds(&self) -> bool {
        self.error <= self.limit
    }
}

/// A figure of an update; nothing where it has no such figure.
pub(super) fn figure(update: &LocalUpdate, name: &str) -> Vec<f64> {
    update.metrics.get(name).into_iter().collect()
}

pub(super) fn gradient_deviations(
    stage: &str,
    gradients: &Gradients,
    expected: &BTreeMap<String, GradientFigures>,
    limit: f64,
) -> Vec<Deviation> {
    let check = |(key, expected): (&String, &GradientFigures)| {
        let (name, rows) = key.split_once(" rows ").map_or((key.as_str(), None), |(name, rows)| (name, Some(rows)));
        let mut found = Vec::new();
        if let Some(gradient) = gradients.get(name) {
            let width = gradient.dims()[1];
            found = values(gradient);
            if let Some(rows) = rows {
                let rows: Vec<usize> = serde_json::from_str(rows).unwrap_or_default();
                found = rows.iter().flat_map(|row| found.iter().skip(row * width).take(width)).copied().collect();
            }
        }
        Deviation { limit, ..difference(&format!("{stage} gradient of {key}"), found, &expected.values) }
    };
    expected.iter().map(check).collect()
}

pub(super) fn loss_deviation(what: &str, found: Vec<f64>, expected: f64) -> Deviation {
    let error = found.first().map_or(f64::NAN, |found| (found - expected).abs() / expected.abs().max(SMALLEST_LOSS));
    Deviation { what: what.into(), error, limit: LIMIT }
}

pub(super) fn deviation(what: &str, found: Vec<f64>, expected: &Value) -> Deviation {
    difference(what, found, &numbers(expected))
}

pub(super) fn difference(what: &str, found: Vec<f64>, expected: &[f64]) -> Deviation {
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A maximum would leave out NaN.
    let is_whole = found.len() == expected.len() && !found.is_empty() && found.iter().all(|value| value.is_finite());
    let error = if is_whole { apart.fold(0.0, f64::max) / largest } else { f64::NAN };
    Deviation { what: what.into(), error, limit: LIMIT }
}

/// All numbers of nested lists.
pub(super) fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap_or(f64::NAN)],
    }
}

pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    host::read(tensor).into_iter().map(f64::from).collect()
}
