//! Every figure of the method against what PyTorch computes in float64.
//!
//! Each folder under `tests/data/golden`, or under `LATENTR3_GOLDEN_DIR` where that is set, holds a small checkpoint
//! and `golden.json`; the variable may name one such folder, too. No test knows a size: folders with other sizes must
//! pass. `LATENTR3_TEST_DEVICE` chooses the device. All golden tests are in this one program, because a GPU's kernels
//! are compiled anew for each program.

mod peft;

use std::path::PathBuf;

use latentr3::golden::{Deviation, Golden, GoldenError};

/// Runs a check on every golden folder; all of its deviations must be accepted.
fn hold(check: impl Fn(&Golden) -> Result<Vec<Deviation>, GoldenError>) {
    let root = std::env::var("LATENTR3_GOLDEN_DIR").map_or_else(|_| PathBuf::from("tests/data/golden"), PathBuf::from);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let within = entries.map(|entry| entry.unwrap().path());
    let is_golden = |path: &PathBuf| path.join("golden.json").exists();
    let mut folders: Vec<PathBuf> = within.chain([root.clone()]).filter(is_golden).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no golden folder under {}", root.display());
    let mut checked = 0;
    for folder in folders {
        let golden = Golden::load(&folder, &crate::common::device()).unwrap();
        let deviations = check(&golden).unwrap();
        checked += deviations.len();
        for Deviation { what, error, limit } in deviations {
            assert!(error <= limit, "{}: {what}: {error:.2e} instead of at most {limit:.0e}", folder.display());
        }
    }
    assert!(checked > 0, "nothing was checked under {}", root.display());
}

#[test]
fn golden_last_hidden_states_and_thoughts() {
    hold(Golden::hidden_states_and_thoughts);
}

#[test]
fn golden_target_log_probabilities_with_any_number_of_thoughts() {
    hold(Golden::target_log_probabilities);
}

#[test]
fn golden_sft_loss_and_gradients_in_any_micro_batch() {
    hold(Golden::sft);
}

#[test]
fn golden_grpo_rewards_advantages_loss_and_gradients_from_one_pass() {
    hold(Golden::grpo_from_one_pass);
}

#[test]
fn golden_grpo_updates_off_policy_with_clipping_and_kl() {
    hold(Golden::grpo_updates);
}

#[test]
fn golden_catalog_scores_and_ranking() {
    hold(Golden::catalog);
}

#[test]
fn golden_catalog_objective_log_probabilities_loss_gradients_scores_and_ranking() {
    hold(Golden::catalog_objective);
}
