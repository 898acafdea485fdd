//! What the cache of the hub holds, in the layout of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};

use super::{HubError, HubName, HubProblem, TOKENIZER_FILES};
use crate::models::hub::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, shards};

/// Where models are downloaded from and to.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// Folder of the downloads.
    pub cache: PathBuf,
    /// Who asks, where that is needed.
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub is_offline: bool,
}

/// What of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Configuration, weights and tokenizer.
    Model,
    /// The tokenizer.
    Tokenizer,
}

/// A model's files in the cache.
#[derive(Debug)]
pub(super) struct Cached {
    pub folder: PathBuf,
    pub commit: String,
}

impl Part {
    /// Files without which it is nothing, weights apart.
    pub fn required(self) -> &'static [&'static str] {
        match self {
            Self::Model => &[CONFIG_FILE],
            Self::Tokenizer => &TOKENIZER_FILES[..1],
        }
    }

    /// Files that say more, where there are such.
    pub fn optional(self) -> &'static [&'static str] {
        match self {
            Self::Model => &TOKENIZER_FILES,
            Self::Tokenizer => &["tokenizer_config.json", "chat_template.jinja", CONFIG_FILE],
        }
    }
}

impl Hub {
    /// As the variables of `huggingface_hub` say: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let user_cache = || {
            let home = || std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache");
            path("XDG_CACHE_HOME").unwrap_or_else(home)
        };
        let home = path("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
        let cache = path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        let of_file = || std::fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok();
        let token = variable("HF_TOKEN").or_else(of_file).map(|token| token.trim().to_owned());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let is_set = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token: token.filter(|token| !token.is_empty()),
            is_offline: variable("HF_HUB_OFFLINE").is_some_and(is_set),
        }
    }

    /// The part of a model in the cache, downloaded if what it needs is not there.
    pub(super) fn find(&self, name: &HubName, part: Part) -> Result<Cached, HubError> {
        let error = |problem| HubError { name: name.to_string(), problem };
        if let Some(cached) = self.cached(name).filter(|cached| has_required(&cached.folder, part)) {
            // Whoever downloaded it may have left out what it can do without.
            if !self.is_offline && !self.knows_all(name, &cached, part) {
                self.complete(name, &cached, part);
            }
            return Ok(cached);
        }
        if self.is_offline {
            let obstacle = "HF_HUB_OFFLINE forbids downloading it; unset HF_HUB_OFFLINE to allow it";
            return Err(error(HubProblem::NotCached { cache: self.cache.clone(), obstacle }));
        }
        self.download(name, part).map_err(error)
    }

    /// The folder of a repository.
    pub(super) fn repository(&self, name: &HubName) -> PathBuf {
        self.cache.join(format!("models--{}", name.repository.replace('/', "--")))
    }

    /// What marks that a commit has no such file.
    pub(super) fn absence(&self, name: &HubName, commit: &str, file: &str) -> PathBuf {
        self.repository(name).join(".no_exist").join(commit).join(file)
    }

    /// The files of a revision, as far as they are there.
    fn cached(&self, name: &HubName) -> Option<Cached> {
        let repository = self.repository(name);
        let of = |commit: &str| {
            let folder = repository.join("snapshots").join(commit);
            folder.is_dir().then(|| Cached { folder, commit: commit.to_owned() })
        };
        let of_reference = || of(std::fs::read_to_string(repository.join("refs").join(&name.revision)).ok()?.trim());
        of_reference().or_else(|| of(&name.revision))
    }

    /// Whether it is known of each file that a part can do without whether there is one.
    fn knows_all(&self, name: &HubName, cached: &Cached, part: Part) -> bool {
        let knows =
            |file: &&str| cached.folder.join(file).exists() || self.absence(name, &cached.commit, file).exists();
        part.optional().iter().all(knows)
    }
}

/// Whether a folder has all that a part cannot do without.
fn has_required(folder: &Path, part: Part) -> bool {
    let has = |file: &str| folder.join(file).exists();
    let has_weights =
        || has(WEIGHTS_FILE) || shards(&folder.join(INDEX_FILE)).is_ok_and(|shards| shards.iter().all(|s| has(s)));
    part.required().iter().all(|file| has(file)) && (part == Part::Tokenizer || has_weights())
}
