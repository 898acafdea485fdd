//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) with its state kept by the parameters' names.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use latentr3_models::hub::{PendingTensor, StoredTensor, read_tensors, write_tensors};
use latentr3_models::ops::{AdamWStep, adamw};
use latentr3_models::{NamedMapper, NamedVisitor, map_named, on_tape, visit_named};
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
    /// Keep an exponential average of the weights with this decay, from 0 to below 1, which is the model that is
    /// validated and saved; absent, the model is the one that trains. At step `t` the decay is at most `(1 + t) / (10 +
    /// t)`, as with `num_updates` of TensorFlow's `ExponentialMovingAverage`: 0.999 is reached at step 8,990.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, average: None }
    }
}

/// The optimiser's state.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u32,
    moments: BTreeMap<String, Moments>,
    /// The average of each parameter, as a matrix; empty where none is kept, or before the first step.
    averages: BTreeMap<String, Tensor<2>>,
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
        Self { config, steps: 0, moments: BTreeMap::new(), averages: BTreeMap::new() }
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
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, average } = self.config;
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
        if let Some(decay) = average {
            let steps = f64::from(self.steps);
            let decay = decay.min((1.0 + steps) / (10.0 + steps));
            let average = match self.averages.remove(name) {
                Some(average) => average.mul_scalar(decay) + value.clone().mul_scalar(1.0 - decay),
                None => value.clone(),
            };
            self.averages.insert(name.to_owned(), average);
        }
        value
    }

    /// The model with the averages of its parameters in their place; the model itself where none are kept.
    pub fn averaged<M: Module>(&self, model: &M) -> M {
        match self.averages.is_empty() {
            true => model.clone(),
            false => map_named(model.clone(), &mut Replacer(&self.averages)),
        }
    }

    /// Writes the state as safetensors, the moments of `NAME` as `NAME.first` and `NAME.second`, and where averages are
    /// kept the parameter of `model` that trains as `NAME.trained`: the checkpoint has the averages in its place.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn save(&self, path: &Path, model: &impl Module) -> Result<(), TrainError> {
        let trained = values_of(model, &self.averages);
        let trained = trained.into_iter().map(|(name, value)| PendingTensor::of(format!("{name}.trained"), value));
        let moments = self.moments.iter().flat_map(|(name, Moments { first, second })| {
            [("first", first), ("second", second)]
                .map(|(which, moment)| PendingTensor::of(format!("{name}.{which}"), moment.clone()))
        });
        // A float32 holds whole numbers of 16 bits exactly.
        let steps = [self.steps >> 16, self.steps & 0xffff].map(|half| half as f32).to_vec();
        let steps = PendingTensor { name: STEPS.into(), shape: vec![2], values: Box::new(|| steps) };
        Ok(write_tensors(path, moments.chain(trained).chain([steps]).collect())?)
    }

    /// Reads a state that [`Self::save`] wrote beside the model `saved`, and gives the model that trains.
    ///
    /// # Errors
    ///
    /// The file missing, cut short, not such a state, or not of that model.
    pub fn load<M: Module>(
        path: &Path,
        config: AdamWConfig,
        saved: M,
        device: &Device,
    ) -> Result<(Self, M), TrainError> {
        let error = |problem: String| TrainError::run(path, problem);
        let mut tensors = read_tensors(path)?;
        let steps = match tensors.remove(STEPS).map(|tensor| tensor.values).as_deref() {
            Some(&[high, low])
                if [high, low].iter().all(|half| half.fract() == 0.0 && (0.0..65536.0).contains(half)) =>
            {
                ((high as u32) << 16) | low as u32
            }
            _ => return Err(error("is not an optimiser state: it has no step count".into())),
        };
        let mut moments = BTreeMap::new();
        let names: Vec<String> =
            tensors.keys().filter_map(|name| name.strip_suffix(".first")).map(str::to_owned).collect();
        let mut trained = BTreeMap::new();
        for name in names {
            let mut take = |part: &str| match tensors.remove(&format!("{name}.{part}")) {
                Some(StoredTensor { shape, values }) if shape.len() == 2 => {
                    Ok(Tensor::<2>::from_data(TensorData::new(values, [shape[0], shape[1]]), device))
                }
                _ => Err(error(format!("tensor `{name}.{part}` is missing or not a matrix"))),
            };
            let pair = Moments { first: take("first")?, second: take("second")? };
            if config.average.is_some() {
                trained.insert(name.clone(), take("trained")?);
            }
            moments.insert(name, pair);
        }
        if let Some(name) = tensors.keys().next() {
            return Err(error(format!("tensor `{name}` is not part of an optimiser state")));
        }
        // What the folder holds as the model are the averages.
        let averages = values_of(&saved, &trained);
        if averages.len() < trained.len() || averages.iter().any(|(name, value)| value.dims() != trained[name].dims()) {
            return Err(error("does not match the model in the same folder".into()));
        }
        let model = map_named(saved, &mut Replacer(&trained));
        Ok((Self { config, steps, moments, averages }, model))
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
                        format!("the moments of `{name}` are missing or do not have shape {shape:?}"),
                    ));
                }
            }
        }
        match self.moments.keys().find(|name| !shapes.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(TrainError::run(path, format!("contains moments of `{name}`, which is not trained"))),
        }
    }
}

