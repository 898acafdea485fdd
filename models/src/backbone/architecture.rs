//! The families of decoders, and in what they differ.

/// A family of decoder-only transformers whose forward pass is computed exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: queries and keys are normalised per head before the rotation.
    Qwen3,
    /// Llama 1 to 3, TinyLlama, SmolLM2.
    Llama,
    /// Mistral: Llama with a sliding window; only sequences within the window are supported.
    Mistral,
    /// SmolLM3: Llama without rotary embedding in some layers.
    #[cfg_attr(feature = "clap", value(name = "smollm3"))]
    SmolLm3,
}

/// What a family's configuration in `transformers` takes where `config.json` is silent.
pub(super) struct Defaults {
    pub max_positions: usize,
    pub rope_theta: f64,
    pub tie_embeddings: bool,
    /// Without one: the width of the hidden states over the query heads.
    pub head_dim: Option<usize>,
    /// Without one: the query heads.
    pub kv_heads: Option<usize>,
    /// Width of the window, in a family that has one.
    pub sliding_window: Option<usize>,
}

impl Architecture {
    const ALL: [Self; 5] = [Self::Qwen2, Self::Qwen3, Self::Llama, Self::Mistral, Self::SmolLm3];

    /// The architecture's `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::SmolLm3 => "smollm3",
        }
    }

    /// The architecture of a `model_type`, or a list of the known ones.
    pub(super) fn of_model_type(model_type: Option<&str>) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|architecture| model_type == Some(architecture.model_type()));
        known.ok_or_else(|| {
            let names = Self::ALL.map(|architecture| format!("`{}`", architecture.model_type()));
            let found = model_type.map_or_else(|| "missing".to_owned(), |found| format!("`{found}` is not supported"));
            format!("{found}; must be one of {}", names.join(", "))
        })
    }

    /// Its class in `transformers`.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    pub(super) fn defaults(self) -> Defaults {
        let llama = Defaults {
            max_positions: 2048,
            rope_theta: 1e4,
            tie_embeddings: false,
            head_dim: None,
            kv_heads: None,
            sliding_window: None,
        };
        match self {
            Self::Qwen2 => Defaults { max_positions: 32768, sliding_window: Some(4096), kv_heads: Some(32), ..llama },
            Self::Qwen3 => Defaults { head_dim: Some(128), ..Self::Qwen2.defaults() },
            Self::Llama => llama,
            Self::Mistral => Defaults { max_positions: 131072, sliding_window: Some(4096), kv_heads: Some(8), ..llama },
            Self::SmolLm3 => {
                Defaults { max_positions: 32768, rope_theta: 2e6, tie_embeddings: true, kv_heads: Some(4), ..llama }
            }
        }
    }

    /// Whether `attention_bias` of `config.json` means something.
    pub(super) fn may_have_attention_bias(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen3 | Self::SmolLm3)
    }

    /// Whether `mlp_bias` of `config.json` means something.
    pub(super) fn may_have_mlp_bias(self) -> bool {
        matches!(self, Self::Llama | Self::SmolLm3)
    }

    /// Whether queries and keys are normed head by head.
    pub(super) fn norms_heads(self) -> bool {
        self == Self::Qwen3
    }

    /// The layers, of so many, that do not rotate queries and keys where `config.json` names none; `interval` is its
    /// `no_rope_layer_interval`.
    pub(super) fn unrotated_layers(self, layers: usize, interval: usize) -> Vec<usize> {
        match self {
            Self::SmolLm3 => (0..layers).filter(|layer| (layer + 1).is_multiple_of(interval)).collect(),
            _ => Vec::new(),
        }
    }
}

