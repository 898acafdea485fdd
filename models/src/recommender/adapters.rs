//! Low-rank adapters on the backbone's projections.

use std::collections::BTreeMap;

use burn::module::{Lora, Module, Param, ParamGroup};
use burn::tensor::Tensor;

use super::LatentRecommender;
use super::precision::in_float32;
use crate::ModelError;
use crate::lora::{LoraConfig, PROJECTIONS};
use crate::named::{FACTOR_A, FACTOR_B, NamedMapper, NamedVisitor, map_named, visit_named};
use crate::parameters::{Init, Parameters};

impl LatentRecommender {
    /// The model with fresh adapters, which change nothing yet. All of the backbone but them is frozen; the source of
    /// the thoughts is not. Adapters that the model has already become part of its weights first.
    ///
    /// `A` begins uniform between minus and plus `1 / sqrt(d_input)` and `B` at zero, as in PEFT.
    ///
    /// # Errors
    ///
    /// A rank of 0 or above a projection's sizes, an alpha that is not finite, or a target that is no projection of the
    /// model.
    pub fn with_lora(self, config: &LoraConfig, seed: u64) -> Result<Self, ModelError> {
        let device = self.device();
        self.merged().attach(config, &mut Parameters::fresh(seed, &device))
    }

    /// The model with adapters whose factors come from `parameters`.
    pub(crate) fn attach(mut self, config: &LoraConfig, parameters: &mut Parameters) -> Result<Self, ModelError> {
        config.check()?;
        let projections = self.projections();
        for target in &config.targets {
            let alone = LoraConfig { targets: vec![target.clone()], ..config.clone() };
            if !projections.keys().any(|projection| alone.adapts(projection)) {
                return Err(ModelError::Input(format!(
                    "the model has no projection `{target}` to adapt; each block has {}",
                    PROJECTIONS.join(", ")
                )));
            }
        }
        let adapted: Vec<_> = projections.into_iter().filter(|(projection, _)| config.adapts(projection)).collect();
        // More is no use, and a rank that is a slip would take all memory.
        if let Some((projection, size)) = adapted.iter().find(|(_, size)| config.rank > size[0].max(size[1])) {
            let rank = config.rank;
            return Err(ModelError::Input(format!(
                "a LoRA rank of {rank} exceeds both dimensions of `{projection}`, {size:?}"
            )));
        }
        let weights = adapted.into_iter().map(|(projection, _)| format!("{projection}.weight")).collect();
        let lora = Lora::new(config.rank, config.alpha).set_param_group(ParamGroup::from_paths(weights));
        self.backbone = self.backbone.apply_lora(lora);
        self.backbone.lora = Some(config.clone());
        let mut begin = Begin { parameters, error: None };
        let model = map_named(self, &mut begin);
        begin.error.map_or(Ok(model), Err)
    }

    /// Names of the blocks' projections and sizes of their weights.
    pub(crate) fn projections(&self) -> BTreeMap<String, [usize; 2]> {
        let mut projections = Projections(BTreeMap::new());
        visit_named(self, &mut projections);
        projections.0
    }

    /// What of the backbone is adapted, if anything is.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.backbone.lora.as_ref()
    }

    /// The model whose adapters, if it has any, are part of its weights.
    pub fn merged(mut self) -> Self {
        if self.backbone.lora.take().is_some() {
            // All of it trains again, so that nothing stays in 16 bits.
            self.backbone = in_float32(self.backbone.materialize()).set_require_grad(true);
        }
        self
    }
}

struct Projections(BTreeMap<String, [usize; 2]>);

impl NamedVisitor for Projections {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        let projection = name.strip_suffix(".weight").filter(|name| name.starts_with("model.layers."));
        if let (Some(projection), &[rows, columns]) = (projection, &parameter.dims()[..])
            && projection.ends_with("_proj")
        {
            self.0.insert(projection.to_owned(), [rows, columns]);
        }
    }
}

/// Gives the factors of fresh adapters their values.
struct Begin<'a> {
    parameters: &'a mut Parameters,
    error: Option<ModelError>,
}

impl NamedMapper for Begin<'_> {
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = parameter.dims();
        let init = match (name.ends_with(FACTOR_A), name.ends_with(FACTOR_B)) {
            (true, _) => Init::Uniform((shape[D - 1] as f64).powf(-0.5)),
            (_, true) => Init::Zeros,
            _ => return parameter,
        };
        match self.parameters.take(name, shape, init) {
            Ok(begun) => begun,
            Err(error) => {
                self.error.get_or_insert(error);
                parameter
            }
        }
    }
}
