use serde::{Deserialize, Serialize};

/// The three parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What settings are chosen by.
    Valid,
    /// What is reported in the end.
    Test,
}

impl Split {
    /// All splits in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The split's name: `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

/// One thing for each split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits<T> {
    /// That of the training split.
    pub train: T,
    /// That of the validation split.
    pub valid: T,
    /// That of the test split.
    pub test: T,
}

impl<T> Splits<T> {
    /// Makes the three things in order.
    pub fn make(mut make: impl FnMut(Split) -> T) -> Self {
        Self { train: make(Split::Train), valid: make(Split::Valid), test: make(Split::Test) }
    }

    /// Makes the three things in order, or the first error.
    pub fn try_make<E>(mut make: impl FnMut(Split) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { train: make(Split::Train)?, valid: make(Split::Valid)?, test: make(Split::Test)? })
    }

    /// The thing of one split.
    pub fn get(&self, split: Split) -> &T {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// The thing of one split, to change.
    pub fn get_mut(&mut self, split: Split) -> &mut T {
        match split {
            Split::Train => &mut self.train,
            Split::Valid => &mut self.valid,
            Split::Test => &mut self.test,
        }
    }
}