/// Every so many layers SmolLM3 leaves the rotation out.
pub(super) const NO_ROPE_INTERVAL: usize = 4;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::ModelError;
    use crate::backbone::BackboneConfig;

    fn read(model_type: &str, fields: Value) -> Result<BackboneConfig, ModelError> {
        let mut file = json!({"model_type": model_type, "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "num_key_value_heads": null});
        for (field, value) in fields.as_object().unwrap() {
            file[field] = value.clone();
        }
        BackboneConfig::from_json(Path::new("config.json"), file)
    }

    #[test]
    fn a_window_bounds_the_sequences_that_are_computed() {
        let window = |model_type: &str, fields: Value| read(model_type, fields).unwrap().max_positions;
        assert_eq!(window("mistral", json!({})), 4096);
        assert_eq!(window("mistral", json!({"sliding_window": null})), 131072);
        assert_eq!(window("mistral", json!({"sliding_window": 64, "max_position_embeddings": 48})), 48);
        for family in ["qwen2", "qwen3", "smollm3"] {
            assert_eq!(window(family, json!({"sliding_window": 64, "use_sliding_window": false})), 32768);
            assert_eq!(window(family, json!({"sliding_window": 64, "use_sliding_window": true})), 64);
            let mut types = vec!["full_attention"; 5];
            assert_eq!(window(family, json!({"sliding_window": 64, "layer_types": types})), 32768);
            types[3] = "sliding_attention";
            assert_eq!(window(family, json!({"sliding_window": 64, "layer_types": types})), 64);
        }
    }

    #[test]
    fn the_cap_of_a_window_is_not_written_as_the_number_of_positions() {
        let config = read("mistral", json!({"sliding_window": 64, "max_position_embeddings": 256})).unwrap();
        let file = config.to_json();
        assert_eq!((&file["sliding_window"], &file["max_position_embeddings"]), (&json!(64), &json!(256)));
    }

    #[test]
    fn layers_without_rotation_are_listed_or_every_fourth() {
        let layers = |fields: Value| read("smollm3", fields).unwrap().unrotated_layers;
        assert_eq!(layers(json!({})), [3]);
        assert_eq!(layers(json!({"no_rope_layer_interval": 2})), [1, 3]);
        assert_eq!(layers(json!({"no_rope_layers": [0, 1, 1, 1, 0]})), [0, 4]);
        assert_eq!(layers(json!({"no_rope_layers": [1, 1, 1, 1, 1, 0]})), [0usize; 0]);
        let mut config = read("smollm3", json!({})).unwrap();
        config.unrotated_layers = vec![2];
        let again = BackboneConfig::from_json(Path::new("config.json"), Value::Object(config.to_json())).unwrap();
        assert_eq!(again.unrotated_layers, [2]);
    }

    #[test]
    fn what_a_file_leaves_out_is_the_familys_own_default() {
        let of = |family: &str| read(family, json!({})).unwrap();
        assert_eq!((of("qwen3").head_dim, of("qwen2").head_dim), (128, 4));
        assert!(of("smollm3").tie_embeddings && !of("mistral").tie_embeddings);
        assert_eq!((of("smollm3").rope_theta, of("llama").rope_theta), (2e6, 1e4));
        let without = |family: &str| {
            let mut file = json!({"model_type": family, "vocab_size": 10, "hidden_size": 64, "intermediate_size": 16});
            (file["num_hidden_layers"], file["num_attention_heads"]) = (json!(1), json!(32));
            BackboneConfig::from_json(Path::new("config.json"), file).unwrap().kv_heads
        };
        assert_eq!(["llama", "qwen2", "qwen3", "mistral", "smollm3"].map(without), [32, 32, 32, 8, 4]);
        assert_eq!(of("mistral").kv_heads, 2, "null is as many as there are query heads");
        let mistral = read("mistral", json!({"attention_bias": true, "mlp_bias": true})).unwrap();
        assert!(!mistral.qkv_bias() && !mistral.output_bias() && !mistral.has_mlp_bias());
    }

    #[test]
    fn a_field_of_a_family_that_cannot_be_used_is_named() {
        for (family, field, value) in [
            ("smollm3", "no_rope_layers", json!([1, 1])),
            ("smollm3", "no_rope_layers", json!([1, 1, 2, 1, 1])),
            ("smollm3", "no_rope_layers", json!("none")),
            ("smollm3", "no_rope_layer_interval", json!(0)),
            ("smollm3", "use_sliding_window", json!(true)),
            ("qwen3", "layer_types", json!(["full_attention"])),
            ("qwen3", "layer_types", json!(["full_attention", "linear_attention", "a", "b", "c"])),
            ("mistral", "sliding_window", json!(0)),
            ("llama", "use_sliding_window", json!(true)),
            ("gemma3_text", "model_type", json!("gemma3_text")),
        ] {
            let message = read(family, json!({field: value})).expect_err(field).to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
