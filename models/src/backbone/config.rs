//! A checkpoint's `config.json`, read into what the decoder needs and nothing else.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, NO_ROPE_INTERVAL};
use super::config_fields::{Fields, in_range, is_positive};
use super::rope::RopeScaling;
use crate::ModelError;

/// Sizes and constants of a decoder, as Hugging Face's `config.json` gives them.
#[derive(Debug, Clone)]
pub struct BackboneConfig {
    /// The family.
    pub architecture: Architecture,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states (`hidden_size`).
    pub d_model: usize,
    /// Width inside the gated MLP (`intermediate_size`).
    pub d_ff: usize,
    /// Number of blocks (`num_hidden_layers`).
    pub layers: usize,
    /// Query heads (`num_attention_heads`).
    pub heads: usize,
    /// Key and value heads (`num_key_value_heads`); divides `heads`.
    pub kv_heads: usize,
    /// Width of one head (`head_dim`), even.
    pub head_dim: usize,
    /// Added to the mean square inside the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Change of the rotary frequencies for long contexts, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Layers that do not rotate queries and keys, first to last (`no_rope_layers`); SmolLM3 alone has any.
    pub unrotated_layers: Vec<usize>,
    /// Longest sequence that is computed: what the model was made for, or its window where that is shorter.
    pub max_positions: usize,
    /// Whether the output matrix is the embedding matrix.
    pub tie_embeddings: bool,
    /// Biases on all four projections of the attention, in families that may have them; Qwen2 has them on query, key
    /// and value, whatever stands here.
    pub attention_bias: bool,
    /// Biases in the MLP, in families that may have them.
    pub mlp_bias: bool,
    /// Ids that end a sequence, as the file lists them; may be empty.
    pub end_tokens: Vec<u32>,
    /// The file as it was read, so that what is not interpreted here survives a round trip; the fields above count
    /// before it.
    raw: Map<String, Value>,
}

/// Sizes of a new model; the rest follows from the architecture.
#[derive(Debug, Clone)]
pub struct NewBackbone {
    /// The family.
    pub architecture: Architecture,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width inside the gated MLP.
    pub d_ff: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Longest sequence.
    pub max_positions: usize,
    /// Id of the end token.
    pub end_token: u32,
}

impl NewBackbone {
    /// A model for examples: one block of two heads, 8 wide, for 32 positions.
    pub fn tiny(vocab_size: usize, end_token: u32) -> Self {
        let architecture = Architecture::Qwen2;
        let (d_model, d_ff, heads) = (8, 16, 2);
        Self { architecture, vocab_size, d_model, d_ff, layers: 1, heads, kv_heads: 1, max_positions: 32, end_token }
    }
}

impl BackboneConfig {
    /// The configuration of a new model with tied embeddings.
    ///
    /// # Errors
    ///
    /// Sizes that do not fit together; the message names the field.
    pub fn new(sizes: &NewBackbone) -> Result<Self, ModelError> {
        let raw = json!({
            "hidden_act": "silu",
            "use_sliding_window": false,
            "sliding_window": null,
            "initializer_range": INIT_STD,
            "attention_dropout": 0.0,
            "bos_token_id": sizes.end_token,
            "eos_token_id": sizes.end_token,
        });
        let config = Self {
            architecture: sizes.architecture,
            vocab_size: sizes.vocab_size,
            d_model: sizes.d_model,
            d_ff: sizes.d_ff,
            layers: sizes.layers,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.d_model.checked_div(sizes.heads).unwrap_or(0),
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            rope_scaling: None,
            unrotated_layers: sizes.architecture.unrotated_layers(sizes.layers, NO_ROPE_INTERVAL),
            max_positions: sizes.max_positions,
            tie_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            end_tokens: vec![sizes.end_token],
            raw: raw.as_object().cloned().unwrap_or_default(),
        };
        config.check(Path::new("new model"))?;
        let [d_model, d_ff, heads, kv_heads, head_dim, layers, vocab_size] = [
            config.d_model,
            config.d_ff,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.layers,
            config.vocab_size,
        ]
        .map(|size| size as u128);
        let per_layer = d_model * (2 * (heads + kv_heads) * head_dim + 3 * d_ff);
        // The three matrices are those of the latent attention.
        let parameters = layers * per_layer + vocab_size * d_model + 3 * d_model * d_model;
        if parameters > MOST_PARAMETERS {
            let problem = format!("these sizes give {parameters} parameters; the maximum is {MOST_PARAMETERS}");
            return Err(ModelError::Input(problem));
        }
        Ok(config)
    }

