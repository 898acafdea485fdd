//! The settings that are given when a run resumes, against those that it began with.

use serde_json::{Value, json};

use super::description::RunDescription;
use super::error::RunError;
use crate::models::ModelError;

/// The settings of training, and where each stands in a run's description.
pub const SETTINGS: [(&str, &str); 60] = [
    ("epochs", "/train/epochs"),
    ("lr", "/train/learning_rate"),
    ("warmup", "/train/warmup"),
    ("patience", "/train/patience"),
    ("batch", "/train/batch"),
    ("schedule", "/train/schedule"),
    ("weight_decay", "/train/optimizer/weight_decay"),
    ("clip_norm", "/train/clip_norm"),
    ("validations", "/train/validations"),
    ("checkpoint_every", "/train/checkpoint_every"),
    ("keep_every", "/train/keep/every"),
    ("keep_limit", "/train/keep/limit"),
    ("on_nonfinite", "/train/on_nonfinite"),
    ("seed", "/train/seed"),
    ("limit", "/limit"),
    ("valid_limit", "/valid_limit"),
    ("rank_sample", "/rank_sample"),
    ("sample_users", "/sample_users"),
    ("select", "/select"),
    ("average", "/train/optimizer/average"),
    ("dropout", "/stage/regularization/dropout"),
    ("attention_dropout", "/stage/regularization/attention_dropout"),
    ("label_smoothing", "/stage/regularization/label_smoothing"),
    ("drop_history", "/stage/augmentation/drop"),
    ("swap_history", "/stage/augmentation/swap"),
    ("hold_out", "/stage/hold_out/share"),
    ("rows", "/stage/rows"),
    ("objective", "/objective"),
    ("recipe", "/objective"),
    ("precision", "/precision"),
    ("frozen_weights", "/frozen_weights"),
    ("thoughts", "/stage/thoughts"),
    ("source", "/stage/source"),
    ("temperature", "/stage/temperature"),
    ("lora_rank", "/stage/lora/rank"),
    ("lora_alpha", "/stage/lora/alpha"),
    ("lora_targets", "/stage/lora/targets"),
    ("rollouts", "/train/batch"),
    ("group", "/stage/config/group"),
    ("samples", "/stage/config/items"),
    ("reward", "/stage/config/items/rewards"),
    ("thought_samples", "/stage/config/items/thoughts"),
    ("add_target", "/stage/config/items/target"),
    ("hint", "/stage/config/items/hint"),
    ("guide", "/stage/config/items/guide"),
    ("proposals", "/stage/config/items/proposals"),
    ("anchor", "/stage/config/items/anchor"),
    ("sigma", "/stage/config/sigma"),
    ("sigma_relative", "/stage/config/sigma_relative"),
    ("max_perplexity", "/stage/config/max_perplexity"),
    ("estimator", "/stage/config/estimator"),
    ("advantage", "/stage/config/advantage"),
    ("advantage_over", "/stage/config/advantage_over"),
    ("clip_low", "/stage/config/clip_low"),
    ("clip_high", "/stage/config/clip_high"),
    ("kl", "/stage/config/kl"),
    ("updates", "/stage/config/updates"),
    ("train_backbone", "/stage/config/train_backbone"),
    ("max_kl", "/stage/config/max_kl"),
    ("stop_on_collapse", "/stage/config/stop_on_collapse"),
];

/// Makes sure that the given settings, as `is_given` tells of each, are those that the run began with.
///
/// # Errors
///
/// The first one that is not.
pub fn check_same(
    is_given: &dyn Fn(&str) -> bool,
    asked: &RunDescription,
    recorded: &RunDescription,
) -> Result<(), RunError> {
    let (asked, recorded) = (as_json(asked)?, as_json(recorded)?);
    for (setting, pointer) in SETTINGS.into_iter().filter(|(setting, _)| is_given(setting)) {
        let value = |of: &Value| match setting {
            // Recorded as prompts a step, which depend on the group.
            "rollouts" => json!(number(of, pointer).saturating_mul(number(of, "/stage/config/group"))),
            _ => of.pointer(pointer).cloned().unwrap_or_default(),
        };
        let (asked, recorded) = (value(&asked).to_string(), value(&recorded).to_string());
        if asked != recorded {
            return Err(RunError::OtherSetting { setting, asked, recorded });
        }
    }
    Ok(())
}

fn as_json(description: &RunDescription) -> Result<Value, RunError> {
    // All but a path can be written as JSON.
    Ok(serde_json::to_value(description).map_err(|error| ModelError::Input(error.to_string()))?)
}

fn number(of: &Value, pointer: &str) -> u64 {
    of.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_training_option_is_compared_when_a_run_goes_on() {
        // What may change between two parts of a run.
        let free =
            "model out data device gradient_checkpointing micro_batch max_steps mpi json quiet resume config help";
        let free: Vec<&str> = free.split(' ').collect();
        let cli = crate::cli::Cli::command();
        for name in ["pretrain", "sft", "grpo"] {
            let command = cli.find_subcommand(name).unwrap();
            for option in command.get_arguments().map(|option| option.get_id().as_str()) {
                let is_compared = SETTINGS.iter().any(|(setting, _)| *setting == option);
                assert!(is_compared || free.contains(&option), "{name} --{option}");
            }
        }
    }
}
