//! How much a thought attends to each title of a prompt.

use crate::models::{LatentRecommender, ModelError, ThoughtSource, host};

/// The shares of a thought's attention that the parts of a prompt have; together they are one.
#[derive(Debug, Clone, PartialEq)]
pub struct Attended {
    /// The wording before the history.
    pub before: f64,
    /// The titles that the prompt shows: places in the history, the oldest first, with their shares.
    pub titles: Vec<(usize, f64)>,
    /// The wording after the history.
    pub after: f64,
    /// The thoughts before, where the model has more than one.
    pub thoughts: f64,
}

/// What the last thought of a model attends to in a prompt; `None` if it has no latent attention. `places` says for each
/// token the place in the history of the title that it belongs to.
///
/// # Errors
///
/// A prompt that the model refuses.
pub fn attended(
    model: &LatentRecommender,
    prompt: &[u32],
    places: &[Option<usize>],
) -> Result<Option<Attended>, ModelError> {
    let attention = match &model.source {
        ThoughtSource::LatentAttention(attention) if model.thoughts() > 0 => attention,
        _ => return Ok(None),
    };
    let mut state = model.prefill(&[prompt])?;
    // Leaves all thoughts but the last in the state, so that the weights are those of the last.
    model.think(&mut state)?;
    Ok(Some(by_part(places, &host::read(attention.weights(&state)))))
}

/// Adds up the weights of a prompt's tokens, and of the thoughts after them, by the title that each token belongs to.
fn by_part(places: &[Option<usize>], weights: &[f32]) -> Attended {
    let (tokens, thoughts) = weights.split_at(places.len());
    let first = places.iter().position(Option::is_some).unwrap_or(places.len());
    let mut attended = Attended { before: 0.0, titles: Vec::new(), after: 0.0, thoughts: 0.0 };
    for (at, (place, &weight)) in places.iter().zip(tokens).enumerate() {
        let weight = f64::from(weight);
        match (place, attended.titles.last_mut()) {
            (Some(place), Some((last, share))) if last == place => *share += weight,
            (Some(place), _) => attended.titles.push((*place, weight)),
            (None, _) if at < first => attended.before += weight,
            (None, _) => attended.after += weight,
        }
    }
    attended.thoughts = thoughts.iter().map(|&weight| f64::from(weight)).sum();
    attended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_added_up_by_title() {
        let places = [None, None, Some(2), Some(2), Some(3), None, None];
        let weights = [0.125, 0.125, 0.0625, 0.0625, 0.25, 0.0625, 0.0625, 0.25];
        let attended = by_part(&places, &weights);
        let expected = Attended { before: 0.25, titles: vec![(2, 0.125), (3, 0.25)], after: 0.125, thoughts: 0.25 };
        assert_eq!(attended, expected);
    }
}
