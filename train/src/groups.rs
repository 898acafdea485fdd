//! Groups of parameters with learning rates of their own.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use latentr3_models::{NamedMapper, map_named};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::check_not_negative;
use crate::gradients::trained_shapes;

/// The parameters whose names begin with a prefix, as the checkpoint names them; a longer prefix goes before a shorter
/// one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// The beginning of the names, such as `attention.` or `model.layers.0.`.
    pub prefix: String,
    /// Factor on the learning rate; 0 freezes the parameters.
    pub rate: f64,
}

/// The factor on the learning rate of a parameter.
pub(crate) fn rate_of(groups: &[ParameterGroup], name: &str) -> f64 {
    let of_name = groups.iter().filter(|group| name.starts_with(&group.prefix));
    of_name.max_by_key(|group| group.prefix.len()).map_or(1.0, |group| group.rate)
}

/// Makes sure that every group has a rate that makes sense.
pub(crate) fn check(groups: &[ParameterGroup]) -> Result<(), TrainError> {
    groups.iter().try_for_each(|group| check_not_negative("groups", group.rate))
}

/// Freezes the parameters of groups whose rate is 0.
///
/// # Errors
///
/// A prefix with which no parameter that trains begins.
pub(crate) fn freeze<M: Module>(model: M, groups: &[ParameterGroup]) -> Result<M, TrainError> {
    struct Freeze<'a>(&'a [ParameterGroup]);
    impl NamedMapper for Freeze<'_> {
        fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trains = parameter.is_require_grad();
            if trains && rate_of(self.0, name) == 0.0 { parameter.set_require_grad(false) } else { parameter }
        }
    }
    let names = trained_shapes(&model);
    for ParameterGroup { prefix, .. } in groups {
        if !names.keys().any(|name| name.starts_with(prefix.as_str())) {
            let problem = format!("no trained parameter has a name that begins with `{prefix}`");
            return Err(TrainError::config("groups", problem));
        }
    }
    Ok(if groups.is_empty() { model } else { map_named(model, &mut Freeze(groups)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let group = |prefix: &str, rate| ParameterGroup { prefix: prefix.into(), rate };
        let groups = [group("model.", 0.5), group("model.layers.1.", 0.0), group("attention.", 2.0)];
        let rates = ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "attention.key.bias", "lm_head.weight"]
            .map(|name| rate_of(&groups, name));
        assert_eq!(rates, [0.5, 0.0, 2.0, 1.0]);
        assert!(check(&[group("x", -1.0)]).is_err() && check(&groups).is_ok());
    }
}
