//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) with its state kept by the parameters' names.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use latentr3_models::hub::{PendingTensor, StoredTensor, read_tensors, write_tensors};
use latentr3_models::ops::{AdamWStep, adamw};
use latentr3_models::{NamedMapper, map_named, on_tape};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::gradients::{Gradients, as_matrix};

/// Name of the tensor that holds the number of steps.
const STEPS: &str = "steps";

/// Constants of the optimiser; the defaults are PyTorch's, without weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to matrices only.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimiser's state.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u32,
    moments: BTreeMap<String, Moments>,
}

/// Moments of one parameter, as matrices `[first dimension, the others]`.
#[derive(Debug, Clone)]
struct Moments {
    first: Tensor<2>,
    second: Tensor<2>,
}

impl AdamW {
    /// An optimiser that has not stepped.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, steps: 0, moments: BTreeMap::new() }
    }

    /// Moves every parameter that has a gradient, by its gradient times `factor` and at the learning rate of its name.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: Gradients,
        factor: f64,
        learning_rate: impl Fn(&str) -> f64,
    ) -> M {
        self.steps += 1;
        map_named(model, &mut Mover { optimizer: self, gradients, factor, learning_rate: &learning_rate })
    }

    fn update(
        &mut self,
        name: &str,
        value: Tensor<2>,
        gradient: Tensor<2>,
        factor: f64,
        learning_rate: f64,
        decays: bool,
    ) -> Tensor<2> {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let moments = match self.moments.remove(name) {
            Some(Moments { first, second }) => [first, second],
            None => [gradient.zeros_like(), gradient.zeros_like()],
        };
        let weight_decay = if decays { weight_decay } else { 0.0 };
        let step = AdamWStep {
            beta1,
            beta2,
            epsilon,
            learning_rate,
            gradient_factor: factor,
            weight_decay,
            number: self.steps,
        };
        let (value, [first, second]) = adamw(value, gradient, moments, step);
        self.moments.insert(name.to_owned(), Moments { first, second });
        value
    }

    /// Writes the state as safetensors, the moments of `NAME` as `NAME.first` and `NAME.second`.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let moments = self.moments.iter().flat_map(|(name, Moments { first, second })| {
            [("first", first), ("second", second)]
                .map(|(which, moment)| PendingTensor::of(format!("{name}.{which}"), moment.clone()))
        });
        // A float32 holds whole numbers of 16 bits exactly.
        let steps = [self.steps >> 16, self.steps & 0xffff].map(|half| half as f32).to_vec();
        let steps = PendingTensor { name: STEPS.into(), shape: vec![2], values: Box::new(|| steps) };
        Ok(write_tensors(path, moments.chain([steps]).collect())?)
    }

    /// Reads a state that [`Self::save`] wrote.
    ///
    /// # Errors
    ///
    /// The file missing, cut short, or not such a state.
    pub fn load(path: &Path, config: AdamWConfig, device: &Device) -> Result<Self, TrainError> {
        let error = |problem: String| TrainError::run(path, problem);
        let mut tensors = read_tensors(path)?;
        let steps = match tensors.remove(STEPS).map(|tensor| tensor.values).as_deref() {
            Some(&[high, low])
                if [high, low].iter().all(|half| half.fract() == 0.0 && (0.0..65536.0).contains(half)) =>
            {
                ((high as u32) << 16) | low as u32
            }
            _ => return Err(error("holds no number of steps; it is not an optimiser's state".into())),
        };
        let mut moments = BTreeMap::new();
        let names: Vec<String> =
            tensors.keys().filter_map(|name| name.strip_suffix(".first")).map(str::to_owned).collect();
        for name in names {
            let mut take = |part: &str| match tensors.remove(&format!("{name}.{part}")) {
                Some(StoredTensor { shape, values }) if shape.len() == 2 => {
                    Ok(Tensor::from_data(TensorData::new(values, [shape[0], shape[1]]), device))
                }
                _ => Err(error(format!("the {part} moment of `{name}` is missing or misshapen"))),
            };
            let pair = Moments { first: take("first")?, second: take("second")? };
            moments.insert(name, pair);
        }
        match tensors.keys().next() {
            None => Ok(Self { config, steps, moments }),
            Some(name) => Err(error(format!("tensor `{name}` does not belong to an optimiser's state"))),
        }
    }

    /// Makes sure that the state fits the parameters that are to be trained.
    ///
    /// # Errors
    ///
    /// A trained parameter without moments, moments of another shape, or moments of no parameter.
    pub fn check(&self, shapes: &BTreeMap<String, [usize; 2]>, path: &Path) -> Result<(), TrainError> {
        if self.steps == 0 && self.moments.is_empty() {
            return Ok(());
        }
        for (name, shape) in shapes {
            match self.moments.get(name) {
                Some(moments) if moments.first.dims() == *shape && moments.second.dims() == *shape => {}
                _ => {
                    return Err(TrainError::run(
                        path,
                        format!("the moments of `{name}` are missing or not of shape {shape:?}"),
                    ));
                }
            }
        }
        match self.moments.keys().find(|name| !shapes.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(TrainError::run(path, format!("has moments of `{name}`, which is not trained"))),
        }
    }
}

