//! Recommendations over HTTP.
//!
//! One thread computes: it takes what has queued, and an answer is the same whatever it is computed with. All others
//! only read requests and write answers.

mod api;
mod compute;
mod guard;
mod problem;
mod server;
mod title_search;

pub use server::{ServeConfig, ServeError, Server};
