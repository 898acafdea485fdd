use burn::module::Module;

use super::config::{BenchConfig, Timed};
use super::error::BenchError;
use super::latency::requests;
use super::result::{BenchEvent, BenchResult};
use super::search::search;
use super::steps::Steps;
use crate::data::TokenFile;
use crate::models::LoraConfig;
use crate::run::{check_device, load_rounded_model};
use crate::train::grpo::{self, freeze_untrained};
use crate::train::sft::Sft;

impl BenchConfig {
    /// Loads model and rows, and times.
    ///
    /// # Errors
    ///
    /// Settings that make no sense, a model or rows that cannot be read or do not fit, a search without a catalog, and
    /// a step that is NaN or infinite.
    pub fn time(&self, observer: &mut dyn FnMut(BenchEvent)) -> Result<BenchResult, BenchError> {
        self.check()?;
        check_device(&self.device, self.precision)?;
        check_device(&self.device, self.timed.frozen_weights())?;
        let file = self.token_file()?;
        let model = load_rounded_model(&self.model, &self.device, self.timed.frozen_weights())?
            .with_precision(self.precision)?;
        let (trained, read) = (model.objective(), self.objective.unwrap_or(model.objective()));
        observer(BenchEvent::Loaded { trained, read });
        let objective = file.objective(self.catalog.as_deref(), read, &model.backbone)?;
        file.check(&model, &objective)?;
        if matches!(self.timed, Timed::Search { .. } | Timed::Latency(_)) && objective.tree().is_err() {
            return Err(TokenFile::no_catalog(self.catalog_file(&file)).into());
        }
        Ok(match &self.timed {
            Timed::Sft { steps, lora_rank } => {
                let stage = Sft::new(steps.micro_batch, objective);
                let model = match lora_rank {
                    Some(rank) => model.with_lora(&LoraConfig::of_rank(*rank), self.seed)?,
                    None => model,
                };
                BenchResult::Steps(Steps { config: steps, stage: &stage, group: None }.time(model, &file.rows)?)
            }
            Timed::Grpo { steps, config } => {
                let model = freeze_untrained(model, config);
                let stage = grpo::stage(config.clone(), steps.micro_batch, self.seed, &model, objective, None)?;
                let group = Some(config.group);
                BenchResult::Steps(Steps { config: steps, stage: stage.as_ref(), group }.time(model, &file.rows)?)
            }
            Timed::Search { users, batch, beams } => {
                let rows = &file.rows[..file.rows.len().min(*users)];
                BenchResult::Search(search(&model.valid(), &objective, rows, *batch, *beams)?)
            }
            Timed::Latency(config) => {
                BenchResult::Latency(requests(model.valid(), &objective, &file.rows, config, observer)?)
            }
        })
    }
}