/// Puts other values in the place of parameters.
struct Replacer<'a>(&'a BTreeMap<String, Tensor<2>>);

impl NamedMapper for Replacer<'_> {
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(other) = self.0.get(name) else {
            return parameter;
        };
        parameter.map(|value| {
            let other = other.clone().reshape(value.dims());
            match value.is_autodiff() {
                true => on_tape(other, value.gradient_checkpointing_strategy()).require_grad(),
                false => other,
            }
        })
    }
}

/// A model's values of the parameters that have an entry in `of`, as matrices without gradient.
fn values_of(model: &impl Module, of: &BTreeMap<String, Tensor<2>>) -> BTreeMap<String, Tensor<2>> {
    struct Values<'a> {
        of: &'a BTreeMap<String, Tensor<2>>,
        found: BTreeMap<String, Tensor<2>>,
    }
    impl NamedVisitor for Values<'_> {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            if self.of.contains_key(name) {
                self.found.insert(name.to_owned(), as_matrix(parameter.val().inner()));
            }
        }
    }
    let mut values = Values { of, found: BTreeMap::new() };
    visit_named(model, &mut values);
    values.found
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
        let weight = |value: f32| Param::from_tensor(Tensor::<2>::from_data([[value, 1.0], [2.0, 3.0]], &device));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        for average in [None, Some(0.5)] {
            let config = AdamWConfig { average, ..Default::default() };
            let mut optimizer = AdamW::new(config);
            optimizer.steps = 70_000;
            let gradient = Tensor::<2>::from_data([[0.1, -0.2], [0.3, 0.4]], &device);
            let mut model = Layer { weight: weight(0.0) };
            for _ in 0..2 {
                let moved = optimizer.update("weight", model.weight.val(), gradient.clone(), 1.0, 0.1, false);
                model = Layer { weight: Param::from_tensor(moved) };
            }
            optimizer.save(&path, &model).unwrap();
            let saved = optimizer.averaged(&model);
            let is_averaged = saved.weight.to_data() != model.weight.to_data();
            assert_eq!(is_averaged, average.is_some());
            let (loaded, trains) = AdamW::load(&path, config, saved, &device).unwrap();
            trains.weight.to_data().assert_eq(&model.weight.to_data(), true);
            loaded.averaged(&trains).weight.to_data().assert_eq(&optimizer.averaged(&model).weight.to_data(), true);
            assert_eq!(loaded.steps, 70_000);
            let shapes = |name: &str| BTreeMap::from([(name.to_owned(), [2, 2])]);
            loaded.check(&shapes("weight"), &path).unwrap();
            assert!(loaded.check(&shapes("other.weight"), &path).is_err());
            let misshapen = AdamW { steps: 0, ..loaded.clone() };
            assert!(misshapen.check(&BTreeMap::from([("weight".into(), [2, 3])]), &path).is_err());
            let [a, b] = [&optimizer, &loaded].map(|o| o.moments["weight"].second.to_data());
            a.assert_eq(&b, true);
            // A state with averages is none without them, and the other way round.
            let other = AdamWConfig { average: average.is_none().then_some(0.5), ..config };
            assert!(AdamW::load(&path, other, model, &device).is_err());
        }
    }

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<2>>,
    }

    #[test]
    fn an_average_is_what_the_definition_says() {
        let device = crate::device_under_test();
        let mut optimizer = AdamW::new(AdamWConfig { average: Some(0.3), ..Default::default() });
        let mut weight = Tensor::<2>::from_data([[1.0f32]], &device);
        let mut expected = None;
        for step in 1..=4 {
            optimizer.steps += 1;
            let gradient = Tensor::from_data([[0.5f32]], &device);
            weight = optimizer.update("weight", weight, gradient, 1.0, 0.1, true);
            let value = f64::from(weight.clone().into_scalar::<f32>());
            let decay = (f64::from(1 + step) / f64::from(10 + step)).min(0.3);
            expected = Some(expected.map_or(value, |average: f64| decay * average + (1.0 - decay) * value));
        }
        let average = optimizer.averages["weight"].clone().into_scalar::<f32>();
        assert!((f64::from(average) - expected.unwrap()).abs() < 1e-6);
    }
}
