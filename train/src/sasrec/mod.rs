//! Training of [`SasRec`]: cross-entropy over the whole catalog at the end of each history, Adam, and an end when validation
//! gets no better.

mod config;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use latentr3_models::random::generator;
use latentr3_models::sasrec::{Dropout, SasRec};
use latentr3_models::{ModelError, host, hub};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use config::SasRecTrainConfig;

use crate::TrainError;
use crate::adamw::{AdamW, AdamWConfig};
use crate::batches::epoch_order;
use crate::checkpoint;
use crate::gradients::{Gradients, trained_shapes};
use crate::progress::Fault;
use crate::run::RunFolder;

/// Marks the generators of dropout among those of a run.
const DROPOUT: u64 = 0x4452_4f50_4f55_5421;

/// A training row: what a user had chosen, oldest first, and the next choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Catalog indices of the choices before.
    pub history: &'a [usize],
    /// Catalog index of the choice.
    pub item: usize,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasRecProgress {
    /// Epochs done.
    pub epoch: usize,
    /// Epoch of the best validation, and its NDCG@10.
    pub best: Option<(usize, f64)>,
    /// Whether the run is over.
    pub finished: bool,
    /// Bytes of the metrics file that belong to the epochs done.
    pub metrics_bytes: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// An epoch that is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// Mean loss of its rows.
    pub loss: f64,
    /// NDCG@10 on the validation rows.
    pub ndcg: f64,
    /// Whether that is the best so far.
    pub is_best: bool,
}

/// A run: rows, configuration and where it is kept.
pub struct SasRecTraining<'a> {
    /// The configuration.
    pub config: &'a SasRecTrainConfig,
    /// Training rows.
    pub train: &'a [Choice<'a>],
    /// Rows for model selection; without any, the last epoch's model is the best.
    pub valid: &'a [Choice<'a>],
    /// Where checkpoints and metrics go.
    pub run: &'a RunFolder,
    /// Told of every epoch.
    pub observer: &'a mut dyn FnMut(Epoch),
    /// Set to have the run stop after the present step or validation; it goes on from the last whole epoch.
    pub interrupted: &'a AtomicBool,
}

/// A model in training with what belongs to it.
struct State {
    model: SasRec,
    adamw: AdamW,
    progress: SasRecProgress,
}

