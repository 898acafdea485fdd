//! Loads a model on the one backend this program chose and prints how likely a target is.

use std::path::Path;

use latentr3_models::{Objective, compiled_backends, device, hub};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!(compiled_backends(), ["ndarray"]);
    let folder = std::env::args().nth(1).ok_or("usage: consumer MODEL")?;
    let model = hub::load(Path::new(&folder), &device("ndarray")?)?;
    let mut state = model.prefill(&[&[1, 2, 3]])?;
    let thought = model.think(&mut state)?;
    let log_probs = model.target_log_probs(&state, thought, &[&[4, 0]], &Objective::vocabulary())?;
    println!("{}", log_probs.values.sum().into_scalar::<f32>());
    Ok(())
}
