//! What a shop's choice was made by.

use std::path::{Path, PathBuf};

use super::language_model::trial_model;
use super::shop::Shop;
use crate::data::Split;
use crate::input_error::InputError;
use crate::run::{ChosenGuidance, GuideSource, RunError};

/// The models that were tried before the chosen one was trained on everything, as `evaluate` and `report` take them.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The prepared data, with rows to validate and to test on.
    pub data: PathBuf,
    /// The language model.
    pub model: PathBuf,
    /// How it is guided, where that was chosen.
    pub guidance: Option<ChosenGuidance>,
    /// Whether what a user has chosen before is left out of the lists.
    pub exclude_history: bool,
    /// The results on test users.
    pub results: Vec<PathBuf>,
}

impl Trial {
    /// Of a shop's folder.
    ///
    /// # Errors
    ///
    /// A damaged folder, and one in which no language model was tried.
    pub fn of(folder: &Path) -> Result<Self, RunError> {
        let shop = Shop::read(folder)?;
        let problem = "has no trial of a language model: there was too little data, or its folder `trial` was deleted";
        let model = trial_model(folder)?.ok_or_else(|| InputError::new(folder, problem))?;
        let guide = |chosen: ChosenGuidance| match GuideSource::from(chosen.guide.as_str()) {
            GuideSource::Transition => chosen,
            GuideSource::SasRec(_) => {
                ChosenGuidance { guide: folder.join("trial/sasrec").display().to_string(), ..chosen }
            }
        };
        let file = |model: &super::shop::FittedModel| {
            folder.join(format!("trial/results/{}-{}.json", model.model, Split::Test.name()))
        };
        Ok(Self {
            data: folder.join("trial/data"),
            model,
            guidance: shop.guidance.map(guide),
            exclude_history: shop.exclude_history,
            results: shop.models.iter().map(file).filter(|file| file.is_file()).collect(),
        })
    }
}