impl SasRecTraining<'_> {
    /// Trains from the run's latest checkpoint, or `fresh` where it has none, to the same end as if it had never stopped. The run
    /// was interrupted where it is not finished in the end.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn go_on(self, fresh: SasRec) -> Result<SasRecProgress, TrainError> {
        self.config.check()?;
        if self.train.is_empty() {
            return Err(TrainError::config("train", "there are no rows to train on"));
        }
        let mut state = match self.run.last() {
            last if last.exists() || self.run.best().exists() => self.load(&last, &fresh.device())?,
            _ => {
                let progress = SasRecProgress { epoch: 0, best: None, finished: false, metrics_bytes: 0, seconds: 0.0 };
                State { model: fresh.train(), adamw: AdamW::new(AdamWConfig::default()), progress }
            }
        };
        self.copy_best(&state.progress)?;
        // A run that is to be shorter now.
        state.progress.finished |= state.progress.epoch >= self.config.epochs;
        let mut metrics = self.run.metrics(state.progress.metrics_bytes)?;
        let (before, clock) = (state.progress.seconds, Instant::now());
        while !state.progress.finished {
            let epoch = state.progress.epoch + 1;
            let Some(loss) = self.epoch(&mut state)? else {
                break;
            };
            let ndcg = ndcg(&state.model.valid(), self.valid, self.config.batch)?;
            if let Some(Fault { what, value }) = Fault::of("validation NDCG", ndcg) {
                let step = epoch * self.train.len().div_ceil(self.config.batch);
                return Err(TrainError::NotFinite { step, what, value, rows: Vec::new() });
            }
            let is_best = self.valid.is_empty() || state.progress.best.is_none_or(|(_, best)| ndcg > best);
            let figures =
                [("epoch", json!(epoch)), ("loss", json!(loss)), ("valid_ndcg", json!(ndcg)), ("best", json!(is_best))];
            metrics.append(&figures.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())?;
            let State { model, adamw, progress } = &mut state;
            progress.epoch = epoch;
            if is_best {
                progress.best = Some((epoch, ndcg));
            }
            let waited = epoch - progress.best.map_or(0, |(best, _)| best);
            progress.finished = epoch >= self.config.epochs || waited >= self.config.patience;
            progress.metrics_bytes = metrics.sync()?;
            progress.seconds = before + clock.elapsed().as_secs_f64();
            checkpoint::save(&self.run.last(), |folder| model.save(folder), adamw, progress, &[])?;
            self.copy_best(progress)?;
            (self.observer)(Epoch { epoch, loss, ndcg, is_best });
        }
        Ok(state.progress)
    }

    fn load(&self, folder: &Path, device: &Device) -> Result<State, TrainError> {
        let model = SasRec::load(folder, device)?.train();
        let adamw = checkpoint::load_optimizer(folder, AdamWConfig::default(), device)?;
        adamw.check(&trained_shapes(&model), folder)?;
        let progress: SasRecProgress = checkpoint::progress(folder)?;
        let best = progress.best.map_or(0, |(epoch, _)| epoch);
        if progress.epoch > self.config.epochs || best > progress.epoch {
            let problem = format!("has done {} of {} epochs, {best} the best", progress.epoch, self.config.epochs);
            return Err(TrainError::run(folder, problem));
        }
        Ok(State { model, adamw, progress })
    }

    /// Moves the model by every row once; returns the mean loss, or nothing where the run is to stop.
    fn epoch(&self, state: &mut State) -> Result<Option<f64>, TrainError> {
        let SasRecTrainConfig { batch, learning_rate, seed, .. } = *self.config;
        let epoch = state.progress.epoch;
        let order = epoch_order(self.train.len(), seed, epoch as u64);
        let rate = state.model.config().dropout;
        let mut total = 0.0;
        for (step, places) in order.chunks(batch).enumerate() {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let histories: Vec<&[usize]> = places.iter().map(|&place| self.train[place].history).collect();
            let items: Vec<usize> = places.iter().map(|&place| self.train[place].item).collect();
            let mut dropout = Dropout::new(rate, generator([seed, DROPOUT, epoch as u64, step as u64]));
            let loss = state.model.target_log_probs(&histories, &items, &mut dropout)?.mean().neg();
            let value = f64::from(host::read(loss.clone())[0]);
            if let Some(Fault { what, value }) = Fault::of("loss", value) {
                let step = epoch * order.len().div_ceil(batch) + step + 1;
                return Err(TrainError::NotFinite { step, what, value, rows: Vec::new() });
            }
            total += value * places.len() as f64;
            let gradients = Gradients::collect(&state.model, loss.backward());
            let model = state.model.clone();
            state.model = state.adamw.step(model, gradients, 1.0, learning_rate);
        }
        Ok(Some(total / order.len() as f64))
    }

    /// Makes the copy of the latest checkpoint that belongs to its state, also where a program that was killed did not.
    fn copy_best(&self, progress: &SasRecProgress) -> Result<(), TrainError> {
        let (last, best) = (self.run.last(), self.run.best());
        let is_there = |epoch| {
            hub::verify_checksums(&best).is_ok()
                && checkpoint::progress(&best).is_ok_and(|of: SasRecProgress| of.epoch == epoch)
        };
        match progress.best {
            Some((epoch, _)) if epoch == progress.epoch && !is_there(epoch) => checkpoint::copy(&last, &best),
            _ => Ok(()),
        }
    }
}

