//! Models by the names that they have on the Hugging Face hub.
//!
//! A name is `org/name` or `org/name@revision`. What it needs is downloaded once, into the cache that Python's
//! `huggingface_hub` uses too, and found there from then on without a network, whatever has become of the revision
//! meanwhile.

mod cache;
#[cfg(feature = "hub")]
mod download;
mod error;
#[cfg(not(feature = "hub"))]
mod no_download;

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};

pub use cache::Hub;
use cache::{Cached, Part};
#[cfg(feature = "hub")]
pub use download::watch_downloads;
pub use error::{HubError, HubProblem};

/// A tokenizer, and what may stand beside it: how texts begin, and how chats look.
pub const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// The revision of a name without one.
const DEFAULT_REVISION: &str = "main";

/// A name on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `org/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl HubName {
    /// The name that a path is, if it is none of a file or folder.
    pub fn parse(path: &Path) -> Option<Self> {
        let text = path.to_str().filter(|_| !path.exists())?;
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let is_plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let is_name = |part: &str| is_plain(part) && !part.starts_with(['.', '-']) && !part.is_empty();
        let (organisation, name) = repository.split_once('/')?;
        let is_whole = is_name(organisation) && is_name(name) && revision.split('/').all(is_name);
        is_whole.then(|| Self { repository: repository.into(), revision: revision.into() })
    }
}

impl Display for HubName {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            DEFAULT_REVISION => f.write_str(&self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// The folder of a model: the path itself, or where it is a name on the hub, the folder in the cache with what the
/// model needs, downloaded if need be.
///
/// # Errors
///
/// What keeps it from being downloaded.
pub fn model_folder(path: &Path) -> Result<PathBuf, HubError> {
    match HubName::parse(path) {
        None => Ok(path.to_owned()),
        Some(name) => Ok(Hub::from_env().find(&name, Part::Model)?.folder),
    }
}

/// A tokenizer's file: the path itself, the `tokenizer.json` of a folder, or that of a name on the hub, downloaded if
/// need be with what stands beside it.
///
/// # Errors
///
/// What keeps it from being downloaded.
pub fn tokenizer_file(path: &Path) -> Result<PathBuf, HubError> {
    let folder = match HubName::parse(path) {
        Some(name) => Hub::from_env().find(&name, Part::Tokenizer)?.folder,
        None if path.is_dir() => path.to_owned(),
        None => return Ok(path.to_owned()),
    };
    Ok(folder.join(TOKENIZER_FILES[0]))
}

/// A name with the commit that its files are of, so that it stays what it is; any other path as it is.
///
/// # Errors
///
/// What keeps it from being downloaded.
pub fn pinned(path: &Path) -> Result<PathBuf, HubError> {
    let Some(name) = HubName::parse(path) else {
        return Ok(path.to_owned());
    };
    let Cached { commit, .. } = Hub::from_env().find(&name, Part::Model)?;
    Ok(format!("{}@{commit}", name.repository).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let parsed = |text: &str| HubName::parse(Path::new(text));
        let of = |repository: &str, revision: &str| {
            Some(HubName { repository: repository.into(), revision: revision.into() })
        };
        assert_eq!(parsed("Qwen/Qwen3-0.6B"), of("Qwen/Qwen3-0.6B", "main"));
        assert_eq!(parsed("org/name@v1.0"), of("org/name", "v1.0"));
        assert_eq!(parsed("org/name@refs/pr/1"), of("org/name", "refs/pr/1"));
        assert_eq!(parsed("org/name@v1").unwrap().to_string(), "org/name@v1");
        assert_eq!(parsed("org/name@main").unwrap().to_string(), "org/name");
        for text in [
            "name",
            "./name",
            "../name",
            "/org/name",
            "a/b/c",
            "org/",
            "/",
            "",
            "org/name@",
            "org/na me",
            "~/x/y",
            "org/..",
            "org/x@../y",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        // A folder that exists is one, whatever it is called.
        assert_eq!(parsed("src/from_hub"), None);
    }
}
