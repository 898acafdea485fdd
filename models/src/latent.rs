//! Where a thought comes from.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::ModelError;
use crate::backbone::{INIT_STD, Linear, PromptState, Rope, RopeAngles, Segment};
use crate::ops::{in_order, send_together};
use crate::parameters::{Init, Parameters};

/// Base of the latent attention's rotary embedding.
const ROPE_BASE: f64 = 1000.0;

/// The kind of a [`ThoughtSource`], as `config.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum ThoughtKind {
    /// Attention over the hidden states: the published method.
    LatentAttention,
    /// The last hidden state, unchanged.
    ///
    /// It has no parameters.
    LastHidden,
    /// One learned embedding per thought.
    ///
    /// It is the same for every prompt.
    Constants,
}

/// Makes thoughts, embeddings that enter the sequence where a token's would.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per model")]
pub enum ThoughtSource {
    /// See [`ThoughtKind::LatentAttention`].
    LatentAttention(LatentAttention),
    /// See [`ThoughtKind::LastHidden`].
    LastHidden(LastHidden),
    /// See [`ThoughtKind::Constants`].
    Constants(Constants),
}

/// The last hidden state as the thought.
#[derive(Module, Debug)]
pub struct LastHidden {}

/// Learnt embeddings as thoughts.
#[derive(Module, Debug)]
pub struct Constants {
    /// `[thoughts, d_model]`.
    pub embeddings: Param<Tensor<2>>,
}

impl ThoughtSource {
    pub(crate) fn build(
        parameters: &mut Parameters,
        kind: ThoughtKind,
        thoughts: usize,
        d_model: usize,
    ) -> Result<Self, ModelError> {
        Ok(match kind {
            ThoughtKind::LatentAttention => Self::LatentAttention(LatentAttention::build(parameters, d_model)?),
            ThoughtKind::LastHidden => Self::LastHidden(LastHidden {}),
            ThoughtKind::Constants => {
                let embeddings = parameters.take("thoughts.embeddings", [thoughts, d_model], Init::Normal(INIT_STD))?;
                Self::Constants(Constants { embeddings })
            }
        })
    }

    /// The kind of this source.
    pub fn kind(&self) -> ThoughtKind {
        match self {
            Self::LatentAttention(_) => ThoughtKind::LatentAttention,
            Self::LastHidden(_) => ThoughtKind::LastHidden,
            Self::Constants(_) => ThoughtKind::Constants,
        }
    }

    /// The thought number `index` that follows `state`, `[prompts, d_model]`.
    pub(crate) fn thought(&self, index: usize, state: &PromptState) -> Tensor<2> {
        match self {
            Self::LatentAttention(attention) => attention.forward(state),
            Self::LastHidden(_) => state.last_hidden(),
            Self::Constants(constants) => constants.embeddings.val().narrow(0, index, 1).repeat_dim(0, state.rows()),
        }
    }
}

/// Attention from the last position over all hidden states, its own included; its output is the thought.
///
/// LatentR3 (arXiv 2505.19092), there called LatentRATT: one head as wide as the model, rotary positions of base 1000
/// on query and key, `softmax(q · k / sqrt(d_model)) v`, no output projection, residual or norm.
#[derive(Module, Debug)]
pub struct LatentAttention {
    /// `[d_model, d_model]` with bias.
    pub query: Linear,
    /// `[d_model, d_model]` with bias.
    pub key: Linear,
    /// `[d_model, d_model]` with bias.
    pub value: Linear,
    #[module(skip)]
    rope: Rope,
}

impl LatentAttention {
    fn build(parameters: &mut Parameters, d_model: usize) -> Result<Self, ModelError> {
        let bound = (d_model as f64).powf(-0.5);
        let mut projection = |part: &str| {
            let name = format!("attention.{part}");
            Linear::build(parameters, &name, [d_model, d_model], true, Init::Uniform(bound), Init::Uniform(bound))
        };
        Ok(Self {
            query: projection("query")?,
            key: projection("key")?,
            value: projection("value")?,
            rope: Rope::new(d_model, ROPE_BASE, None),
        })
    }

    /// The thought that follows `state`, `[prompts, d_model]`.
    ///
    /// Since the weights of the attention add up to one, the value projection is applied once, to the weighted
    /// mean of the hidden states, and not at every position.
    pub fn forward(&self, state: &PromptState) -> Tensor<2> {
        self.value.forward(weighted_mean(self.weights(state), state))
    }