/// NDCG@10 of the rows' items among the whole catalog; an item that others equal has the mean of their ranks. Not a number where a
/// score is none.
fn ndcg(model: &SasRec, rows: &[Choice], batch: usize) -> Result<f64, TrainError> {
    let mut sum = 0.0;
    for rows in rows.chunks(batch) {
        let histories: Vec<&[usize]> = rows.iter().map(|row| row.history).collect();
        let scores = host::read(model.log_probs(&histories)?);
        for (row, scores) in rows.iter().zip(scores.chunks(model.config().items)) {
            let Some(&own) = scores.get(row.item) else {
                let problem = format!("item {} is outside the model's catalog of {}", row.item, scores.len());
                return Err(ModelError::Input(problem).into());
            };
            let (above, equal) = scores.iter().fold((0.0, 0.0), |(above, equal), &score| {
                (above + f64::from(u8::from(score > own)), equal + f64::from(u8::from(score == own)))
            });
            if scores.iter().any(|score| score.is_nan()) {
                return Ok(f64::NAN);
            }
            let rank = above + (equal + 1.0) / 2.0;
            sum += if rank <= 10.0 { 1.0 / (1.0 + rank).log2() } else { 0.0 };
        }
    }
    Ok(sum / rows.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use latentr3_models::sasrec::SasRecConfig;

    use super::*;

    const ITEMS: usize = 6;

    /// Histories of up to three items of a cycle, and what follows.
    fn cycle() -> Vec<(Vec<usize>, usize)> {
        let row = |start: usize, length: usize| {
            ((start..start + length).map(|item| item % ITEMS).collect(), (start + length) % ITEMS)
        };
        (0..ITEMS).flat_map(|start| (1..=3).map(move |length| row(start, length))).collect()
    }

    /// Trains in a folder until it is done, or `stop_after` epochs.
    fn train(folder: &Path, config: &SasRecTrainConfig, stop_after: Option<usize>) -> (SasRecProgress, Vec<Epoch>) {
        let rows = cycle();
        let choices: Vec<Choice> = rows.iter().map(|(history, item)| Choice { history, item: *item }).collect();
        let sizes = SasRecConfig { d_model: 16, d_ff: 16, blocks: 1, dropout: 0.1, ..SasRecConfig::new(ITEMS, 3) };
        let run = match folder.exists() {
            true => RunFolder::open(folder, Vec::new()).unwrap(),
            false => RunFolder::create(folder, &json!({}), Vec::new()).unwrap(),
        };
        let interrupted = AtomicBool::new(false);
        let mut epochs = Vec::new();
        let mut observer = |epoch: Epoch| {
            epochs.push(epoch);
            interrupted.store(Some(epochs.len()) == stop_after, Ordering::Relaxed);
        };
        let training = SasRecTraining {
            config,
            train: &choices,
            valid: &choices,
            run: &run,
            observer: &mut observer,
            interrupted: &interrupted,
        };
        let end = training.go_on(SasRec::new(sizes, 1, &crate::device_under_test()).unwrap()).unwrap();
        (end, epochs)
    }

    #[test]
    fn a_cycle_is_learnt_and_a_run_that_stops_comes_to_the_same_end() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
        let config = SasRecTrainConfig { epochs: 40, batch: 5, learning_rate: 5e-3, patience: 40, seed: 3 };
        let (end, epochs) = train(&whole, &config, None);
        assert!(end.finished && end.epoch == 40 && epochs.len() == 40);
        assert!(epochs[39].loss < 0.2 * epochs[0].loss, "{epochs:?}");
        let (best, ndcg) = end.best.unwrap();
        assert!(ndcg > 0.99, "{ndcg}");
        assert!(epochs[best - 1].is_best && epochs[best - 1].ndcg == ndcg);
        let model = SasRec::load(&whole.join("best"), &crate::device_under_test()).unwrap();
        let scores = host::read(model.log_probs(&[&[3, 4, 5]]).unwrap());
        assert!(scores.iter().all(|score| *score <= scores[0]), "after 5 comes 0: {scores:?}");

        let stop = epochs.iter().filter(|epoch| epoch.is_best).nth(1).unwrap().epoch;
        let (end, epochs) = train(&stopped, &config, Some(stop));
        assert!(!end.finished && epochs.len() == stop);
        // As a program leaves it that was killed between the latest checkpoint and the copy of it.
        std::fs::remove_dir_all(stopped.join("best")).unwrap();
        assert!(train(&stopped, &config, None).0.finished);
        for file in ["last/model.safetensors", "last/optimizer.safetensors", "best/model.safetensors", "metrics.jsonl"]
        {
            let [a, b] = [&whole, &stopped].map(|run| std::fs::read(run.join(file)).unwrap());
            assert!(a == b, "{file}");
        }
        assert!(train(&stopped, &config, None).1.is_empty(), "it is over");
    }

    #[test]
    fn patience_ends_a_run_that_gets_no_better() {
        let folder = tempfile::tempdir().unwrap();
        let config = SasRecTrainConfig { learning_rate: 1e-30, patience: 3, ..Default::default() };
        let (end, epochs) = train(&folder.path().join("run"), &config, None);
        assert!(end.finished && epochs.len() == 4 && end.best.unwrap().0 == 1);
    }
}
