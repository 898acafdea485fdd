//! What Prometheus is told.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A request by where it went and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    route: &'static str,
    status: u16,
}

/// A request by where it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

/// Numbers of the server since it started.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Ended, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    /// Requests that are computed together.
    pub together: Histogram,
    /// Requests that wait.
    pub waiting: Gauge,
    /// Times that the folder was loaded again.
    pub loads: Counter,
    items: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("latentr3");
        let requests = Family::default();
        registry.register("requests", "Requests by route and status", requests.clone());
        let latencies: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let seconds = Family::new_with_constructor(latencies);
        let help = "Time from a request's head to its answer";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        let together = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0]);
        registry.register("batch_requests", "Requests that were computed together", together.clone());
        let waiting = Gauge::default();
        registry.register("waiting_requests", "Requests that wait to be computed", waiting.clone());
        let loads = Counter::default();
        registry.register("loads", "Times that models or catalog were replaced", loads.clone());
        let items = Gauge::default();
        registry.register("items", "Items of the catalog", items.clone());
        Self { registry, requests, seconds, together, waiting, loads, items }
    }

    /// A request has ended.
    pub fn ended(&self, route: &'static str, status: u16, time: Duration) {
        self.requests.get_or_create(&Ended { route, status }).inc();
        self.seconds.get_or_create(&Route { route }).observe(time.as_secs_f64());
    }

    /// All of it as text, for a catalog of so many items.
    pub fn text(&self, items: usize) -> String {
        self.items.set(items as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes all that is written to it");
        text
    }
}
