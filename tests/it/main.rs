//! The tests of the whole, in one program: to link it once takes less time than to link each file.

mod common;

mod adapters;
mod baselines;
mod catalog_objective;
mod cli;
mod compare;
mod data_formats;
mod estimators;
mod experiments;
mod fuzz;
mod golden;
mod guards;
mod help;
mod model;
mod objective;
mod outputs;
mod precision;
mod raw_data;
mod raw_forms;
mod report;
mod runs;
mod smollm2;
mod training;
#[cfg(feature = "mpi")]
mod workers;