    /// Reads a parsed `config.json`; `path` is only named in errors.
    ///
    /// # Errors
    ///
    /// [`ModelError::Config`] with the field's name, for anything missing, malformed or not computed exactly.
    pub fn from_json(path: &Path, file: Value) -> Result<Self, ModelError> {
        let Value::Object(raw) = file else {
            return Err(ModelError::damaged(path, "is not a JSON object"));
        };
        let fields = Fields { path, raw: &raw };
        let architecture = Architecture::of_model_type(raw.get("model_type").and_then(Value::as_str))
            .map_err(|problem| fields.error("model_type", problem))?;
        let defaults = architecture.defaults();
        fields.require("hidden_act", json!("silu"), &[json!("silu"), json!("swish")])?;
        fields.require("partial_rotary_factor", json!(1.0), &[json!(1.0), json!(1)])?;
        fields.require("attention_dropout", json!(0.0), &[json!(0.0), json!(0)])?;
        fields.require("quantization_config", Value::Null, &[Value::Null])?;
        let heads = fields.size("num_attention_heads", None)?;
        let d_model = fields.size("hidden_size", None)?;
        let layers = fields.size("num_hidden_layers", None)?;
        if defaults.head_dim.is_none() && fields.get("head_dim").is_none() && d_model % heads != 0 {
            return Err(fields.error("num_attention_heads", "must divide hidden_size"));
        }
        let (rope_theta, rope_scaling) = fields.rope(defaults.rope_theta)?;
        let config = Self {
            architecture,
            vocab_size: fields.size("vocab_size", None)?,
            d_model,
            d_ff: fields.size("intermediate_size", None)?,
            layers,
            heads,
            kv_heads: fields.kv_heads(defaults.kv_heads, heads)?,
            head_dim: fields.size("head_dim", defaults.head_dim.or(Some((d_model / heads).max(1))))?,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            rope_theta,
            rope_scaling,
            unrotated_layers: fields.unrotated_layers(architecture, layers)?,
            max_positions: fields.max_positions(architecture, layers)?,
            tie_embeddings: fields.flag("tie_word_embeddings", defaults.tie_embeddings)?,
            attention_bias: architecture.may_have_attention_bias() && fields.flag("attention_bias", false)?,
            mlp_bias: architecture.may_have_mlp_bias() && fields.flag("mlp_bias", false)?,
            end_tokens: fields.end_tokens()?,
            raw: Map::new(),
        };
        let config = Self { raw, ..config };
        config.check(path)?;
        Ok(config)
    }

    /// Makes sure that the fields fit together; `path` is only named in errors.
    pub(crate) fn check(&self, path: &Path) -> Result<(), ModelError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("intermediate_size", self.d_ff),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_positions),
        ];
        let fields = Fields { path, raw: &self.raw };
        for (field, size) in sizes {
            in_range(size as u64).map_err(|problem| fields.error(field, problem))?;
        }
        for (field, number) in [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)] {
            is_positive(number).map_err(|problem| fields.error(field, problem))?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(fields.error("num_key_value_heads", "must divide num_attention_heads"));
        }
        for (field, size) in [("head_dim", self.head_dim), ("hidden_size", self.d_model)] {
            if !size.is_multiple_of(2) {
                return Err(fields.error(field, "must be even for rotary embeddings"));
            }
        }
        Ok(())
    }

    /// Whether query, key and value projections have biases.
    pub fn qkv_bias(&self) -> bool {
        self.architecture == Architecture::Qwen2 || self.output_bias()
    }

    /// Whether the attention's output projection has a bias.
    pub fn output_bias(&self) -> bool {
        self.architecture.may_have_attention_bias() && self.attention_bias
    }

    /// Whether the MLP has biases.
    pub(super) fn has_mlp_bias(&self) -> bool {
        self.architecture.may_have_mlp_bias() && self.mlp_bias
    }

    /// The `config.json` to write: the file as it was read, with the fields as they are now.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut file = self.raw.clone();
        file.entry("architectures").or_insert_with(|| json!([self.architecture.class()]));
        let mut set = |field: &str, value: Value| _ = file.insert(field.into(), value);
        set("model_type", json!(self.architecture.model_type()));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.d_model));
        set("intermediate_size", json!(self.d_ff));
        set("num_hidden_layers", json!(self.layers));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.kv_heads));
        set("rms_norm_eps", json!(self.rms_norm_eps));
        set("tie_word_embeddings", json!(self.tie_embeddings));
        if self.architecture.may_have_attention_bias() {
            set("attention_bias", json!(self.attention_bias));
        }
        if self.architecture.may_have_mlp_bias() {
            set("mlp_bias", json!(self.mlp_bias));
        }
        // Some families take another width for granted than the rest.
        let implied = self.architecture.defaults().head_dim.or(self.d_model.checked_div(self.heads));
        if implied != Some(self.head_dim) || self.raw_field("head_dim").is_some() {
            file.insert("head_dim".into(), json!(self.head_dim));
        }
        // What has several forms in the file keeps its own while it means the same.
        let as_read = Fields { path: Path::new(""), raw: &self.raw };
        if as_read.end_tokens().ok().as_ref() != Some(&self.end_tokens) {
            file.insert("eos_token_id".into(), json!(self.end_tokens));
        }
        if as_read.max_positions(self.architecture, self.layers).ok() != Some(self.max_positions) {
            file.insert("max_position_embeddings".into(), json!(self.max_positions));
        }
        let unrotated = as_read.unrotated_layers(self.architecture, self.layers).ok();
        if unrotated.as_ref() != Some(&self.unrotated_layers) {
            let rotated = |layer| u8::from(!self.unrotated_layers.contains(&layer));
            file.insert("no_rope_layers".into(), json!((0..self.layers).map(rotated).collect::<Vec<_>>()));
        }
        if as_read.rope(self.architecture.defaults().rope_theta).ok() != Some((self.rope_theta, self.rope_scaling)) {
            file.remove("rope_parameters");
            file.insert("rope_theta".into(), json!(self.rope_theta));
            file.insert("rope_scaling".into(), self.rope_scaling.map_or(Value::Null, RopeScaling::to_json));
        }
        file
    }

    /// Recorded as the configuration of a model that began with random weights.
    pub(crate) fn marked_from_scratch(mut self) -> Self {
        self.raw.insert(FROM_SCRATCH_FIELD.into(), json!(true));
        self
    }

    /// Whether it is that of a model that began with random weights, or of one that was trained from such a model.
    pub fn is_from_scratch(&self) -> bool {
        self.raw_field(FROM_SCRATCH_FIELD) == Some(&Value::Bool(true))
    }

    /// A field of the file that the backbone itself does not use.
    pub(crate) fn raw_field(&self, name: &str) -> Option<&Value> {
        self.raw.get(name)
    }
}

