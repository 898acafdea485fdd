//! A checkpoint's `config.json`, read into what the decoder needs and nothing else.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::rope::RopeScaling;
use crate::ModelError;

/// A family of decoder-only transformers whose forward pass is computed exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Llama 1 to 3, TinyLlama, SmolLM2.
    Llama,
}

impl Architecture {
    /// The architecture's `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }
}

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
    /// Longest sequence the model was made for.
    pub max_positions: usize,
    /// Whether the output matrix is the embedding matrix.
    pub tie_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Ids that end a sequence, as the file lists them; may be empty.
    pub end_tokens: Vec<u32>,
    /// The file as it was read, so that what is not interpreted here survives a round trip.
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

impl BackboneConfig {
    /// The configuration of a new model with tied embeddings.
    ///
    /// # Errors
    ///
    /// Sizes that do not fit together; the message names the field.
    pub fn new(sizes: &NewBackbone) -> Result<Self, ModelError> {
        let file = json!({
            "architectures": [sizes.architecture.class()],
            "model_type": sizes.architecture.model_type(),
            "vocab_size": sizes.vocab_size,
            "hidden_size": sizes.d_model,
            "intermediate_size": sizes.d_ff,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "max_position_embeddings": sizes.max_positions,
            "hidden_act": "silu",
            "use_sliding_window": false,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": true,
            "initializer_range": INIT_STD,
            "attention_dropout": 0.0,
            "bos_token_id": sizes.end_token,
            "eos_token_id": sizes.end_token,
        });
        let config = Self::from_json(Path::new("new model"), file)?;
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
            let problem = format!("the sizes add up to {parameters} parameters; at most {MOST_PARAMETERS} can be made");
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
        let architecture = match raw.get("model_type").and_then(Value::as_str) {
            Some("qwen2") => Architecture::Qwen2,
            Some("llama") => Architecture::Llama,
            _ => return Err(fields.error("model_type", "must be `qwen2` or `llama`")),
        };
        fields.require("hidden_act", json!("silu"), &[json!("silu"), json!("swish")])?;
        fields.require("use_sliding_window", json!(false), &[json!(false)])?;
        fields.require("partial_rotary_factor", json!(1.0), &[json!(1.0), json!(1)])?;
        fields.require("attention_dropout", json!(0.0), &[json!(0.0), json!(0)])?;
        fields.require("quantization_config", Value::Null, &[Value::Null])?;
        let heads = fields.size("num_attention_heads", None)?;
        let d_model = fields.size("hidden_size", None)?;
        let kv_heads = fields.size("num_key_value_heads", Some(heads))?;
        let head_dim = fields.size("head_dim", Some((d_model / heads).max(1)))?;
        if heads % kv_heads != 0 {
            return Err(fields.error("num_key_value_heads", "must divide num_attention_heads"));
        }
        if fields.get("head_dim").is_none() && d_model % heads != 0 {
            return Err(fields.error("num_attention_heads", "must divide hidden_size"));
        }
        if head_dim % 2 != 0 || d_model % 2 != 0 {
            return Err(fields.error(
                if head_dim % 2 != 0 { "head_dim" } else { "hidden_size" },
                "must be even for rotary embeddings",
            ));
        }
        let (rope_theta, rope_scaling) = fields.rope()?;
        let is_qwen2 = architecture == Architecture::Qwen2;
        let attention_bias = !is_qwen2 && fields.flag("attention_bias", false)?;
        let config = Self {
            architecture,
            vocab_size: fields.size("vocab_size", None)?,
            d_model,
            d_ff: fields.size("intermediate_size", None)?,
            layers: fields.size("num_hidden_layers", None)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            rope_theta,
            rope_scaling,
            max_positions: fields.size("max_position_embeddings", Some(if is_qwen2 { 32768 } else { 2048 }))?,
            tie_embeddings: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: is_qwen2 || attention_bias,
            output_bias: attention_bias,
            mlp_bias: !is_qwen2 && fields.flag("mlp_bias", false)?,
            end_tokens: fields.end_tokens()?,
            raw: Map::new(),
        };
        Ok(Self { raw, ..config })
    }

    /// The `config.json` to write: the file as it was read, brought up to date.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut file = self.raw.clone();
        file.entry("architectures").or_insert_with(|| json!([self.architecture.class()]));
        file.insert("torch_dtype".into(), json!("float32"));
        // From version 5 on, transformers calls it so and believes it first.
        if file.contains_key("dtype") {
            file.insert("dtype".into(), json!("float32"));
        }
        file
    }

    /// A field of the file that the backbone itself does not use.
    pub(crate) fn raw_field(&self, name: &str) -> Option<&Value> {
        self.raw.get(name)
    }
}

