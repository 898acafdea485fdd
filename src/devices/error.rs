use crate::golden::GoldenError;
use crate::models::ModelError;

/// Why a device cannot be examined. What is wrong with a device itself is in its report.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device's name, or the program that examines it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The golden folder to compare with.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The process that examines the device refused its arguments or what they name; this is what it said.
    #[error("{0}")]
    Refused(String),
}
