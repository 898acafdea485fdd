use std::time::Instant;

use super::error::BenchError;
use super::result::SearchTimes;
use crate::models::decode::{BeamConfig, Hypothesis, beam_search};
use crate::models::host::Transfers;
use crate::models::{LatentRecommender, LaunchCounter, Launches, Objective};
use crate::run::peak_mib;
use crate::train::Example;

/// Times the search for the rows, `batch` of them at once.
pub(super) fn search(
    model: &LatentRecommender,
    objective: &Objective,
    rows: &[Example],
    batch: usize,
    beams: usize,
) -> Result<SearchTimes, BenchError> {
    let config = BeamConfig { beams, length_penalty: None };
    let (mut counter, before) = (LaunchCounter::of(&model.device()), Transfers::so_far());
    let clock = Instant::now();
    let mut lists = Vec::with_capacity(rows.len());
    for rows in rows.chunks(batch) {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        lists.extend(beam_search(model, objective, &prompts, config)?);
    }
    let s = clock.elapsed().as_secs_f64();
    let (launches, moved) = (counter.as_mut().map(LaunchCounter::take), Transfers::since(before));
    let rank = |(row, list): (&Example, &Vec<Hypothesis>)| list.iter().position(|found| found.tokens == row.target);
    let ranks: Vec<Option<usize>> = rows.iter().zip(&lists).map(rank).collect();
    let hit = |k: usize| ranks.iter().flatten().filter(|rank| **rank < k).count() as f64 / ranks.len() as f64;
    let hr = [1, 3, 5, 10].map(|k| (k, hit(k))).into();
    Ok(SearchTimes {
        users_per_s: rows.len() as f64 / s,
        s,
        hr,
        uploads: moved.uploads,
        downloads: moved.downloads,
        bytes_moved: moved.bytes,
        launches: launches.as_ref().map(Launches::count),
        kernels: launches.map(|launches| launches.by_kernel).unwrap_or_default(),
        peak_mib: peak_mib(),
        lists,
    })
}
