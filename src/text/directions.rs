use serde::Serialize;
use serde_json::json;

use super::table::table;
use crate::run::Directions;

/// The cosines as a table with a row for each advantage, under the samples that they are from.
pub fn of_directions(directions: &Directions) -> String {
    let cell = |cosine: &Option<f64>| cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.3}"));
    let head = directions.cosine.values().next().into_iter().flat_map(|of| of.keys().map(name_of));
    let head = std::iter::once("advantage".to_owned()).chain(head).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for (advantage, of) in &directions.cosine {
        rows.push(std::iter::once(name_of(advantage)).chain(of.values().map(cell)).collect());
    }
    let Directions { prompts, samples, thought_norm, noise_norm, reward_noise_free, reward_noisy, .. } = directions;
    format!(
        "{prompts} prompts, {samples} noisy samples each; mean norm of thoughts {thought_norm:.2}, of noise \
         {noise_norm:.2}; mean reward {reward_noise_free:.3} without noise, {reward_noisy:.3} with noise\n{}",
        table(&rows)
    )
}

/// What a setting is called in files.
fn name_of(setting: &impl Serialize) -> String {
    json!(setting).as_str().unwrap_or_default().to_owned()
}
