//! Models in Hugging Face's layout: `config.json` and `model.safetensors`, single or sharded.
//!
//! What makes the thoughts lies among the backbone's own tensors, under names that `transformers` ignores: the latent
//! attention's `attention.{query,key,value}.{weight,bias}`, or the constants `thoughts.embeddings`. `config.json` also
//! carries `latent_thoughts`, `latent_thought_source`, `latent_objective` and `latent_from_scratch`. Low-rank adapters
//! lie beside them in PEFT's layout.

mod adapter;
mod read;
mod tensors;
mod write;

pub use adapter::{ADAPTER_CONFIG_FILE, base_folder};
pub use read::{load, load_rounded, load_with_adapter, objective_of, records_thoughts, shards};
pub use tensors::{PendingTensor, StoredTensor, read_tensors, write_tensors, write_tensors_as};
pub(crate) use tensors::{TensorInFile, open_tensors};
pub use write::{pending_parameters, save, save_as};

/// What a model is, apart from its weights.
pub const CONFIG_FILE: &str = "config.json";
/// Field of `config.json` with the number of thoughts.
const THOUGHTS_FIELD: &str = "latent_thoughts";
/// Field of `config.json` with the kind of the thoughts' source.
const SOURCE_FIELD: &str = "latent_thought_source";
/// Field of `config.json` with the objective that the model is trained for.
const OBJECTIVE_FIELD: &str = "latent_objective";
/// The weights' file, where there is one only.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// What says in which files the weights are where they are several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