/// Field that says that the weights began as random ones.
const FROM_SCRATCH_FIELD: &str = "latent_from_scratch";

/// Standard deviation of new weight matrices, as in the Qwen2 and Llama configurations.
pub(crate) const INIT_STD: f64 = 0.02;

/// Most parameters of a new model: 16 GiB of weights.
const MOST_PARAMETERS: u128 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Value {
        json!({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2})
    }

    fn with(field: &str, value: Value) -> Result<BackboneConfig, ModelError> {
        let mut file = llama();
        file[field] = value;
        BackboneConfig::from_json(Path::new("config.json"), file)
    }

    #[test]
    fn what_cannot_be_computed_exactly_is_an_error_that_names_the_field() {
        let cases = [
            ("model_type", json!("gpt2")),
            ("hidden_act", json!("gelu")),
            ("use_sliding_window", json!(true)),
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0})),
            ("rope_scaling", json!({"rope_type": "llama3"})),
            ("rope_scaling", json!(7)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(3)),
            ("hidden_size", json!(0)),
            ("vocab_size", json!(1e18)),
            ("vocab_size", json!("many")),
            ("rms_norm_eps", json!(-1)),
            ("quantization_config", json!({"bits": 4})),
            ("eos_token_id", json!("</s>")),
        ];
        for (field, value) in cases {
            let message = with(field, value.clone()).expect_err(&format!("{field} = {value}")).to_string();
            assert!(message.contains(field), "{message}");
        }
        assert!(BackboneConfig::from_json(Path::new("config.json"), json!([1])).is_err());
    }

    #[test]
    fn both_places_of_the_rotary_base_are_read() {
        assert_eq!(with("rope_theta", json!(5e5)).unwrap().rope_theta, 5e5);
        let newer = with("rope_parameters", json!({"rope_theta": 1e6, "rope_type": "default"})).unwrap();
        assert_eq!((newer.rope_theta, newer.rope_scaling), (1e6, None));
    }

    #[test]
    fn a_part_of_the_head_cannot_be_rotated_wherever_that_stands() {
        for (field, value) in [
            ("partial_rotary_factor", json!(0.5)),
            ("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})),
        ] {
            assert!(with(field, value).unwrap_err().to_string().contains("partial_rotary_factor"));
        }
    }

    #[test]
    fn changed_fields_are_written_as_they_are_now() {
        let mut config = with("rope_parameters", json!({"rope_theta": 1e6, "rope_type": "default"})).unwrap();
        config.rms_norm_eps = 1e-3;
        config.rope_theta = 5e5;
        config.rope_scaling = Some(RopeScaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64.0,
        });
        (config.max_positions, config.d_ff, config.head_dim, config.attention_bias) = (7, 24, 6, true);
        config.end_tokens = vec![3, 4];
        let file = Value::Object(config.to_json());
        let again = BackboneConfig::from_json(Path::new("config.json"), file).unwrap();
        let seen = |c: &BackboneConfig| format!("{:?}", BackboneConfig { raw: Map::new(), ..c.clone() });
        assert_eq!(seen(&again), seen(&config));
        config.heads = 3;
        assert!(config.check(Path::new("changed")).unwrap_err().to_string().contains("num_key_value_heads"));
    }

    #[test]
    fn uninterpreted_fields_survive_a_round_trip() {
        let config = with("pretraining_tp", json!(1)).unwrap();
        assert_eq!(config.to_json()["pretraining_tp"], json!(1));
        assert_eq!(config.end_tokens, Vec::<u32>::new());
    }
}
