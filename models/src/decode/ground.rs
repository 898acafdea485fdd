//! From free text to the nearest item of the catalog.

use std::collections::HashMap;

use burn::tensor::Tensor;

use crate::{LatentRecommender, ModelError, host};

/// Titles that run through the model at once.
const TITLES_AT_ONCE: usize = 256;

/// The catalog's titles as embeddings, to find the items whose titles mean most nearly what a text says: BIGRec's
/// grounding (arXiv 2308.08434).
///
/// A title's embedding is the last hidden state of the title alone, its end token included.
#[derive(Debug, Clone)]
pub struct TitleEmbeddings {
    /// `[titles, d_model]`, those of equal tokens once.
    embeddings: Tensor<2>,
    /// The title of each item.
    titles: Vec<usize>,
}

impl TitleEmbeddings {
    /// The embeddings of a catalog: `items[i]` are the tokens of item `i`.
    ///
    /// # Errors
    ///
    /// No items, an item without tokens or with more than the model has positions, or a token outside the vocabulary.
    pub fn new(model: &LatentRecommender, items: &[Vec<u32>]) -> Result<Self, ModelError> {
        let mut places: HashMap<&[u32], usize> = HashMap::new();
        let mut titles = Vec::with_capacity(items.len());
        let mut distinct: Vec<&[u32]> = Vec::new();
        for tokens in items {
            let place = *places.entry(tokens).or_insert(distinct.len());
            if place == distinct.len() {
                distinct.push(tokens);
            }
            titles.push(place);
        }
        let parts =
            distinct.chunks(TITLES_AT_ONCE).map(|titles| embed(model, titles)).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err(ModelError::Input("the catalog is empty".into()));
        }
        Ok(Self { embeddings: Tensor::cat(parts, 0), titles })
    }

    /// How near each item is to each text: minus the squared Euclidean distance of their embeddings, by item.
    ///
    /// # Errors
    ///
    /// No text, one that is empty or has more tokens than the model has positions, a token outside the vocabulary, or
    /// embeddings that are NaN or infinite.
    pub fn nearness(&self, model: &LatentRecommender, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let texts = embed(model, texts)?;
        let square = |x: &Tensor<2>| x.clone().square().sum_dim(1);
        let products = texts.clone().matmul(self.embeddings.clone().transpose());
        let nearness = products.mul_scalar(2.0) - square(&texts) - square(&self.embeddings).transpose();
        let [_, titles] = nearness.dims();
        let values = host::read(nearness);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite("title embeddings"));
        }
        Ok(values.chunks(titles).map(|row| self.titles.iter().map(|&title| row[title]).collect()).collect())
    }
}

/// The last hidden states of some texts, `[texts, d_model]`.
fn embed(model: &LatentRecommender, texts: &[&[u32]]) -> Result<Tensor<2>, ModelError> {
    Ok(model.prefill(texts)?.last_hidden())
}