struct Mover<'a> {
    optimizer: &'a mut AdamW,
    gradients: Gradients,
    factor: f64,
    learning_rate: &'a dyn Fn(&str) -> f64,
}

impl NamedMapper for Mover<'_> {
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.take(name) else {
            return parameter;
        };
        parameter.map(|value| {
            let (dims, strategy) = (value.dims(), value.gradient_checkpointing_strategy());
            let value = as_matrix(value.inner());
            let rate = (self.learning_rate)(name);
            let moved = self.optimizer.update(name, value, gradient, self.factor, rate, D > 1);
            on_tape(moved.reshape(dims), strategy).require_grad()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_equal_the_closed_form() {
        let device = crate::device_under_test();
        let matrix = |value: f32| Tensor::<2>::from_data([[value]], &device);
        let config = AdamWConfig { weight_decay: 0.1, ..Default::default() };
        let mut optimizer = AdamW::new(config);
        let (rate, gradients) = (0.01, [0.5f64, -0.2]);
        let (mut value, mut m, mut v) = (1.0f64, 0.0, 0.0);
        let mut tensor = matrix(1.0);
        for (i, gradient) in gradients.into_iter().enumerate() {
            optimizer.steps += 1;
            tensor = optimizer.update("w", tensor, matrix(gradient as f32), 1.0, rate, true);
            let t = (i + 1) as i32;
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            value = value * (1.0 - rate * 0.1)
                - rate * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        let error = (f64::from(tensor.into_scalar::<f32>()) - value).abs();
        assert!(error < 1e-6, "{error}");
    }

    #[test]
    fn the_state_survives_a_file() {
        let device = crate::device_under_test();
        let mut optimizer = AdamW::new(AdamWConfig::default());
        optimizer.steps = 70_000;
        let gradient = Tensor::<2>::from_data([[0.1, -0.2], [0.3, 0.4]], &device);
        optimizer.update("layer.weight", gradient.clone(), gradient, 1.0, 0.1, false);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        optimizer.save(&path).unwrap();
        let loaded = AdamW::load(&path, AdamWConfig::default(), &device).unwrap();
        assert_eq!(loaded.steps, 70_000);
        let shapes = |name: &str| BTreeMap::from([(name.to_owned(), [2, 2])]);
        loaded.check(&shapes("layer.weight"), &path).unwrap();
        assert!(loaded.check(&shapes("other.weight"), &path).is_err());
        let misshapen = AdamW { steps: 0, ..loaded.clone() };
        assert!(misshapen.check(&BTreeMap::from([("layer.weight".into(), [2, 3])]), &path).is_err());
        let [a, b] = [&optimizer, &loaded].map(|o| o.moments["layer.weight"].second.to_data());
        a.assert_eq(&b, true);
    }
}
