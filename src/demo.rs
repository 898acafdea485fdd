//! A recommender for synthetic listeners, small enough for a laptop's CPU.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::data::RawConfig;
use crate::data::synthetic::write_listeners;
use crate::fit::{FitConfig, FitEvent, Shop, fit};
use crate::models::device;
use crate::run::RunError;

/// Minutes that it may take.
const MINUTES: f64 = 3.0;

/// A demonstration: synthetic listeners, and [`fit`] on what they chose.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// The folder to make; the listeners' choices are in its `choices`.
    pub out: PathBuf,
    /// Where to compute.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
}

impl DemoConfig {
    /// Makes everything; `interrupted` stops it, and [`fit`] resumes it.
    ///
    /// # Errors
    ///
    /// Those of [`fit`].
    pub fn carry_out(&self, interrupted: &AtomicBool, observer: &mut dyn FnMut(FitEvent)) -> Result<Shop, RunError> {
        device(&self.device)?;
        let data = self.out.join("choices");
        write_listeners(&data, self.seed)?;
        let config = FitConfig {
            data,
            raw: RawConfig::default(),
            domain: "albums".into(),
            out: self.out.clone(),
            minutes: MINUTES,
            model: None,
            from: None,
            exclude_history: true,
            device: self.device.clone(),
            seed: self.seed,
        };
        config.write()?;
        fit(&config, interrupted, observer)
    }
}
