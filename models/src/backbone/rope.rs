//! Rotary position embedding (Su et al., arXiv 2104.09864), half-split convention.

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use crate::ops::{self, Sendable, Table};

/// Llama 3's stretching of the low frequencies for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeScaling {
    /// By how much the lowest frequencies are divided.
    pub factor: f64,
    /// Wavelengths above `original_max_positions / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_positions / high_freq_factor` stay.
    pub high_freq_factor: f64,
    /// Context length before the stretching.
    pub original_max_positions: f64,
}

/// Angles per position of a rotary embedding over vectors of one width.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f32>,
}

impl Rope {
    /// Frequencies `base^(-2i / width)` for `i < width / 2`, changed by `scaling` if given.
    pub fn new(width: usize, base: f64, scaling: Option<RopeScaling>) -> Self {
        let frequency = |i: usize| (base as f32).powf((2 * i) as f32 / width as f32).recip();
        let scale = |frequency: f32| scaling.map_or(frequency, |scaling| scaling.apply(frequency));
        Self { frequencies: (0..width / 2).map(frequency).map(scale).collect() }
    }

    /// Cosines and sines of the angles at the given positions.
    ///
    /// `positions` holds `rows * tokens` numbers, row by row. Positions that all rows share need one row only.
    pub fn angles(&self, positions: &[usize], rows: usize) -> RopeAngles {
        let half = self.frequencies.len();
        let first = positions.iter().copied().min().unwrap_or(0);
        let end = positions.iter().map(|position| position + 1).max().unwrap_or(0);
        let table = |function: fn(f32) -> f32| {
            // Rows repeat positions: each is computed once.
            let of_position = |p: usize| self.frequencies.iter().map(move |f| function(p as f32 * f));
            let all: Vec<f32> = (first..end).flat_map(of_position).collect();
            Table::new(positions.iter().flat_map(|p| &all[(p - first) * half..][..half]).copied().collect())
        };
        RopeAngles { cos: table(f32::cos), sin: table(f32::sin), size: [rows, positions.len() / rows, 1, half] }
    }
}

impl RopeScaling {
    /// As `rope_scaling` in a `config.json`.
    pub(super) fn to_json(self) -> Value {
        json!({
            "rope_type": "llama3",
            "factor": self.factor,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": self.original_max_positions,
        })
    }

    fn apply(&self, frequency: f32) -> f32 {
        let wavelength = std::f64::consts::TAU / f64::from(frequency);
        let turns = self.original_max_positions / wavelength;
        let keep = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0.0, 1.0);
        (f64::from(frequency) * (keep + (1.0 - keep) / self.factor)) as f32
    }
}

/// Cosines and sines of the rotation at some positions.
#[derive(Debug)]
pub struct RopeAngles {
    cos: Table<f32>,
    sin: Table<f32>,
    /// `[rows, tokens, 1, width / 2]`.
    size: [usize; 4],
}

impl RopeAngles {
    /// Cosines and sines, `[rows, tokens, 1, width / 2]` each, ready to broadcast over heads.
    pub(super) fn cos_and_sin(&self, device: &Device) -> [Tensor<4>; 2] {
        [&self.cos, &self.sin].map(|table| table.on(device).reshape(self.size))
    }

    /// What a rotation looks up.
    pub fn tables(&self) -> [&dyn Sendable; 2] {
        [&self.cos, &self.sin]
    }

    /// Rotates `x`, `[rows, tokens, heads, width]`, whose coordinates `i` and `i + width / 2` form a pair.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = self.cos_and_sin(&x.device());
        ops::rotate(x, cos, sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_keeps_high_frequencies_and_divides_low_ones() {
        let scaling =
            RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_positions: 64.0 };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(1e-4), 1e-4 / 8.0);
        let between = scaling.apply(0.2);
        assert!(between < 0.2 && between > 0.2 / 8.0);
    }
}
