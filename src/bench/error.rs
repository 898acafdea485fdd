use crate::data::DataError;
use crate::models::ModelError;
use crate::run::RunError;
use crate::train::TrainError;

/// Why nothing can be timed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The rows.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The stage.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model's folder, or the device.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An invalid setting.
    #[error("{0}")]
    Setting(String),
}
