//! What a request waits, with thoughts and with an explicit chain of tokens.

use std::time::Instant;

use super::config::RequestConfig;
use super::error::BenchError;
use super::result::{BenchEvent, Latency, LatencyTimes, Reasoning};
use crate::models::decode::{BeamConfig, ItemTrie, SearchTerms, TitleStart, beam_search_after, generate};
use crate::models::{LatentRecommender, Objective, ThoughtKind};
use crate::run::peak_mib;
use crate::train::Example;

/// Numbers of thoughts to measure.
const THOUGHTS: [usize; 4] = [0, 1, 2, 4];
/// Lengths of a chain of thought in words, in tokens.
const CHAINS: [usize; 3] = [32, 64, 128];

/// Times prefill, reasoning and search for every kind of reasoning and size of a request. Tokens of a chain are chosen
/// greedily, without an end: what they say is of no matter to the time. Kinds take turns from request to request, so
/// that a machine that slows down slows all.
pub(super) fn requests(
    model: LatentRecommender,
    objective: &Objective,
    rows: &[Example],
    config: &RequestConfig,
    observer: &mut dyn FnMut(BenchEvent),
) -> Result<LatencyTimes, BenchError> {
    let prompts: Vec<&[u32]> = rows.iter().take(config.users).map(|row| row.prompt.as_slice()).collect();
    let beam = BeamConfig { beams: config.beams, length_penalty: None };
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let most = longest + CHAINS[CHAINS.len() - 1] + objective.tree()?.longest(ItemTrie::ROOT);
    let positions = model.backbone.config().max_positions;
    if most > positions {
        return Err(BenchError::Setting(format!(
            "a chain of 128 tokens needs {most} positions, but the model has {positions}"
        )));
    }
    let kind = match model.source.kind() {
        ThoughtKind::LastHidden => ThoughtKind::LastHidden,
        _ => ThoughtKind::LatentAttention,
    };
    let with = |thoughts| model.with_joined_projections().with_thoughts(kind, thoughts, 0);
    let mut kinds = Vec::new();
    for length in THOUGHTS {
        kinds.push((Reasoning::Thoughts, length, with(length)?));
    }
    for length in CHAINS {
        kinds.push((Reasoning::Tokens, length, with(0)?));
    }
    let mut latency = Vec::new();
    for &batch in &config.batches {
        let requests = (prompts.len() / batch).max(1).saturating_mul(config.rounds);
        let mut seconds = vec![Vec::new(); kinds.len()];
        for at in 0..requests {
            let first = (at % prompts.len()) * batch;
            let request: Vec<&[u32]> = (0..batch).map(|user| prompts[(first + user) % prompts.len()]).collect();
            for ((reasoning, length, model), seconds) in kinds.iter().zip(&mut seconds) {
                let clock = Instant::now();
                let mut state = model.reason(&request)?;
                if *reasoning == Reasoning::Tokens {
                    generate(model, &mut state, *length, None)?;
                }
                beam_search_after(model, objective, TitleStart::at(state), &vec![SearchTerms::default(); batch], beam)?;
                seconds.push(clock.elapsed().as_secs_f64());
            }
            observer(BenchEvent::Answered { done: at + 1, all: requests, users: batch });
        }
        for ((reasoning, length, _), mut seconds) in kinds.iter().zip(seconds) {
            seconds.sort_by(f64::total_cmp);
            latency.push(Latency {
                reasoning: *reasoning,
                length: *length,
                batch,
                requests: seconds.len(),
                p50_ms: 1e3 * quantile(&seconds, 0.5),
                p95_ms: 1e3 * quantile(&seconds, 0.95),
                mean_ms_per_user: 1e3 * seconds.iter().sum::<f64>() / (seconds.len() * batch) as f64,
            });
        }
    }
    Ok(LatencyTimes { latency, peak_mib: peak_mib() })
}

/// The smallest value that at least the given share of the values, which ascend, do not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|share| quantile(&values, share)), [1.0, 10.0, 19.0, 20.0]);
        assert_eq!(quantile(&[3.0], 0.95), 3.0);
    }
}
