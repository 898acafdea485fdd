//! What is recorded of every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::shared::Shared;

/// The header with a request's id: the client's own, or one that is made here. Answers have it too.
const ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that are told apart.
const ROUTES: [&str; 10] = [
    "/",
    "/v1/recommend",
    "/v1/rerank",
    "/v1/items",
    "/info",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/admin/reload",
    "/openapi.json",
];

/// The status of a request whose client left before the answer, as nginx writes it.
const CLIENT_LEFT: u16 = 499;

/// A request, which is written into log and metrics when it ends, also where its client breaks off.
struct Record {
    shared: Arc<Shared>,
    id: String,
    method: Method,
    route: &'static str,
    began: Instant,
    status: u16,
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { shared, id, method, route, began, status } = self;
        let (method, time) = (method.as_str(), began.elapsed());
        shared.metrics.ended(route, *status, time);
        let seconds = time.as_secs_f64();
        match *status {
            500.. => tracing::error!(id, method, route, status, seconds, "request"),
            408 | 429 => tracing::warn!(id, method, route, status, seconds, "request"),
            _ => tracing::info!(id, method, route, status, seconds, "request"),
        }
    }
}

/// Gives the request an id, and writes how it ended into log and metrics.
pub(super) async fn watch(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (id, path) = (id(request.headers()), request.uri().path());
    let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("other");
    let (method, began) = (request.method().clone(), Instant::now());
    let mut record = Record { shared, id, method, route, began, status: CLIENT_LEFT };
    let mut response = next.run(request).await;
    record.status = response.status().as_u16();
    if let Ok(value) = HeaderValue::from_str(&record.id) {
        response.headers_mut().insert(ID, value);
    }
    response
}

/// The client's id where it is a plain one, else a new one.
fn id(headers: &HeaderMap) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let own = headers.get(ID).and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match own.filter(is_plain) {
        Some(id) => id.to_owned(),
        None => {
            let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_micros() as u64);
            format!("{time:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed))
        }
    }
}
