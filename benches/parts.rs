//! The parts of the program one by one, and each fused operation beside its generic body.
//!
//! `cargo bench --bench parts` measures all, `cargo bench --bench parts -- swiglu` one. The model is random, 256 wide
//! with 4 layers; prompts have about 110 tokens, of which 45 are the same in all. `LATENTR3_TEST_DEVICE` chooses the
//! device.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use divan::Bencher;
use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::ops::{self, Packing, generic};
use latentr3::models::random::generator;
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind, Precision, ThoughtKind, device};
use latentr3::train::grpo::{Grpo, GrpoConfig, freeze_untrained};
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

fn prompts(rows: &[Example]) -> Vec<&[u32]> {
    rows.iter().map(|row| row.prompt.as_slice()).collect()
}

fn main() {
    divan::Divan::default().sample_count(10).main();
}

mod model_parts {
    use super::*;

    #[divan::bench(name = "prefill, 32 prompts")]
    fn prefill(bencher: Bencher) {
        let (model, rows) = (model().valid(), examples(32));
        bencher.bench_local(|| model.prefill(&prompts(&rows)).unwrap());
    }

    #[divan::bench(name = "latent attention, 32 prompts")]
    fn think(bencher: Bencher) {
        let (model, rows) = (model().valid(), examples(32));
        let state = model.prefill(&prompts(&rows)).unwrap();
        bencher.bench_local(|| model.think(&mut state.clone()).unwrap().unwrap());
    }

    #[divan::bench(name = "latent attention and 32 targets")]
    fn extend(bencher: Bencher) {
        let (model, rows) = (model().valid(), examples(32));
        let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
        let state = model.prefill(&prompts(&rows)).unwrap();
        bencher.bench_local(|| {
            let thought = model.think(&mut state.clone()).unwrap().unwrap();
            model.target_log_probs(&state, Some(thought), &targets, &Objective::vocabulary()).unwrap()
        });
    }

    #[divan::bench(name = "beam search, 8 users, 10 beams, 5,000 items")]
    fn search(bencher: Bencher) {
        let (model, rows) = (model().valid(), examples(8));
        let catalog: Vec<Vec<u32>> = examples(5000).into_iter().map(|row| row.target).collect();
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&catalog).unwrap());
        bencher.bench_local(|| beam_search(&model, &objective, &prompts(&rows), BeamConfig::default()).unwrap());
    }
}

mod training_steps {
    use super::*;

    fn steps(bencher: Bencher, stage: &dyn Stage<LatentRecommender>, model: LatentRecommender, rows: &[Example]) {
        let adamw = AdamW::new(AdamWConfig::default());
        let mut optimizer =
            Optimizer { adamw, clip_norm: 1.0, learning_rate: 1e-4, groups: Vec::new(), step: 1, temperature: None };
        let world = World::alone();
        let batch: Vec<&Example> = rows.iter().collect();
        let mut model = Some(model);
        bencher.bench_local(|| {
            let before = model.take().expect("it is put back");
            model = Some(stage.step(before, &mut optimizer, &world.local_batch(&batch)).unwrap().0);
        });
    }

    #[divan::bench(name = "SFT, 32 prompts")]
    fn sft(bencher: Bencher) {
        steps(bencher, &Sft::new(32, Objective::vocabulary()), model().train(), &examples(32));
    }

    #[divan::bench(name = "GRPO, 8 prompts, 8 samples")]
    fn grpo(bencher: Bencher) {
        let config = GrpoConfig::default();
        let start = freeze_untrained(model(), &config);
        let stage = Grpo::new(config, 8, 0, &start, Objective::vocabulary()).unwrap();
        steps(bencher, &stage, start, &examples(8));
    }
}

mod operations {
    use super::*;

    const BODIES: [&str; 2] = ["fused", "generic"];

    /// Forward and backward of an operation or of its generic body.
    fn run<const D: usize, const N: usize, const R: usize>(
        bencher: Bencher,
        body: &str,
        sizes: [[usize; D]; N],
        operation: impl Fn([Tensor<D>; N]) -> Tensor<R>,
        generic: impl Fn([Tensor<D>; N]) -> Tensor<R>,
    ) {
        let device = the_device().autodiff();
        let drawn = |size| Tensor::<D>::random(size, Distribution::Uniform(-1.0, 1.0), &device).require_grad();
        let inputs = sizes.map(drawn);
        match body {
            "fused" => bencher.bench_local(|| operation(inputs.clone()).sum().backward()),
            _ => bencher.bench_local(|| generic(inputs.clone()).sum().backward()),
        }
    }

    #[divan::bench(args = BODIES)]
    fn rms_norm(bencher: Bencher, body: &str) {
        run(
            bencher,
            body,
            [[2000, 256], [1, 256]],
            |[x, weight]| ops::rms_norm(x, weight.squeeze_dim(0), 1e-6),
            |[x, weight]| generic::rms_norm(x, weight.squeeze_dim(0), 1e-6),
        );
    }

    #[divan::bench(args = BODIES)]
    fn swiglu(bencher: Bencher, body: &str) {
        run(
            bencher,
            body,
            [[2000, 768]; 2],
            |[gate, up]| ops::swiglu(gate, up),
            |[gate, up]| generic::swiglu(gate, up),
        );
    }

    #[divan::bench(args = BODIES)]
    fn rotate(bencher: Bencher, body: &str) {
        let angles = || Tensor::<4>::ones([1, 70, 1, 32], &the_device());
        run(
            bencher,
            body,
            [[30, 70, 4, 64]],
            |[x]| ops::rotate(x, angles().cos(), angles().sin()),
            |[x]| generic::rotate(x, angles().cos(), angles().sin()),
        );
    }

    #[divan::bench(args = BODIES)]
    fn attend_causally(bencher: Bencher, body: &str) {
        let packing = Packing::new(&[70; 30], 70);
        run(
            bencher,
            body,
            [[30, 70, 4, 64], [30, 70, 2, 64], [30, 70, 2, 64]],
            |[queries, keys, values]| ops::attend_causally(queries.flatten(0, 1), keys, values, &packing, None),
            |[queries, keys, values]| generic::attend_causally(queries.flatten(0, 1), keys, values, &packing, None),
        );
    }

    #[divan::bench(args = BODIES)]
    fn log_probs(bencher: Bencher, body: &str) {
        let ids = || Tensor::<2, Int>::ones([256, 1], &the_device());
        run(
            bencher,
            body,
            [[256, 256], [VOCABULARY, 256]],
            |[hidden, weight]| ops::log_probs(hidden, weight, ids()),
            |[hidden, weight]| generic::log_probs(hidden, weight, ids()),
        );
    }

    #[divan::bench(args = BODIES, consts = [80, 2000])]
    fn project<const ROWS: usize>(bencher: Bencher, body: &str) {
        run(
            bencher,
            body,
            [[ROWS, 256], [768, 256]],
            |[x, weight]| ops::project(x, weight, Precision::F32),
            |[x, weight]| generic::project(x, weight, Precision::F32),
        );
    }
}
