//! Evaluation without the prefix tree: free text, and the items that are nearest to it.

use burn::module::Module;

use super::evaluate::EvalConfig;
use super::evaluation::{Evaluation, Method};
use super::scored::evaluate_scores;
use crate::data::{Prepared, PreparedRow};
use crate::models::decode::{TitleEmbeddings, generate};
use crate::models::{LatentRecommender, ModelError, ObjectiveKind};

/// Lets the model write what it likes by [`ObjectiveKind::Vocabulary`] (greedily, at most as long as the longest title)
/// and ranks the catalog by how near each title's embedding is to that of the text, as BIGRec does (arXiv 2308.08434).
///
/// # Errors
///
/// A token outside the model's vocabulary, a catalog without items, or embeddings that are NaN or infinite.
pub fn evaluate_grounded(
    model: &LatentRecommender,
    prepared: &Prepared,
    rows: &[&PreparedRow],
    config: EvalConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, ModelError> {
    let model = model.valid();
    let titles = TitleEmbeddings::new(&model, &prepared.item_tokens)?;
    let longest = prepared.item_tokens.iter().map(Vec::len).max().unwrap_or(1);
    let nearness = |rows: &[&PreparedRow]| {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        let mut texts = generate(&model, &mut model.reason(&prompts)?, longest, Some(prepared.end_token))?;
        for text in &mut texts {
            // One that did not come to an end is ended like the titles.
            if text.last() != Some(&prepared.end_token) {
                text.push(prepared.end_token);
            }
        }
        titles.nearness(&model, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let mut evaluation = evaluate_scores(Method::named("grounding", 0), prepared, rows, config, nearness, progress)?;
    evaluation.method.objective = Some(ObjectiveKind::Vocabulary);
    Ok(evaluation)
}
