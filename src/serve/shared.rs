//! What the requests of a server share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::StatusCode;

use super::compute::Queue;
use super::metrics::Metrics;
use super::problem::Problem;
use super::served::Served;
use crate::data::Item;
use crate::recommend::{RecommendError, Recommender, RecommenderConfig, add_items};

/// What requests share.
pub(super) struct Shared {
    served: RwLock<Arc<Served>>,
    /// Held while what is served is replaced.
    replacing: Mutex<()>,
    config: RecommenderConfig,
    pub queue: Queue,
    pub metrics: Arc<Metrics>,
    pub access: Access,
}

/// Who may ask.
pub(super) struct Access {
    /// What clients must send, if anything.
    pub api_key: Option<String>,
    /// Whether the server listens on a loopback address only.
    pub is_loopback: bool,
}

impl Shared {
    /// Serves models, as configured, to clients that have the key; what is asked for queues.
    pub fn new(
        served: Served,
        config: &RecommenderConfig,
        queue: Queue,
        metrics: Arc<Metrics>,
        access: Access,
    ) -> Self {
        let served = RwLock::new(Arc::new(served));
        Self { served, replacing: Mutex::new(()), config: config.clone(), queue, metrics, access }
    }

    /// The current models. A request keeps those that it began with, even if they are replaced meanwhile.
    pub fn served(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the folder again.
    pub async fn reload(self: &Arc<Self>) -> Result<Arc<Served>, Problem> {
        let load = |config: &RecommenderConfig| Ok((Recommender::load(config)?, ()));
        Ok(self.replace(load).await?.0)
    }

    /// Adds items, and says how many the catalog did not have.
    pub async fn add(self: &Arc<Self>, items: Vec<Item>) -> Result<(Arc<Served>, usize), Problem> {
        self.replace(move |config| add_items(config, &items)).await
    }

    /// Serves what is made anew, and then drops what was served before.
    async fn replace<T: Send + 'static>(
        self: &Arc<Self>,
        make: impl FnOnce(&RecommenderConfig) -> Result<(Recommender, T), RecommendError> + Send + 'static,
    ) -> Result<(Arc<Served>, T), Problem> {
        let shared = self.clone();
        let replaced = tokio::task::spawn_blocking(move || {
            let _alone = shared.replacing.lock().unwrap_or_else(PoisonError::into_inner);
            let (recommender, rest) = make(&shared.config)?;
            let served = Arc::new(Served::new(recommender, &shared.config)?);
            *shared.served.write().unwrap_or_else(PoisonError::into_inner) = served.clone();
            shared.metrics.loads.inc();
            tracing::info!(fingerprint = served.recommender.fingerprint(), "loaded");
            Ok::<_, RecommendError>((served, rest))
        });
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "loading failed");
        Ok(replaced.await.map_err(failed)??)
    }
}
