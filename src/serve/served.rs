//! What answers: models and a catalog, replaced as a whole when the folder is loaded again.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::title_search::TitleSearch;
use crate::fit::Shop;
use crate::models::files::read_json;
use crate::models::is_cpu;
use crate::recommend::{RecommendError, Recommender, RecommenderConfig};

/// Models and a catalog.
pub(super) struct Served {
    pub recommender: Recommender,
    pub titles: TitleSearch,
    pub info: Info,
    /// Whether the models are on the CPU.
    pub on_cpu: bool,
}

/// The models, their metrics and the data.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Info {
    /// Version of the program.
    latentr3: &'static str,
    /// What recommends: `popularity`, `transition`, `sasrec`, `language-model` or `guided`.
    model: String,
    /// Items of the catalog.
    items: usize,
    /// What they are.
    domain: String,
    /// Whether items of a history are left out where a request does not say.
    exclude_history: bool,
    /// Names models and catalog: where one of them changes, so does it.
    fingerprint: String,
    /// Why the model was chosen, of a shop.
    why: Option<Value>,
    /// All models that were tried, of a shop, with their metrics.
    models: Option<Value>,
}

impl Served {
    pub fn new(recommender: Recommender, config: &RecommenderConfig) -> Result<Self, RecommendError> {
        let shop = match Shop::is_one(&config.model) {
            true => read_json(&Shop::file(&config.model))?,
            false => Value::Null,
        };
        let of_shop = |field| Some(shop.get(field)?.clone());
        let info = Info {
            latentr3: env!("CARGO_PKG_VERSION"),
            model: recommender.own().to_string(),
            items: recommender.catalog().catalog.len(),
            domain: recommender.catalog().domain.clone(),
            exclude_history: recommender.excludes_history(),
            fingerprint: recommender.fingerprint().to_owned(),
            why: of_shop("why"),
            models: of_shop("models"),
        };
        let (titles, on_cpu) = (TitleSearch::new(&recommender.catalog().catalog), is_cpu(&config.device));
        Ok(Self { titles, info, recommender, on_cpu })
    }
}
