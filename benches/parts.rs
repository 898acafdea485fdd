//! The parts of the program one by one, and each fused operation beside its generic body.
//!
//! `cargo bench --bench parts` measures all, `cargo bench --bench parts -- swiglu` one. The model is random, 256 wide
//! with 4 layers; prompts have about 110 tokens, of which 45 are the same in all. `LATENTR3_TEST_DEVICE` chooses the
//! device.

use std::hint::black_box;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::ops::{self, Packing, generic};
use latentr3::models::random::generator;
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind, Precision, ThoughtKind, device};
use latentr3::train::grpo::{Grpo, GrpoConfig, prepare_model};
use latentr3::train::sft::Sft;
use latentr3::train::{AdamW, AdamWConfig, Example, Optimizer, Stage, World};
use rand::RngExt;

const VOCABULARY: usize = 4096;
const END: u32 = 0;

fn the_device() -> Device {
    device(&std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).expect("a device compiled in")
}

fn model() -> LatentRecommender {
    let sizes = NewBackbone {
        architecture: Architecture::Qwen2,
        vocab_size: VOCABULARY,
        d_model: 256,
        d_ff: 768,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        max_positions: 1024,
        end_token: END,
    };
    let config = BackboneConfig::new(&sizes).expect("the sizes fit");
    LatentRecommender::new(config, ThoughtKind::LatentAttention, 1, 0, &the_device()).expect("one thought is not many")
}

fn examples(count: usize) -> Vec<Example> {
    let mut random = generator([1, 0, 0, 0]);
    let mut tokens = |count: usize| (0..count).map(|_| random.random_range(1..VOCABULARY as u32)).collect::<Vec<_>>();
    let head = tokens(45);
    (0..count)
        .map(|item| {
            let prompt = head.iter().copied().chain(tokens(40 + item * 7 % 50)).collect();
            let target = tokens(7).into_iter().chain([END]).collect();
            Example { prompt, target, item, row: item }
        })
        .collect()
}

fn model_parts(criterion: &mut Criterion) {
    let model = model().valid();
    let rows = examples(32);
    let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
    let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
    criterion.bench_function("prefill, 32 prompts", |b| b.iter(|| model.prefill(&prompts).unwrap()));
    let state = model.prefill(&prompts).unwrap();
    let think = || model.think(&mut state.clone()).unwrap().unwrap();
    criterion.bench_function("latent attention, 32 prompts", |b| b.iter(think));
    criterion.bench_function("extend by 32 targets", |b| {
        b.iter(|| model.target_log_probs(&state, Some(think()), &targets, &Objective::vocabulary()).unwrap());
    });
    let catalog: Vec<Vec<u32>> = examples(5000).into_iter().map(|row| row.target).collect();
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&catalog).unwrap());
    criterion.bench_function("beam search, 8 users, 10 beams, 5,000 items", |b| {
        b.iter(|| beam_search(&model, &objective, &prompts[..8], BeamConfig::default()).unwrap());
    });
}

fn training_steps(criterion: &mut Criterion) {
    let rows = examples(32);
    let mut step = |name: &str, stage: &dyn Stage<LatentRecommender>, model: LatentRecommender, batch: &[&Example]| {
        let adamw = AdamW::new(AdamWConfig::default());
        let mut optimizer =
            Optimizer { adamw, clip_norm: 1.0, learning_rate: 1e-4, groups: Vec::new(), step: 1, temperature: None };
        let world = World::alone();
        let mut model = Some(model);
        criterion.bench_function(name, |b| {
            b.iter(|| {
                let moved = stage
                    .step(model.take().expect("it is put back"), &mut optimizer, &world.local_batch(batch))
                    .unwrap()
                    .0;
                model = Some(moved);
            });
        });
    };
    let batch: Vec<&Example> = rows.iter().collect();
    step("SFT step, 32 prompts", &Sft::new(32, Objective::vocabulary()), model().train(), &batch);
    let config = GrpoConfig::default();
    let start = prepare_model(model(), &config);
    let stage = Grpo::new(config, 8, 0, &start, Objective::vocabulary()).unwrap();
    step("GRPO step, 8 prompts, 8 samples", &stage, start, &batch[..8]);
}

/// Forward and backward of an operation and of its generic body.
fn both<const D: usize, const N: usize, const R: usize>(
    criterion: &mut Criterion,
    name: &str,
    sizes: [[usize; D]; N],
    operation: impl Fn([Tensor<D>; N]) -> Tensor<R>,
    generic: impl Fn([Tensor<D>; N]) -> Tensor<R>,
) {
    let device = the_device().autodiff();
    let inputs = sizes.map(|size| Tensor::<D>::random(size, Distribution::Uniform(-1.0, 1.0), &device).require_grad());
    let mut group = criterion.benchmark_group(name);
    group.bench_function("fused", |b| b.iter(|| black_box(operation(inputs.clone()).sum().backward())));
    group.bench_function("generic", |b| b.iter(|| black_box(generic(inputs.clone()).sum().backward())));
}

fn operations(criterion: &mut Criterion) {
    both(
        criterion,
        "rms_norm",
        [[2000, 256], [1, 256]],
        |[x, weight]| ops::rms_norm(x, weight.squeeze_dim(0), 1e-6),
        |[x, weight]| generic::rms_norm(x, weight.squeeze_dim(0), 1e-6),
    );
    both(
        criterion,
        "swiglu",
        [[2000, 768]; 2],
        |[gate, up]| ops::swiglu(gate, up),
        |[gate, up]| generic::swiglu(gate, up),
    );
    let angles = || Tensor::<4>::ones([1, 70, 1, 32], &the_device());
    both(
        criterion,
        "rotate",
        [[30, 70, 4, 64]],
        |[x]| ops::rotate(x, angles().cos(), angles().sin()),
        |[x]| generic::rotate(x, angles().cos(), angles().sin()),
    );
    let packing = Packing::new(&[70; 30], 70);
    both(
        criterion,
        "attend_causally",
        [[30, 70, 4, 64], [30, 70, 2, 64], [30, 70, 2, 64]],
        |[queries, keys, values]| ops::attend_causally(queries.flatten(0, 1), keys, values, &packing, None),
        |[queries, keys, values]| generic::attend_causally(queries.flatten(0, 1), keys, values, &packing, None),
    );
    let ids = || Tensor::<2, Int>::ones([256, 1], &the_device());
    both(
        criterion,
        "log_probs",
        [[256, 256], [VOCABULARY, 256]],
        |[hidden, weight]| ops::log_probs(hidden, weight, ids()),
        |[hidden, weight]| generic::log_probs(hidden, weight, ids()),
    );
    for rows in [80, 2000] {
        both(
            criterion,
            &format!("project, {rows} rows"),
            [[rows, 256], [768, 256]],
            |[x, weight]| ops::project(x, weight, Precision::F32),
            |[x, weight]| generic::project(x, weight, Precision::F32),
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = model_parts, training_steps, operations
}
criterion_main!(benches);
