//! Walking over a model's parameters by the names they have in a checkpoint.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// What an adapter's first factor is called in a checkpoint, after the projection's name: `[rank, d_input]`.
pub(crate) const FACTOR_A: &str = ".lora_A.weight";
/// What an adapter's second factor is called in a checkpoint, after the projection's name: `[d_output, rank]`.
pub(crate) const FACTOR_B: &str = ".lora_B.weight";

/// Is shown every parameter.
pub trait NamedVisitor {
    /// Called once for each parameter, in the order of the fields.
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>);
}

/// Replaces every parameter.
pub trait NamedMapper {
    /// Called once for each parameter, in the order of the fields.
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Shows every parameter of a model, by its name in the checkpoint (`model.layers.0.mlp.up_proj.weight`).
pub fn visit_named(model: &impl Module, visitor: &mut impl NamedVisitor) {
    model.visit(&mut Walk { path: Vec::new(), inner: visitor });
}

/// Replaces every parameter of a model; see [`visit_named`] for the names.
pub fn map_named<M: Module>(model: M, mapper: &mut impl NamedMapper) -> M {
    model.map(&mut Walk { path: Vec::new(), inner: mapper })
}

struct Walk<'a, T> {
    path: Vec<String>,
    inner: &'a mut T,
}

impl<T> Walk<'_, T> {
    fn name(&self) -> String {
        let path = self.path.join(".");
        if let Some(rest) = path.strip_prefix("backbone.") {
            // A weight's adapter, under PEFT's names; Burn counts the factors from the output on.
            return rest.replace(".weight.lora.a", FACTOR_B).replace(".weight.lora.b", FACTOR_A);
        }
        if let Some(rest) = path.strip_prefix("source.") {
            return rest.replacen("LatentAttention.", "attention.", 1).replacen("Constants.", "thoughts.", 1);
        }
        match path.strip_prefix("encoder.") {
            Some(rest) => rest.replacen("Attention.", "", 1).replacen("Gru.layers.", "gru.", 1),
            None => path,
        }
    }
}

impl<T: NamedVisitor> ModuleVisitor for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.name();
        self.inner.visit(&name, param);
    }
}

impl<T: NamedMapper> ModuleMapper for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.name();
        self.inner.map(&name, param)
    }
}