    /// How much the thought that follows `state` attends to each token: `[prompts, tokens]`, each row adding up to one.
    ///
    /// Tokens lie as in the state's segments, one segment after the other with its padding, whose weights are zero. A
    /// single prompt has no padding: its tokens come first, then the thoughts so far.
    pub fn weights(&self, state: &PromptState) -> Tensor<2> {
        let (prompts, last) = (state.rows(), state.last().last_places());
        let [_, _, d_model] = state.last().hidden().dims();
        let at: Vec<usize> = state.lengths().iter().map(|length| length - 1).collect();
        let of_query = self.rope.angles(&at, prompts);
        let of_keys: Vec<RopeAngles> = state.segments().iter().map(|segment| self.angles(segment)).collect();
        send_together(&state.last().hidden().device(), || {
            let masks = state.segments().iter().filter_map(|segment| segment.lengths.table_of_mask(segment.tokens()));
            std::iter::once(&of_query).chain(&of_keys).flat_map(RopeAngles::tables).chain(masks).chain([&last as _])
        });
        let last = state.last().hidden_at(&last);
        let query = of_query.rotate(self.query.forward(last).reshape([prompts, 1, 1, d_model]));
        let query = query.mul_scalar((d_model as f64).powf(-0.5)).reshape([prompts, d_model]);
        let segments = state.segments().iter().zip(&of_keys);
        let scores = segments.map(|(segment, angles)| self.scores(&query, segment, angles)).collect();
        softmax(Tensor::cat(scores, 1), 1)
    }

    /// The angles of the keys of a segment.
    fn angles(&self, segment: &Segment) -> RopeAngles {
        let starts = &segment.starts;
        let starts = if starts.iter().all(|start| *start == starts[0]) { &starts[..1] } else { starts };
        let positions: Vec<usize> = starts.iter().flat_map(|start| *start..start + segment.tokens()).collect();
        self.rope.angles(&positions, starts.len())
    }

    /// Scores `[prompts, tokens]` of the queries `[prompts, d_model]` against one segment.
    fn scores(&self, query: &Tensor<2>, segment: &Segment, angles: &RopeAngles) -> Tensor<2> {
        let [prompts, d_model] = query.dims();
        let hidden = segment.hidden();
        let [rows, tokens, _] = hidden.dims();
        let device = hidden.device().inner();
        let keys = self.key.forward(hidden.reshape([rows * tokens, d_model]));
        let keys = angles.rotate(keys.reshape([rows, tokens, 1, d_model])).reshape([rows, tokens, d_model]);
        let query = query.clone().reshape([rows, prompts / rows, d_model]);
        let mut scores = query.matmul(keys.swap_dims(1, 2));
        if let Some(padding) = segment.lengths.mask(tokens, &device) {
            scores = scores + padding.unsqueeze_dim(1);
        }
        in_order(scores.reshape([prompts, tokens]))
    }
}

/// The mean of all hidden states of each prompt by the given weights, `[prompts, tokens]`: `[prompts, d_model]`.
fn weighted_mean(weights: Tensor<2>, state: &PromptState) -> Tensor<2> {
    let prompts = state.rows();
    let mut start = 0;
    let mut mean: Option<Tensor<2>> = None;
    for segment in state.segments() {
        let hidden = segment.hidden();
        let [rows, tokens, d_model] = hidden.dims();
        let weights = in_order(weights.clone().narrow(1, start, tokens)).reshape([rows, prompts / rows, tokens]);
        let part = weights.matmul(hidden).reshape([prompts, d_model]);
        mean = Some(match mean {
            Some(mean) => mean + part,
            None => part,
        });
        start += tokens;
    }
    mean.expect("a prompt has run")
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::ThoughtKind;
    use crate::LatentRecommender;
    use crate::backbone::{BackboneConfig, NewBackbone};
    use crate::ops::testing::{device, same};

    #[test]
    fn prompts_think_together_as_they_do_alone() {
        let config = BackboneConfig::new(&NewBackbone::tiny(20, 0)).unwrap();
        let model = LatentRecommender::new(config, ThoughtKind::LatentAttention, 3, 1, &device()).unwrap();
        let prompts: [&[u32]; 3] = [&[1, 2, 3, 4], &[1, 5], &[1, 2, 6]];
        // With the first of the thoughts as the last column of the scores, and with another behind it.
        for thoughts in [2, 3] {
            let model = model.clone().with_thoughts(ThoughtKind::LatentAttention, thoughts, 1).unwrap().train();
            let mut state = model.prefill(&prompts).unwrap();
            let last = model.think(&mut state).unwrap().expect("the model thinks");
            let mut tape = last.sum().backward();
            let norm =
                model.backbone.model.norm.weight.val().grad_remove(&mut tape).expect("it has a part in all states");
            assert!(norm.to_data().iter::<f32>().all(f32::is_finite));
        }
        let thoughts = |prompts: &[&[u32]]| {
            let mut state = model.prefill(prompts).unwrap();
            let last = model.think(&mut state).unwrap().expect("the model thinks");
            (last, state)
        };
        let (together, state) = thoughts(&prompts);
        let super::ThoughtSource::LatentAttention(attention) = &model.source else { panic!("it was asked for") };
        let weights = attention.weights(&state);
        same(&weights.sum_dim(1), &together.ones_like().narrow(1, 0, 1), 1e-5);
        for (row, prompt) in prompts.iter().enumerate() {
            let (alone, _) = thoughts(&[prompt]);
            same(&together.clone().narrow(0, row, 1), &alone, 1e-4);
        }
    }
}
