//! The baseline [`SasRec`] as a stage: a loss at the end of each history, Adam, and NDCG@10 to select by.
//!
//! Its examples have items where a language model's have tokens: see [`example`].

mod config;

use burn::module::Module;
use burn::tensor::activation::log_sigmoid;
use latentr3_models::random::generator;
use latentr3_models::sasrec::{Dropout, SasRec};
use latentr3_models::{ModelError, host};
use rand::{Rng, RngExt};
use serde_json::{Map, json};

pub use config::{SasRecLoss, SasRecTrainConfig};

use crate::local_update::LocalUpdate;
use crate::optimizer::Optimizer;
use crate::progress::{StepReport, Validation};
use crate::stage::{Stage, ValidationPass};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// Marks the generators of dropout among those of a run.
const DROPOUT: u64 = 0x4452_4f50_4f55_5421;

/// Marks the generators of items that did not follow.
const NEGATIVE: u64 = 0x4e45_4741_5449_5645;

/// The stage that trains SASRec.
#[derive(Debug, Clone, Copy)]
pub struct SasRecStage {
    /// Seed of dropout.
    pub seed: u64,
    /// Steps in an epoch: dropout is drawn by epoch and step.
    pub steps_per_epoch: usize,
    /// What it minimises.
    pub loss: SasRecLoss,
}

/// A training row: catalog indices of what a user had chosen, oldest first, and of the next choice.
pub fn example(history: &[usize], item: usize, row: usize) -> Example {
    Example { prompt: history.iter().map(|&item| item as u32).collect(), target: vec![item as u32], item, row }
}

fn histories(rows: &[&Example]) -> Vec<Vec<usize>> {
    rows.iter().map(|row| row.prompt.iter().map(|&item| item as usize).collect()).collect()
}

