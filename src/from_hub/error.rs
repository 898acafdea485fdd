//! Why a model of the hub cannot be had.

use std::path::PathBuf;

/// Why a model of the hub cannot be had, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{name}: no such folder; as a model of the hub {problem}")]
pub struct HubError {
    /// The name.
    pub name: String,
    /// What went wrong.
    #[source]
    pub problem: HubProblem,
}

/// What goes wrong with a model of the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubProblem {
    /// The cache lacks it, and there is no way to download.
    #[error("it is not complete in {}, and {obstacle}", cache.display())]
    NotCached {
        /// The cache.
        cache: PathBuf,
        /// What forbids a download, and how to allow it.
        obstacle: &'static str,
    },
    /// The hub wants to know who asks.
    #[error(
        "it may not be read (status {status}): check the spelling; for a private model set HF_TOKEN to a token that may \
         read it, for a gated one accept its terms on its page first"
    )]
    Refused {
        /// 401 or 403.
        status: u16,
    },
    /// There is no such model.
    #[error("{endpoint} does not know it (status 404); check the spelling")]
    Unknown {
        /// The hub.
        endpoint: String,
    },
    /// There is no such revision.
    #[error("it has no revision `{revision}`; name a branch, a tag or a commit that it has, or none")]
    NoRevision {
        /// The revision.
        revision: String,
    },
    /// It lacks a file.
    #[error("it has no {file}, which is needed")]
    NoFile {
        /// The file, and what else could take its place.
        file: &'static str,
    },
    /// The hub or the network fails.
    #[error(
        "{endpoint} cannot be read ({problem}); check the network, or HF_ENDPOINT. What was downloaded is kept: the \
         same command goes on from there"
    )]
    Network {
        /// The hub.
        endpoint: String,
        /// The failure.
        problem: String,
    },
    /// The disk is full.
    #[error(
        "there is no room for it in {} ({problem}); free some, or set HF_HUB_CACHE to a folder on another disk. What \
         was downloaded is kept: the same command goes on from there",
        cache.display()
    )]
    NoRoom {
        /// The cache.
        cache: PathBuf,
        /// What the system says.
        #[source]
        problem: std::io::Error,
    },
    /// A file is not what the hub says it is.
    #[error(
        "{file} has not the length or the SHA-256 that the hub says; it was removed. Try again, or another HF_ENDPOINT"
    )]
    WrongSum {
        /// The file.
        file: String,
    },
    /// The revision went from commit to commit while it was downloaded.
    #[error("its revision `{revision}` was changed meanwhile; try again")]
    Changed {
        /// The revision.
        revision: String,
    },
    /// Another program downloads it, too.
    #[error("another program downloads {file}; wait for it, then try again")]
    Busy {
        /// The file.
        file: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("{} cannot be used: {source}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl HubProblem {
    /// Whether it is a failure, which may pass, and not what was asked for.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Network { .. } | Self::NoRoom { .. } | Self::WrongSum { .. } => true,
            Self::Changed { .. } | Self::Busy { .. } | Self::Cache { .. } => true,
            Self::NotCached { .. } | Self::Refused { .. } | Self::Unknown { .. } => false,
            Self::NoRevision { .. } | Self::NoFile { .. } => false,
        }
    }
}
