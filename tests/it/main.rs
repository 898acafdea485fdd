//! The tests of the whole, in one program: to link it once takes less time than to link each file.

mod common;

mod adapters;
mod adding;
mod baselines;
mod bos;
#[cfg(feature = "hub")]
mod by_name;
mod catalog_objective;
mod catalog_search;
mod checkpoints;
mod cli;
mod compare;
mod data_formats;
mod decoding;
mod device_reads;
mod devices;
mod documents;
mod environment;
mod estimators;
mod experiments;
mod fitting;
mod fuzz;
mod golden;
mod grpo;
mod guards;
mod guide_reward;
mod guides;
mod help;
mod launches;
mod model;
mod model_files;
mod objective;
mod outputs;
mod precision;
mod rankings;
mod raw_data;
mod raw_forms;
mod recommending;
mod refusals;
mod regularization;
mod reinforcing_lists;
mod report;
mod resuming;
#[cfg(feature = "serve")]
mod serving;
#[cfg(feature = "serve")]
mod serving_under_load;
mod smollm2;
mod temperature;
mod thought_samples;
mod training;
#[cfg(feature = "mpi")]
mod workers;
