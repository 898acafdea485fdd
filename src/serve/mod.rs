//! Recommendations over HTTP.
//!
//! One thread computes: it takes what has queued, and an answer is the same whatever it is computed with. All others
//! only read requests and write answers.

mod api;
mod compute;
mod guard;
mod metrics;
mod problem;
mod served;
mod server;
mod shared;
mod title_search;
mod watch;

pub use server::{Reloader, ServeConfig, ServeError, Server};
