//! How the fields of a `config.json` are read.

use std::path::Path;

use serde_json::{Map, Value};

use super::architecture::{Architecture, NO_ROPE_INTERVAL};
use super::rope::RopeScaling;
use crate::ModelError;

/// Largest size taken from a file, so that a damaged one cannot ask for terabytes.
const LARGEST_SIZE: u64 = 1 << 24;

/// A file's fields; `path` is only named in errors.
pub(super) struct Fields<'a> {
    pub path: &'a Path,
    pub raw: &'a Map<String, Value>,
}

impl Fields<'_> {
    pub fn error(&self, field: &str, problem: impl Into<String>) -> ModelError {
        ModelError::config(self.path, field, problem)
    }

    pub fn get(&self, field: &str) -> Option<&Value> {
        self.raw.get(field).filter(|value| !value.is_null())
    }

    pub fn require(&self, field: &str, default: Value, accepted: &[Value]) -> Result<(), ModelError> {
        let value = self.get(field).unwrap_or(&default);
        if accepted.contains(value) {
            return Ok(());
        }
        Err(self.error(field, format!("{value} is not supported; must be {}", accepted[0])))
    }

    pub fn size(&self, field: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.error(field, "missing")),
            (Some(value), _) => match value.as_u64() {
                Some(size) => in_range(size).map_err(|problem| self.error(field, problem)),
                None => Err(self.error(field, format!("must be a whole number from 1 to {LARGEST_SIZE}, got {value}"))),
            },
        }
    }

    /// Key and value heads: null stands for as many as query heads; where none are named the family has a default.
    pub fn kv_heads(&self, default: Option<usize>, heads: usize) -> Result<usize, ModelError> {
        let field = "num_key_value_heads";
        let default = if self.raw.contains_key(field) { None } else { default };
        self.size(field, Some(default.unwrap_or(heads)))
    }

    pub fn positive(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        positive_in(self.raw, field, Some(default)).map_err(|problem| self.error(field, problem))
    }

    pub fn flag(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.error(field, format!("must be true or false, got {value}")))
            }
        }
    }

    pub fn end_tokens(&self) -> Result<Vec<u32>, ModelError> {
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

    /// The longest sequence that full attention computes exactly: all positions, or those of the window of layers that
    /// see only one.
    pub fn max_positions(&self, architecture: Architecture, layers: usize) -> Result<usize, ModelError> {
        let positions = self.size("max_position_embeddings", Some(architecture.defaults().max_positions))?;
        Ok(self.sliding_window(architecture, layers)?.map_or(positions, |window| window.min(positions)))
    }

    fn sliding_window(&self, architecture: Architecture, layers: usize) -> Result<Option<usize>, ModelError> {
        let (field, default) = ("sliding_window", architecture.defaults().sliding_window);
        let width = match self.raw.get(field) {
            Some(Value::Null) => None,
            None => default,
            Some(_) => Some(self.size(field, None)?),
        };
        if architecture == Architecture::Mistral {
            return Ok(width);
        }
        // Either field enables the window.
        let asks = [
            ("use_sliding_window", self.flag("use_sliding_window", false)?),
            ("layer_types", self.has_sliding_layers(layers)?),
        ];
        match asks.into_iter().find(|(_, asks)| *asks) {
            None => Ok(None),
            Some((field, _)) => {
                let problem = "enables a sliding window, but `sliding_window` does not give its width";
                width.map(Some).ok_or_else(|| self.error(field, problem))
            }
        }
    }

    fn has_sliding_layers(&self, layers: usize) -> Result<bool, ModelError> {
        let field = "layer_types";
        let types = match self.get(field) {
            None => return Ok(false),
            Some(Value::Array(types)) if types.len() == layers => types,
            Some(_) => return Err(self.error(field, format!("must be a list of {layers} entries, one per layer"))),
        };
        let is_sliding = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => {
                Err(self.error(field, format!("{kind} is not supported; must be full_attention or sliding_attention")))
            }
        };
        types.iter().try_fold(false, |any, kind| Ok(is_sliding(kind)? || any))
    }

    /// The layers without rotation: where `no_rope_layers`, which may be longer than there are layers, has a 0, or
    /// every `no_rope_layer_interval`-th.
    pub fn unrotated_layers(&self, architecture: Architecture, layers: usize) -> Result<Vec<usize>, ModelError> {
        let field = "no_rope_layers";
        if architecture != Architecture::SmolLm3 {
            return Ok(Vec::new());
        }
        let listed = match self.get(field) {
            None => {
                let interval = self.size("no_rope_layer_interval", Some(NO_ROPE_INTERVAL))?;
                return Ok(architecture.unrotated_layers(layers, interval));
            }
            Some(Value::Array(listed)) if listed.len() >= layers => &listed[..layers],
            Some(_) => return Err(self.error(field, format!("must have an entry for each of the {layers} layers"))),
        };
        let mut unrotated = Vec::new();
        for (layer, rotated) in listed.iter().enumerate() {
            match rotated.as_u64() {
                Some(0) => unrotated.push(layer),
                Some(1) => {}
                _ => return Err(self.error(field, format!("entries must be 0 or 1, got {rotated}"))),
            }
        }
        Ok(unrotated)
    }

    /// Base and scaling of the rotary embedding. Up to transformers 4 they are `rope_theta` and `rope_scaling`,
    /// from 5 on both lie in `rope_parameters`.
    pub fn rope(&self, default_theta: f64) -> Result<(f64, Option<RopeScaling>), ModelError> {
        let (field, scaling) = match self.get("rope_parameters") {
            Some(parameters) => ("rope_parameters", Some(parameters)),
            None => ("rope_scaling", self.get("rope_scaling")),
        };
        let error = |problem: String| self.error(field, problem);
        let scaling = match scaling {
            None => return Ok((self.positive("rope_theta", default_theta)?, None)),
            Some(Value::Object(scaling)) => scaling,
            Some(other) => return Err(error(format!("must be an object, got {other}"))),
        };
        if let Some(part) = scaling.get("partial_rotary_factor").filter(|part| part.as_f64() != Some(1.0)) {
            return Err(error(format!("partial_rotary_factor {part} is not supported; must be 1")));
        }
        let number =
            |name: &str| positive_in(scaling, name, None).map_err(|problem| error(format!("{name} {problem}")));
        let theta = match scaling.get("rope_theta") {
            Some(_) => number("rope_theta")?,
            None => self.positive("rope_theta", default_theta)?,
        };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        match kind {
            Some("default") => Ok((theta, None)),
            Some("llama3") => {
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
            Some(kind) => Err(error(format!("rope_type `{kind}` is not supported; must be `default` or `llama3`"))),
            None => Err(error("rope_type is missing".into())),
        }
    }
}

fn positive_in(object: &Map<String, Value>, field: &str, default: Option<f64>) -> Result<f64, String> {
    let value = match (object.get(field), default) {
        (None | Some(Value::Null), Some(default)) => return Ok(default),
        (None, None) => return Err("is missing".into()),
        (Some(value), _) => value,
    };
    value.as_f64().ok_or_else(|| format!("must be a number, got {value}")).and_then(is_positive)
}

pub(super) fn is_positive(number: f64) -> Result<f64, String> {
    if (number as f32).is_finite() && number as f32 > 0.0 {
        return Ok(number);
    }
    Err(format!("must be a positive single-precision number, got {number}"))
}

pub(super) fn in_range(size: u64) -> Result<usize, String> {
    match size {
        1..=LARGEST_SIZE => Ok(size as usize),
        _ => Err(format!("must be from 1 to {LARGEST_SIZE}, got {size}")),
    }
}
