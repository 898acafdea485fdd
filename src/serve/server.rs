//! The server: what it holds, and how it listens and ends.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::api::routes;
use super::compute::Queue;
use super::title_search::TitleSearch;
use crate::fit::Shop;
use crate::models::files::file_sha256;
use crate::recommend::{RecommendError, Recommender, RecommenderConfig};
use crate::run::RunError;

/// Time that the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// Time that requests have to end when the server is to.
const GRACE: Duration = Duration::from_secs(30);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The models.
    pub recommender: RecommenderConfig,
    /// The address to listen at.
    pub host: IpAddr,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// What clients must send as `Authorization: Bearer KEY`, if anything.
    pub api_key: Option<String>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The models.
    #[error(transparent)]
    Recommend(#[from] RecommendError),
    /// The shop's folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The system refuses the address.
    #[error("{address}: cannot listen: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}

/// What requests share.
pub(super) struct Shared {
    pub recommender: Arc<Recommender>,
    pub queue: Queue,
    pub titles: TitleSearch,
    pub info: Value,
    /// What names the data and with it the models.
    pub fingerprint: String,
    pub api_key: Option<String>,
    pub is_loopback: bool,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
    worker: JoinHandle<()>,
}

impl Server {
    /// Loads the models and listens.
    ///
    /// # Errors
    ///
    /// Models that cannot be loaded, and an address that the system refuses.
    pub async fn start(config: &ServeConfig) -> Result<Self, ServeError> {
        let recommender = Arc::new(Recommender::load(&config.recommender)?);
        let folder = &config.recommender.model;
        let shop = if Shop::is_one(folder) { Some(Shop::read(folder)?) } else { None };
        let address = SocketAddr::new(config.host, config.port);
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        // What was fitted names its models and its data; a run's model is named by its catalog.
        let fingerprint = match &shop {
            Some(_) => file_sha256(&Shop::file(folder)).map_err(RunError::from)?,
            None => recommender.catalog().catalog.fingerprint(),
        };
        let info = json!({
            "latentr3": env!("CARGO_PKG_VERSION"),
            "model": recommender.own(),
            "items": recommender.catalog().catalog.len(),
            "domain": recommender.catalog().domain,
            "exclude_history": recommender.excludes_history(),
            "fingerprint": fingerprint,
            "why": shop.as_ref().map(|shop| &shop.why),
            "models": shop.as_ref().map(|shop| &shop.models),
        });
        let titles = TitleSearch::new(&recommender.catalog().catalog);
        let (queue, worker) = Queue::start(recommender.clone());
        let (api_key, is_loopback) = (config.api_key.clone(), config.host.is_loopback());
        let shared = Shared { recommender, queue, titles, info, fingerprint, api_key, is_loopback };
        Ok(Self { listener, address, routes: routes(Arc::new(shared)), worker })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is done; then it takes no more connections, and ends when what it has is answered.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, routes, worker, .. } = self;
        let connections = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of files, for instance: some will be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let service = TowerToHyperService::new(routes.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // A client that breaks off has no answer to get.
                let _ = connection.await;
            });
        }
        drop((listener, routes));
        // What has not ended by then is given up.
        let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
        let _ = tokio::time::timeout(GRACE, tokio::task::spawn_blocking(move || worker.join())).await;
    }
}
