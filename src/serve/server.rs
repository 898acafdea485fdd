//! The server: what it holds, and how it listens and ends.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::api::routes;
use super::compute::Queue;
use super::metrics::Metrics;
use super::served::Served;
use super::shared::{Access, Shared};
use crate::recommend::{RecommendError, Recommender, RecommenderConfig};

/// Time that the head of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that open requests get to end after the server was asked to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// The system refuses the address.
    #[error("{address}: cannot listen: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key that says nothing would let everybody in.
    #[error("the API key must not be empty")]
    EmptyKey,
    /// The system gives no threads.
    #[error("cannot start the server: {0}")]
    Start(std::io::Error),
}

/// Loads a server's folder again.
#[derive(Clone)]
pub struct Reloader(Arc<Shared>);

impl Reloader {
    /// Loads the folder again. The old models answer earlier requests; if the folder cannot be loaded, they stay, and
    /// the log says why.
    pub async fn reload(&self) {
        if let Err(problem) = self.0.reload().await {
            tracing::error!(error = problem.message, "reload failed");
        }
    }
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    worker: JoinHandle<()>,
}

impl Server {
    /// Loads the models and listens.
    ///
    /// # Errors
    ///
    /// An empty key, models that cannot be loaded, and an address that the system refuses.
    pub async fn start(config: &ServeConfig) -> Result<Self, ServeError> {
        if config.api_key.as_deref().is_some_and(|key| key.trim().is_empty()) {
            return Err(ServeError::EmptyKey);
        }
        let served = Served::new(Recommender::load(&config.recommender)?, &config.recommender)?;
        let address = SocketAddr::new(config.host, config.port);
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let metrics = Arc::new(Metrics::new());
        let (queue, worker) = Queue::start(metrics.clone());
        let access = Access { api_key: config.api_key.clone(), is_loopback: config.host.is_loopback() };
        let shared = Shared::new(served, &config.recommender, queue, metrics, access);
        Ok(Self { listener, address, shared: Arc::new(shared), worker })
    }

    /// What loads its folder again.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.shared.clone())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is done; then it takes no more connections, and ends when what it has is answered.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, shared, worker, .. } = self;
        let routes = routes(shared);
        let connections = GracefulShutdown::new();
        let mut stop = Box::pin(stop);
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
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // A client that breaks off has no answer to get.
                let _ = connection.await;
            });
        }
        // `stop` may own a reloader, which holds the queue open; the worker would never end.
        drop((stop, listener, routes));
        // What has not ended by then is given up.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await;
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, tokio::task::spawn_blocking(move || worker.join())).await;
    }
}
