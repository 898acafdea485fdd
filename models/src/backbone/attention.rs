//! Grouped-query attention over what ran before and over the new tokens themselves.

use burn::module::Module;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

use super::config::BackboneConfig;
use super::dropout::LayerDropped;
use super::joined::Joined;
use super::layers::{Linear, RmsNorm};
use super::rope::RopeAngles;
use super::state::KeyValue;
use crate::ModelError;
use crate::ops::{self, KeyLengths, Packing};
use crate::parameters::Parameters;

/// Multi-head attention with fewer key heads than query heads (Ainslie et al., arXiv 2305.13245).
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection, `[heads * head_dim, d_model]`.
    pub q_proj: Linear,
    /// Key projection, `[kv_heads * head_dim, d_model]`.
    pub k_proj: Linear,
    /// Value projection, `[kv_heads * head_dim, d_model]`.
    pub v_proj: Linear,
    /// Output projection, `[d_model, heads * head_dim]`.
    pub o_proj: Linear,
    /// Norm of each head of the queries, `[head_dim]`, where the family has one.
    pub q_norm: Option<RmsNorm>,
    /// Norm of each head of the keys, `[head_dim]`, where the family has one.
    pub k_norm: Option<RmsNorm>,
    head_dim: usize,
    /// Whether queries and keys are rotated.
    rotates: bool,
    /// The projections of queries, keys and values as one, for a pass on a GPU.
    #[module(skip)]
    pub(super) joined: Option<Joined>,
}

/// Keys and values of one earlier segment in one layer.
pub(crate) struct Context<'a> {
    pub key_value: &'a KeyValue,
    pub lengths: &'a KeyLengths,
}

impl Attention {
    pub(crate) fn build(
        parameters: &mut Parameters,
        name: &str,
        config: &BackboneConfig,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let (wide, narrow) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut projection =
            |part: &str, sizes, bias| Linear::projection(parameters, &format!("{name}.{part}"), sizes, bias);
        let head_norm = |parameters: &mut Parameters, part: &str| {
            let norm = || RmsNorm::build(parameters, &format!("{name}.{part}"), config.head_dim, config.rms_norm_eps);
            config.architecture.norms_heads().then(norm).transpose()
        };
        Ok(Self {
            q_proj: projection("q_proj", [config.d_model, wide], config.qkv_bias())?,
            k_proj: projection("k_proj", [config.d_model, narrow], config.qkv_bias())?,
            v_proj: projection("v_proj", [config.d_model, narrow], config.qkv_bias())?,
            o_proj: projection("o_proj", [wide, config.d_model], config.output_bias())?,
            q_norm: head_norm(parameters, "q_norm")?,
            k_norm: head_norm(parameters, "k_norm")?,
            head_dim: config.head_dim,
            rotates: !config.unrotated_layers.contains(&layer),
            joined: None,
        })
    }

    /// The projections of queries, keys and values as one, where that is possible. With gradient checkpointing it is
    /// not, for queries that come out of one operation with others are not computed again.
    pub(super) fn join(&self) -> Option<Joined> {
        let has_norms = self.q_norm.is_some() || self.k_norm.is_some();
        let checkpoints = self.q_proj.weight.val().gradient_checkpointing_strategy();
        if has_norms || checkpoints == Some(GradientCheckpointingStrategy::Balanced) {
            None
        } else {
            Joined::new(&[&self.q_proj, &self.k_proj, &self.v_proj])
        }
    }

    /// Attends from `x`, the tokens of `packing`, `[tokens, d_model]`, to every earlier segment and causally to
    /// themselves; `angles` are theirs, `[1, tokens, 1, head_dim / 2]`. Returns the output `[tokens, d_model]` with
    /// their keys and values.
    ///
    /// A segment of fewer rows serves `rows / its rows` consecutive rows of `x`, see [`ops::attend_also`]: nothing is
    /// repeated for samples, beams or query heads that share keys.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        packing: &Packing,
        angles: &RopeAngles,
        context: &[Context],
        dropped: LayerDropped,
    ) -> (Tensor<2>, KeyValue) {
        let (queries, own) = self.project(x, packing, angles);
        let [_, heads, _] = queries.dims();
        let factors = dropped.weights(heads, &own.keys, None, 0);
        let mut attended =
            ops::attend_causally(queries.clone(), own.keys.clone(), own.values.clone(), packing, factors);
        for (segment, Context { key_value: KeyValue { keys, values }, lengths }) in context.iter().enumerate() {
            let factors = dropped.weights(heads, keys, Some(lengths), 1 + segment);
            attended =
                ops::attend_also(attended, queries.clone(), keys.clone(), values.clone(), packing, lengths, factors);
        }
        (self.o_proj.forward(ops::mixed_values(attended)), own)
    }

    /// Queries `[tokens, heads, head_dim]` with keys and values.
    fn project(&self, x: Tensor<2>, packing: &Packing, angles: &RopeAngles) -> (Tensor<3>, KeyValue) {
        if let Some(joined) = &self.joined {
            let [heads, key_heads] = [&self.q_proj, &self.k_proj].map(|linear| linear.weight.dims()[0] / self.head_dim);
            let sizes = [heads, key_heads, self.head_dim];
            let (queries, [keys, values]) = joined.heads(x, packing, (angles, self.rotates), sizes);
            return (queries, KeyValue { keys, values });
        }
        let [tokens, _] = x.dims();
        let heads = |x: &Tensor<2>| x.dims()[1] / self.head_dim;
        let place = |x: Tensor<2>, norm: &Option<RmsNorm>| {
            let size = [1, tokens, heads(&x), self.head_dim];
            let x = match norm {
                Some(norm) => norm.forward(x.reshape([tokens * size[2], self.head_dim])).reshape(size),
                None => x.reshape(size),
            };
            if self.rotates { angles.rotate(x) } else { x }
        };
        let pad = |x: Tensor<2>| {
            let size = [packing.lengths().len(), packing.tokens(), heads(&x), self.head_dim];
            packing.unpack(x).reshape(size)
        };
        let queries = place(self.q_proj.forward(x.clone()), &self.q_norm).squeeze_dim::<3>(0);
        let own = KeyValue {
            keys: ops::checkpoint(
                pad(place(self.k_proj.forward(x.clone()), &self.k_norm).reshape([tokens as i32, -1])),
            ),
            values: ops::checkpoint(pad(self.v_proj.forward(x))),
        };
        (queries, own)
    }
}
