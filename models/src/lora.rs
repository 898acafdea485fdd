//! Low-rank adapters on the backbone's projections.

use std::collections::BTreeMap;

use burn::module::{Lora, Module, Param, ParamGroup};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::named::{FACTOR_A, FACTOR_B, NamedMapper, NamedVisitor, map_named, visit_named};
use crate::parameters::{Init, Parameters};
use crate::precision::in_float32;
use crate::{LatentRecommender, ModelError};

/// The projections of a block.
const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Highest rank that a file may ask for.
pub(crate) const MOST_RANK: usize = 1 << 16;

/// Low-rank adaptation (Hu et al., arXiv 2106.09685): a weight `W` stays as it is and becomes `W + alpha / rank * B A`, of which
/// the factors `A`, `[rank, d_input]`, and `B`, `[d_output, rank]`, train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of `B` and rows of `A`.
    pub rank: usize,
    /// What the product of the factors is multiplied by, times the rank.
    pub alpha: f64,
    /// The projections that are adapted: names as `q_proj`, for all blocks, or whole names as
    /// `model.layers.0.self_attn.q_proj`.
    pub targets: Vec<String>,
    /// Name or folder of the model that is adapted, for PEFT to find it.
    #[serde(default)]
    pub base: Option<String>,
}

impl LoraConfig {
    /// All projections of all blocks, with twice the rank as `alpha`.
    pub fn of_rank(rank: usize) -> Self {
        Self { rank, alpha: 2.0 * rank as f64, targets: PROJECTIONS.map(str::to_owned).to_vec(), base: None }
    }

    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.rank == 0 || self.rank > MOST_RANK {
            return Err(ModelError::Input(format!("a LoRA rank of {} is not between 1 and {MOST_RANK}", self.rank)));
        }
        if !self.alpha.is_finite() {
            return Err(ModelError::Input(format!("a LoRA alpha of {} is not a number", self.alpha)));
        }
        if self.targets.is_empty() {
            return Err(ModelError::Input("there is no projection to adapt by LoRA".into()));
        }
        Ok(())
    }

    /// Whether the projection of this name is adapted.
    pub(crate) fn adapts(&self, projection: &str) -> bool {
        let is_it = |target: &String| {
            projection.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.targets.iter().any(is_it)
    }
}

impl LatentRecommender {
    /// The model with fresh adapters, which change nothing yet. All of the backbone but them is frozen; the source of the thoughts
    /// is not. Adapters that the model has already become part of its weights first.
    ///
    /// `A` begins uniform between minus and plus `1 / sqrt(d_input)` and `B` at zero, as in PEFT.
    ///
    /// # Errors
    ///
    /// A rank of 0 or above a projection's sizes, an alpha that is not finite, or a target that is no projection of the model.
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
                "a LoRA rank of {rank} is more than both sides of `{projection}`, {size:?}"
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
