//! In how many bits numbers are multiplied and kept.

use std::fmt;
use std::str::FromStr;

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// What the matrix products of the blocks' projections are computed in, see [`with_precision`], and what frozen
/// matrices are kept in, see [`with_frozen_weights`].
///
/// On `flex` the two of 16 bits are imitated: what goes into a float32 product is rounded, and so is what comes out.
/// That shows what they do to a model, and takes longer than float32.
///
/// [`with_precision`]: crate::LatentRecommender::with_precision
/// [`with_frozen_weights`]: crate::LatentRecommender::with_frozen_weights
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754's float32.
    #[default]
    F32,
    /// The upper half of a float32: all of its range, 8 significant bits.
    Bf16,
    /// IEEE 754's float16: 11 significant bits, up to 65,504. A product beyond that is infinite, and everything that
    /// it goes into are NaN or infinite. Gradients, many of which would be too small for it, are multiplied in float32.
    F16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// What the products of a backward pass are computed in.
    pub(crate) fn of_gradients(self) -> Self {
        if self == Self::F16 { Self::F32 } else { self }
    }

    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|precision| precision.to_string() == text);
        named.ok_or_else(|| format!("`{text}` is not a precision; must be f32, bf16 or f16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_written_as_it_is_read_and_others_are_refused() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.to_string());
        }
        for text in ["", "F32", "fp16", "f64"] {
            assert!(text.parse::<Precision>().unwrap_err().contains("bf16"), "{text}");
        }
    }
}
