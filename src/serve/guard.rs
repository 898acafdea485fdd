//! Checks before a request is handled: host, origin, key, and a time limit.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::shared::Shared;

/// Time that a request may take, its body's arrival included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Refuses what comes from a foreign web page or without the key, and ends what takes too long.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Err(problem) = check(&shared, &request) {
        return problem.into_response();
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}

fn check(shared: &Shared, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    // A foreign name that leads to this machine (DNS rebinding) is not this server's.
    if shared.access.is_loopback && !is_loopback(host) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Host: this server answers only requests to localhost"));
    }
    if let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host))
    {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Origin: requests from pages of other servers are not allowed",
        ));
    }
    let path = request.uri().path();
    let changes = path.starts_with("/admin") || (path == "/v1/items" && request.method() == Method::POST);
    let is_open = !changes && !path.starts_with("/v1") && path != "/info";
    match &shared.access.api_key {
        None if changes && !shared.access.is_loopback => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "changing what is served needs an API key, unless the server listens only to this machine",
        )),
        Some(key) if !is_open && !has_key(headers, key) => {
            Err(Problem::new(StatusCode::UNAUTHORIZED, "Authorization: must be `Bearer` followed by the server's key"))
        }
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the key is given. All of it is compared, so that the time tells nothing.
fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    let differences = given.iter().zip(key.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == key.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_known() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org:80", "10.0.0.1", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
