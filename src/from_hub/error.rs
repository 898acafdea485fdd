//! Why a model of the hub is not available.

use std::path::PathBuf;

/// Why a model of the hub is not available, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{name}: no such folder, and not available from the Hugging Face Hub: {problem}")]
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
    /// The hub denies access.
    #[error(
        "access denied (status {status}); check the spelling. For a private model set HF_TOKEN to a token that may \
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
    #[error("it has no revision `{revision}`; give an existing branch, tag or commit, or none")]
    NoRevision {
        /// The revision.
        revision: String,
    },
    /// It lacks a file.
    #[error("it has no {file}, which is required")]
    NoFile {
        /// The file, and what else could take its place.
        file: &'static str,
    },
    /// The hub or the network fails.
    #[error(
        "{endpoint} cannot be read ({problem}); check the network or HF_ENDPOINT. What was downloaded is kept: rerun \
         the command to continue"
    )]
    Network {
        /// The hub.
        endpoint: String,
        /// The failure.
        problem: String,
    },
    /// The disk is full.
    #[error(
        "there is no room for it in {} ({problem}); free some space, or set HF_HUB_CACHE to a folder on another disk. \
         What was downloaded is kept: rerun the command to continue",
        cache.display()
    )]
    NoRoom {
        /// The cache.
        cache: PathBuf,
        /// What the system reports.
        #[source]
        problem: std::io::Error,
    },
    /// A file does not match what the hub reports.
    #[error(
        "{file} does not have the length or SHA-256 that the hub reports and was removed; try again, or use another \
         HF_ENDPOINT"
    )]
    WrongSum {
        /// The file.
        file: String,
    },
    /// The revision moved to another commit during the download.
    #[error("its revision `{revision}` changed during the download; try again")]
    Changed {
        /// The revision.
        revision: String,
    },
    /// Another program is downloading it.
    #[error("another program is downloading {file}; wait for it, then try again")]
    Busy {
        /// The file.
        file: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("{} cannot be used: {source}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: std::io::Error,
    },
}

impl HubProblem {
    /// Whether it is a failure, which may pass, and not a wrong request.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Network { .. } | Self::NoRoom { .. } | Self::WrongSum { .. } => true,
            Self::Changed { .. } | Self::Busy { .. } | Self::Cache { .. } => true,
            Self::NotCached { .. } | Self::Refused { .. } | Self::Unknown { .. } => false,
            Self::NoRevision { .. } | Self::NoFile { .. } => false,
        }
    }
}