impl Stage<SasRec> for SasRecStage {
    fn step(
        &self,
        model: SasRec,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(SasRec, StepReport), TrainError> {
        let mut update = LocalUpdate::default().with_metrics(["loss"]);
        if !batch.rows.is_empty() {
            let done = optimizer.step - 1;
            // Each rank draws for its own rows.
            let epoch = (done / self.steps_per_epoch) as u64 | (batch.world.rank() as u64) << 32;
            let step = (done % self.steps_per_epoch) as u64;
            let mut dropout = Dropout::new(model.config().dropout, generator([self.seed, DROPOUT, epoch, step]));
            let histories = histories(&batch.rows);
            let histories: Vec<&[usize]> = histories.iter().map(Vec::as_slice).collect();
            let items: Vec<usize> = batch.rows.iter().map(|row| row.item).collect();
            let sum = match self.loss {
                SasRecLoss::Softmax => model.target_log_probs(&histories, &items, &mut dropout)?.sum(),
                SasRecLoss::Bce => {
                    let mut negatives = generator([self.seed, NEGATIVE, epoch, step]);
                    let pair = |(history, &item): (&&[usize], &usize)| {
                        [item, negative(history, item, model.config().items, &mut negatives)]
                    };
                    let pairs: Vec<usize> = histories.iter().zip(&items).flat_map(pair).collect();
                    let logits = model.logits(&histories, &pairs, &mut dropout)?;
                    let signs = host::floats(vec![1.0, -1.0], [1, 2], &model.device());
                    log_sigmoid(logits * signs).sum()
                }
            };
            let loss = sum.div_scalar(batch.global.len() as f64).neg();
            update.add(&model, loss.clone(), [("loss", loss)]);
        }
        optimizer.apply(model, update, batch)
    }

    fn validate(
        &self,
        model: &SasRec,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        let (model, world) = (model.valid(), pass.world);
        let mut sum = [0.0];
        for rows in rows.chunks(pass.micro_batch).skip(world.rank()).step_by(world.size()) {
            sum[0] += sum_of_ndcg(&model, &rows.iter().collect::<Vec<_>>())?;
        }
        world.all_reduce(&mut sum);
        let ndcg = sum[0] / rows.len() as f64;
        Ok(Some(Validation {
            score: ndcg,
            metrics: Map::from_iter([("valid_ndcg".to_owned(), json!(ndcg))]),
            watched: None,
        }))
    }
}

/// An item that neither is the next one nor in the history; another than the next one where a history has all others.
fn negative(history: &[usize], item: usize, items: usize, generator: &mut impl Rng) -> usize {
    let is_other = |other: usize| other != item && !history.contains(&other);
    // A history has a few items of a catalog's thousands: hardly ever is one drawn twice.
    for _ in 0..100 {
        let drawn = generator.random_range(0..items);
        if is_other(drawn) {
            return drawn;
        }
    }
    (0..items).find(|&other| is_other(other)).unwrap_or((item + 1) % items)
}

/// NDCG@10 of the rows' items among the whole catalog, added up; an item that others equal has the mean of their ranks.
/// NaN where a score is.
fn sum_of_ndcg(model: &SasRec, rows: &[&Example]) -> Result<f64, TrainError> {
    let histories = histories(rows);
    let scores = host::read(model.log_probs(&histories.iter().map(Vec::as_slice).collect::<Vec<_>>())?);
    let mut sum = 0.0;
    for (row, scores) in rows.iter().zip(scores.chunks(model.config().items)) {
        let Some(&own) = scores.get(row.item) else {
            let problem = format!("item {} is outside the model's catalog of {}", row.item, scores.len());
            return Err(ModelError::Input(problem).into());
        };
        if scores.iter().any(|score| score.is_nan()) {
            return Ok(f64::NAN);
        }
        let (above, equal) = scores.iter().fold((0.0, 0.0), |(above, equal), &score| {
            (above + f64::from(u8::from(score > own)), equal + f64::from(u8::from(score == own)))
        });
        let rank = above + (equal + 1.0) / 2.0;
        sum += if rank <= 10.0 { 1.0 / (1.0 + rank).log2() } else { 0.0 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use latentr3_models::sasrec::SasRecConfig;

    use super::*;
    use crate::progress::{Event, Progress};
    use crate::run::RunFolder;
    use crate::trainer::Training;
    use crate::world::World;

    const ITEMS: usize = 6;

    /// Histories of up to three items of a cycle, and what follows.
    fn cycle() -> Vec<Example> {
        let row = |start: usize, length: usize| {
            let history: Vec<usize> = (start..start + length).map(|item| item % ITEMS).collect();
            example(&history, (start + length) % ITEMS, start)
        };
        (0..ITEMS).flat_map(|start| (1..=3).map(move |length| row(start, length))).collect()
    }

    /// Trains in a folder until it is done, or `stop_after` validations: where it stands, and what each validation
    /// found.
    fn train(folder: &Path, config: &SasRecTrainConfig, stop_after: Option<usize>) -> (Progress, Vec<(f64, bool)>) {
        let (rows, device) = (cycle(), crate::device_under_test());
        let sizes = SasRecConfig { d_model: 16, d_ff: 16, blocks: 1, dropout: 0.1, ..SasRecConfig::new(ITEMS, 3) };
        let loss = config.loss;
        let config = config.training();
        let stage = SasRecStage { seed: config.seed, steps_per_epoch: config.steps_per_epoch(rows.len()), loss };
        let interrupted = AtomicBool::new(false);
        let mut found = Vec::new();
        let mut observer = |event: Event| {
            if let Event::Validated { validation, is_best, .. } = event {
                found.push((validation.score, is_best));
                interrupted.store(Some(found.len()) == stop_after, Ordering::Relaxed);
            }
        };
        let (run, earlier) = match folder.exists() {
            true => {
                let run = RunFolder::open(folder, Vec::new()).unwrap();
                let earlier = run.newest(config.optimizer, &device, latentr3_models::Precision::F32).unwrap();
                (run, earlier)
            }
            false => (RunFolder::create(folder, &json!({}), Vec::new()).unwrap(), None),
        };
        let training = Training {
            config: &config,
            train: &rows,
            valid: &rows,
            run: Some(&run),
            world: &World::alone(),
            observer: &mut observer,
            interrupted: &interrupted,
        };
        let end = match earlier {
            Some(found) => training.resume(&stage, found.trained),
            None => training.start(&stage, SasRec::new(sizes, 1, &device).unwrap()),
        };
        (end.unwrap(), found)
    }

    #[test]
    fn a_cycle_is_learnt_and_a_run_that_stops_comes_to_the_same_end() {
        // What does not follow is drawn among the items that the history does not have: those of the history, three of
        // six here, are not learnt to be unlikely.
        for (loss, epochs, least) in [(SasRecLoss::Softmax, 40, 0.99), (SasRecLoss::Bce, 160, 0.7)] {
            let folder = tempfile::tempdir().unwrap();
            let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
            let config = SasRecTrainConfig { epochs, batch: 5, learning_rate: 5e-3, patience: epochs, loss, seed: 3 };
            let (end, found) = train(&whole, &config, None);
            assert!(end.finished && end.step == epochs * 4 && found.len() == epochs);
            let best = end.best.unwrap().score;
            assert!(best > least, "{best}");
            assert_eq!(found[end.best_step.unwrap() / 4 - 1], (best, true));
            let model = SasRec::load(&whole.join("best"), &crate::device_under_test()).unwrap();
            let scores = host::read(model.log_probs(&[&[3, 4, 5]]).unwrap());
            let others = if loss == SasRecLoss::Softmax { 1..6 } else { 1..3 };
            assert!(scores[others].iter().all(|score| *score < scores[0]), "after 5 comes 0: {scores:?}");

            let stop = found.iter().enumerate().filter(|(_, (_, is_best))| *is_best).nth(1).unwrap().0 + 1;
            let (end, found) = train(&stopped, &config, Some(stop));
            assert!(!end.finished && found.len() == stop);
            // As a program leaves it that was killed between the latest checkpoint and the copy of it.
            std::fs::remove_dir_all(stopped.join("best")).unwrap();
            assert!(train(&stopped, &config, None).0.finished);
            for file in
                ["last/model.safetensors", "last/optimizer.safetensors", "best/model.safetensors", "metrics.jsonl"]
            {
                let [a, b] = [&whole, &stopped].map(|run| std::fs::read(run.join(file)).unwrap());
                assert!(a == b, "{file}");
            }
            assert!(train(&stopped, &config, None).1.is_empty(), "it is over");
        }
    }

    #[test]
    fn what_did_not_follow_is_neither_the_next_item_nor_in_the_history() {
        let mut random = generator([1, 2, 3, 4]);
        let mut seen = [0; 6];
        for _ in 0..300 {
            seen[negative(&[1, 4, 1], 2, 6, &mut random)] += 1;
        }
        assert!(seen.iter().enumerate().all(|(item, &count)| ([0, 3, 5].contains(&item)) == (count > 60)), "{seen:?}");
        assert_eq!(negative(&[0, 1, 2], 3, 4, &mut random), 0, "the history has all others");
    }

    #[test]
    fn patience_ends_a_run_that_gets_no_better() {
        let folder = tempfile::tempdir().unwrap();
        let config = SasRecTrainConfig { learning_rate: 1e-30, patience: 3, ..Default::default() };
        let (end, found) = train(&folder.path().join("run"), &config, None);
        assert!(end.finished && found.len() == 4 && end.best_step == Some(1));
    }
}
