//! What several test files need.

pub mod catalog;
pub mod close;
pub mod examples;
#[cfg(feature = "hub")]
pub mod hub;
pub mod lists;
pub mod program;
pub mod raw;
pub mod runs;
#[cfg(feature = "serve")]
pub mod server;
pub mod small;
pub mod training;

use burn::tensor::Device;

/// The device that tests run on: `LATENTR3_TEST_DEVICE`, `flex` if not set.
pub fn device() -> Device {
    let name = std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    latentr3::models::device(&name).unwrap_or_else(|error| panic!("{error}"))
}
