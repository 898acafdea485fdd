//! Where a model's parameters come from while it is built: a checkpoint or fresh random numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand_distr::{Distribution, Normal, Uniform};

use crate::hub::TensorInFile;
use crate::random::{generator, name_key};
use crate::{ModelError, Precision};

/// How a parameter that no checkpoint holds begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
}

/// Hands out parameters by their name in the checkpoint.
pub(crate) struct Parameters {
    /// The checkpoint, to be named in errors.
    path: PathBuf,
    /// Its configuration, to be named in errors.
    config: &'static str,
    stored: BTreeMap<String, TensorInFile>,
    /// Seed of the parameters that are not stored; without one they are errors.
    seed: Option<u64>,
    device: Device,
    /// What the backbone's matrices are kept in.
    backbone: Precision,
}

impl Parameters {
    /// Every parameter fresh.
    pub fn fresh(seed: u64, device: &Device) -> Self {
        let stored = BTreeMap::new();
        Self { seed: Some(seed), ..Self::stored(Path::new(""), "", stored, device) }
    }

    /// Parameters of the checkpoint at `path`, whose configuration is called `config` there; a missing one is an error.
    pub fn stored(path: &Path, config: &'static str, stored: BTreeMap<String, TensorInFile>, device: &Device) -> Self {
        Self { path: path.to_owned(), config, stored, seed: None, device: device.clone(), backbone: Precision::F32 }
    }

    /// The same, with the backbone's matrices rounded to a precision as they are taken, and kept in it.
    pub fn with_backbone_in(self, backbone: Precision) -> Self {
        Self { backbone, ..self }
    }

    /// The parameter called `name`, taken out of the checkpoint or begun fresh.
    pub fn take<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let values = match (self.stored.remove(name), self.seed) {
            (Some(tensor), _) if tensor.shape() == shape => tensor.read()?,
            (Some(tensor), _) => {
                let (config, stored) = (self.config, tensor.shape());
                let problem = format!("tensor `{name}` has shape {stored:?}, but {config} requires {shape:?}");
                return Err(ModelError::damaged(&self.path, problem));
            }
            (None, Some(seed)) => init.draw(shape.iter().product(), name, seed),
            (None, None) => {
                return Err(ModelError::damaged(&self.path, format!("tensor `{name}` of shape {shape:?} is missing")));
            }
        };
        let values = Tensor::<D>::from_data(TensorData::new(values, shape), &self.device);
        let is_of_backbone = name.starts_with("model.") || name.starts_with("lm_head.");
        let rounds = D == 2 && is_of_backbone && self.backbone != Precision::F32;
        Ok(Param::from_tensor(if rounds { values.cast(self.backbone.dtype()) } else { values }))
    }

    /// Makes sure that the checkpoint held nothing else.
    pub fn finish(self) -> Result<(), ModelError> {
        match self.stored.keys().next() {
            None => Ok(()),
            Some(name) => Err(ModelError::damaged(
                &self.path,
                format!(
                    "contains {} tensors that {} does not account for; the first is `{name}`",
                    self.stored.len(),
                    self.config
                ),
            )),
        }
    }
}

impl Init {
    fn draw(self, count: usize, name: &str, seed: u64) -> Vec<f32> {
        let mut rng = generator([seed, name_key(name), 0, 0]);
        match self {
            Self::Zeros => vec![0.0; count],
            Self::Ones => vec![1.0; count],
            Self::Normal(std) => {
                let normal = Normal::new(0.0, std as f32).expect("a standard deviation is finite and not negative");
                normal.sample_iter(&mut rng).take(count).collect()
            }
            Self::Uniform(bound) => {
                let uniform =
                    Uniform::new_inclusive(-bound as f32, bound as f32).expect("the bound is finite and not negative");
                uniform.sample_iter(&mut rng).take(count).collect()
            }
        }
    }
}