/// Standard deviation of new weight matrices, as in the Qwen2 and Llama configurations.
pub(crate) const INIT_STD: f64 = 0.02;

/// Largest size taken from a file, so that a damaged one cannot ask for terabytes.
const LARGEST_SIZE: u64 = 1 << 24;

/// Most parameters of a new model: 16 GiB of weights.
const MOST_PARAMETERS: u128 = 1 << 32;

struct Fields<'a> {
    path: &'a Path,
    raw: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn error(&self, field: &str, problem: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.raw.get(field).filter(|value| !value.is_null())
    }

    fn require(&self, field: &str, default: Value, accepted: &[Value]) -> Result<(), ModelError> {
        let value = self.get(field).unwrap_or(&default);
        if accepted.contains(value) {
            return Ok(());
        }
        Err(self.error(field, format!("is {value}, which is not supported; must be {}", accepted[0])))
    }

    fn size(&self, field: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.error(field, "is missing")),
            (Some(value), _) => match value.as_u64() {
                Some(size @ 1..=LARGEST_SIZE) => Ok(size as usize),
                _ => Err(self.error(field, format!("is {value}; must be a whole number from 1 to {LARGEST_SIZE}"))),
            },
        }
    }

    fn positive(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        positive_in(self.raw, field, Some(default)).map_err(|problem| self.error(field, problem))
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.error(field, format!("is {value}; must be true or false")))
            }
        }
    }

    fn end_tokens(&self) -> Result<Vec<u32>, ModelError> {
        let field = "eos_token_id";
        let ids = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.iter()
            .map(|value| id(value).ok_or_else(|| self.error(field, format!("{value} is not a token id"))))
            .collect()
    }

    /// Base and scaling of the rotary embedding. Up to transformers 4 they are `rope_theta` and `rope_scaling`,
    /// from 5 on both lie in `rope_parameters`.
    fn rope(&self) -> Result<(f64, Option<RopeScaling>), ModelError> {
        let (field, scaling) = match self.get("rope_parameters") {
            Some(parameters) => ("rope_parameters", Some(parameters)),
            None => ("rope_scaling", self.get("rope_scaling")),
        };
        let error = |problem: String| self.error(field, problem);
        let scaling = match scaling {
            None => return Ok((self.positive("rope_theta", 10000.0)?, None)),
            Some(Value::Object(scaling)) => scaling,
            Some(other) => return Err(error(format!("is {other}; must be an object"))),
        };
        let theta = match scaling.get("rope_theta") {
            Some(_) => positive_in(scaling, "rope_theta", None).map_err(error)?,
            None => self.positive("rope_theta", 10000.0)?,
        };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        match kind {
            Some("default") => Ok((theta, None)),
            Some("llama3") => {
                let number = |name: &str| positive_in(scaling, name, None).map_err(error);
                let scaling = RopeScaling {
                    factor: number("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original_max_positions: number("original_max_position_embeddings")?,
                };
                if scaling.high_freq_factor <= scaling.low_freq_factor {
                    return Err(error("high_freq_factor must be greater than low_freq_factor".into()));
                }
                Ok((theta, Some(scaling)))
            }
            Some(kind) => Err(error(format!("rope_type `{kind}` is not supported; known are `default` and `llama3`"))),
            None => Err(error("has no rope_type".into())),
        }
    }
}

fn positive_in(object: &Map<String, Value>, field: &str, default: Option<f64>) -> Result<f64, String> {
    let value = match (object.get(field), default) {
        (None | Some(Value::Null), Some(default)) => return Ok(default),
        (None, None) => return Err(format!("{field} is missing")),
        (Some(value), _) => value,
    };
    match value.as_f64() {
        Some(number) if (number as f32).is_finite() && number as f32 > 0.0 => Ok(number),
        _ => Err(format!("{field} is {value}; must be a positive number of single precision")),
    }
}

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
    fn uninterpreted_fields_survive_a_round_trip() {
        let config = with("pretraining_tp", json!(1)).unwrap();
        assert_eq!(config.to_json()["pretraining_tp"], json!(1));
        assert_eq!(config.end_tokens, Vec::<u32>::new());
    }
}
