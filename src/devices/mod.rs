//! What devices there are, and whether each computes what PyTorch computes.

mod apart;
mod check;
mod error;
mod examine;

pub use apart::examine_apart;
pub use check::DeviceCheck;
pub use error::DeviceError;
pub use examine::{DeviceReport, Examination};
