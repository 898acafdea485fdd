//! What training steps, searches and requests take, by the code that training and evaluation run.

mod config;
mod error;
mod latency;
mod result;
mod search;
mod steps;
mod time;

pub use config::{BenchConfig, BenchRows, RequestConfig, StepConfig, Timed};
pub use error::BenchError;
pub use result::{BenchEvent, BenchResult, Latency, LatencyTimes, Reasoning, SearchTimes, StepTimes};
