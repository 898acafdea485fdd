//! Text of any kind, without a catalog.

use burn::tensor::{Int, Tensor};

use crate::backbone::{PromptState, Segment};
use crate::{LatentRecommender, ModelError, host};

/// Goes on after every prompt with the most likely token, again and again: `most` tokens each, all of which join the
/// state.
///
/// With an `end` token the rows returned stop behind it, and so does the work once every row has one.
///
/// # Errors
///
/// More tokens than the model has positions, or scores that are NaN or infinite, as damaged weights give.
pub fn generate(
    model: &LatentRecommender,
    state: &mut PromptState,
    most: usize,
    end: Option<u32>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let rows = state.rows();
    let mut texts: Vec<Vec<u32>> = vec![Vec::new(); rows];
    let every_row: Vec<usize> = (0..rows).collect();
    let mut generated: Option<Segment> = None;
    for step in 0..most {
        let hidden = generated.as_ref().map_or_else(|| state.last_hidden(), Segment::last_hidden);
        let next = most_likely(model, hidden)?;
        for (text, &token) in texts.iter_mut().zip(&next) {
            if end.is_none() || text.last() != end.as_ref() {
                text.push(token);
            }
        }
        if end.is_some() && texts.iter().all(|text| text.last() == end.as_ref()) {
            break;
        }
        let starts: Vec<usize> = state.lengths().iter().map(|length| length + step).collect();
        let tokens: Vec<&[u32]> = next.iter().map(std::slice::from_ref).collect();
        let context: Vec<&Segment> = state.segments().iter().chain(&generated).collect();
        let segment = model.backbone.run(model.backbone.embed_padded(&tokens), &vec![1; rows], &starts, &context)?;
        generated = Some(match generated {
            Some(before) => before.followed_by(&segment, &every_row),
            None => segment,
        });
    }
    if let Some(generated) = generated {
        state.push(generated);
    }
    Ok(texts)
}

/// The most likely token after each hidden state `[rows, d_model]`.
fn most_likely(model: &LatentRecommender, hidden: Tensor<2>) -> Result<Vec<u32>, ModelError> {
    let (logits, tokens): (Tensor<2>, Tensor<2, Int>) = model.backbone.logits(hidden).max_dim_with_indices(1);
    // Every number of a token is a whole float32.
    let both = host::read_all(vec![logits.flatten(0, 1), tokens.float().flatten(0, 1)]);
    if both[0].iter().any(|logit| !logit.is_finite()) {
        return Err(ModelError::NotFinite("scores"));
    }
    Ok(both[1].iter().map(|&token| token as u32).collect())
}
