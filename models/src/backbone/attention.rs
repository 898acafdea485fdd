//! Grouped-query attention over what ran before and over the new tokens themselves.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use super::config::BackboneConfig;
use super::layers::Linear;
use super::rope::RopeAngles;
use super::state::KeyValue;
use crate::ModelError;
use crate::hub::Parameters;

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
    kv_heads: usize,
    head_dim: usize,
}

/// Keys and values of one earlier segment in one layer.
pub(crate) struct Context<'a> {
    pub key_value: &'a KeyValue,
    pub padding: Option<&'a Tensor<4>>,
}

impl Attention {
    pub(crate) fn build(parameters: &mut Parameters, name: &str, config: &BackboneConfig) -> Result<Self, ModelError> {
        let (wide, narrow) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut projection =
            |part: &str, sizes, bias| Linear::projection(parameters, &format!("{name}.{part}"), sizes, bias);
        Ok(Self {
            q_proj: projection("q_proj", [config.d_model, wide], config.qkv_bias)?,
            k_proj: projection("k_proj", [config.d_model, narrow], config.qkv_bias)?,
            v_proj: projection("v_proj", [config.d_model, narrow], config.qkv_bias)?,
            o_proj: projection("o_proj", [wide, config.d_model], config.output_bias)?,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        })
    }

    /// Attends from `x`, `[rows, tokens, d_model]`, to every earlier segment and causally to itself.
    ///
    /// A segment of fewer rows serves `rows / its rows` consecutive rows of `x`: their queries are folded into one
    /// matrix per key head, so that nothing is copied for samples, beams or query heads that share keys.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        angles: &RopeAngles,
        context: &[Context],
        causal: &Tensor<4>,
    ) -> (Tensor<3>, KeyValue) {
        let [rows, tokens, _] = x.dims();
        let (kv_heads, head_dim) = (self.kv_heads, self.head_dim);
        let split = |x: Tensor<3>| {
            let heads = x.dims()[2] / head_dim;
            x.reshape([rows, tokens, heads, head_dim]).swap_dims(1, 2)
        };
        let queries = angles.rotate(split(self.q_proj.forward(x.clone())));
        let own = KeyValue {
            keys: angles.rotate(split(self.k_proj.forward(x.clone()))),
            values: split(self.v_proj.forward(x)),
        };
        let [_, heads, _, _] = queries.dims();
        let group_tokens = heads / kv_heads * tokens;
        let queries =
            queries.mul_scalar((head_dim as f64).powf(-0.5)).reshape([rows, kv_heads, group_tokens, head_dim]);

        let mut scores: Vec<Tensor<4>> = Vec::with_capacity(context.len() + 1);
        for segment in context {
            let keys = segment.key_value.keys.clone();
            let segment_rows = keys.dims()[0];
            let mut score = fold(queries.clone(), segment_rows).matmul(keys.swap_dims(2, 3));
            if let Some(padding) = segment.padding {
                score = score + padding.clone();
            }
            scores.push(unfold(score, rows));
        }
        scores.push(queries.matmul(own.keys.clone().swap_dims(2, 3)) + causal.clone());
        let widths: Vec<usize> = scores.iter().map(|score| score.dims()[3]).collect();
        let weights = softmax(Tensor::cat(scores, 3), 3);

        let values = context.iter().map(|segment| &segment.key_value.values).chain([&own.values]);
        let mut start = 0;
        let mut mixed: Option<Tensor<4>> = None;
        for (values, width) in values.zip(widths) {
            let weights = fold(weights.clone().narrow(3, start, width), values.dims()[0]);
            let part = unfold(weights.matmul(values.clone()), rows);
            mixed = Some(match mixed {
                Some(mixed) => mixed + part,
                None => part,
            });
            start += width;
        }
        let mixed = mixed.expect("the tokens attend at least to themselves");
        let mixed =
            mixed.reshape([rows, heads, tokens, head_dim]).swap_dims(1, 2).reshape([rows, tokens, heads * head_dim]);
        (self.o_proj.forward(mixed), own)
    }
}

/// `[rows, kv_heads, n, width]` to `[segment_rows, kv_heads, rows / segment_rows * n, width]`.
fn fold(x: Tensor<4>, segment_rows: usize) -> Tensor<4> {
    let [rows, kv_heads, n, width] = x.dims();
    if rows == segment_rows {
        return x;
    }
    let share = rows / segment_rows;
    x.reshape([segment_rows, share, kv_heads, n, width]).swap_dims(1, 2).reshape([
        segment_rows,
        kv_heads,
        share * n,
        width,
    ])
}

/// The inverse of [`fold`].
fn unfold(x: Tensor<4>, rows: usize) -> Tensor<4> {
    let [segment_rows, kv_heads, folded, width] = x.dims();
    if rows == segment_rows {
        return x;
    }
    let share = rows / segment_rows;
    let n = folded / share;
    x.reshape([segment_rows, kv_heads, share, n, width]).swap_dims(1, 2).reshape([rows, kv_heads, n, width])
}

/// `[1, 1, group * tokens, tokens]`: minus infinity where a token would see a later one, 0 elsewhere, repeated for
/// the query heads of one key head.
pub(crate) fn causal_mask(tokens: usize, group: usize, device: &Device) -> Tensor<4> {
    let row = |query: usize| (0..tokens).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY });
    let mask: Vec<f32> = (0..group * tokens).flat_map(|i| row(i % tokens)).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, group * tokens, tokens]), device)
}
