use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::golden::{Deviation, Golden, GoldenError};
use crate::models::files::write_atomically;
use crate::models::{ModelError, Precision};

/// The checkpoint and figures to compare with where no golden folder is given, in Hugging Face's layout.
const BUILT_IN: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../golden/qwen2/config.json")),
    ("model.safetensors", include_bytes!("../golden/qwen2/model.safetensors")),
    ("golden.json", include_bytes!("../golden/qwen2/golden.json")),
];

/// The largest deviation of each kind of figure, as [`Deviation::error`] has it; a huge one stands for NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceCheck {
    /// What the blocks multiplied in.
    pub precision: Precision,
    /// Of what the forward pass and the search give.
    pub forward: f64,
    /// Of stage 1's gradients.
    pub sft_gradients: f64,
    /// Of stage 2's gradients.
    pub grpo_gradients: f64,
    /// Seconds that the check took, with the compilation of kernels.
    pub seconds: f64,
}

/// All deviations of a golden model that computes in a precision, and the largest of each kind.
pub(super) fn measure(golden: &Golden, precision: Precision) -> Result<(DeviceCheck, Vec<Deviation>), GoldenError> {
    let clock = Instant::now();
    let deviations = match precision {
        Precision::F32 => golden.check()?,
        // The rest compares with float32's own log-probabilities, or counts.
        _ => [
            golden.hidden_states_and_thoughts()?,
            golden.target_log_probabilities()?,
            golden.sft()?,
            golden.grpo_from_one_pass()?,
        ]
        .concat(),
    };
    let worst = |part: &str| {
        let errors = deviations.iter().filter(|deviation| kind(deviation) == part).map(|deviation| deviation.error);
        errors.map(|error| if error.is_finite() { error } else { f64::MAX }).fold(0.0, f64::max)
    };
    let [forward, sft_gradients, grpo_gradients] = ["forward", "SFT", "GRPO"].map(worst);
    let seconds = clock.elapsed().as_secs_f64();
    Ok((DeviceCheck { precision, forward, sft_gradients, grpo_gradients, seconds }, deviations))
}

fn kind(deviation: &Deviation) -> &'static str {
    ["SFT", "GRPO"]
        .into_iter()
        .find(|stage| deviation.what.starts_with(&format!("{stage} gradient")))
        .unwrap_or("forward")
}

/// The golden folder's model on a device, or the built-in one's.
pub(super) fn load(device: &Device, golden: Option<&Path>) -> Result<Golden, GoldenError> {
    if let Some(folder) = golden {
        return Golden::load(folder, device);
    }
    let folder = tempfile::tempdir().map_err(ModelError::io(&std::env::temp_dir()))?;
    for (name, content) in BUILT_IN {
        write_atomically(&folder.path().join(name), content)?;
    }
    Golden::load(folder.path(), device)
}
