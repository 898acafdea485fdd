use crate::models::ObjectiveKind;

/// A published set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Recipe {
    /// LatentR3 as published (arXiv 2505.19092): the objective `vocabulary`, and the published value of every option
    /// that is not given.
    Latentr3,
}

impl Recipe {
    /// What the targets' tokens compete with.
    pub fn objective(self) -> ObjectiveKind {
        match self {
            Self::Latentr3 => ObjectiveKind::Vocabulary,
        }
    }
}
