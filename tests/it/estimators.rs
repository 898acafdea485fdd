//! The estimators of stage 2 that climb the expected reward, by hand and against the expected reward itself.

use crate::common::close::assert_close;
use crate::common::small::{small_model, weights};
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, NamedMapper, Objective, map_named};
use latentr3::train::grpo::{AdvantageKind, EstimatorKind, Grpo, GrpoConfig, Sample, freeze_untrained, group_noise};
use latentr3::train::{Example, Gradients, World};

const WIDTH: usize = 16;
const PROMPTS: usize = 5;
const BIAS: &str = "attention.value.bias";

fn examples() -> Vec<Example> {
    let row = |i: u32| Example {
        prompt: (0..3 + i).map(|t| 1 + (i * 7 + t * 3) % 38).collect(),
        target: (0..1 + i % 3).map(|t| 1 + (i * 5 + t) % 38).chain([0]).collect(),
        item: 0,
        row: i as usize,
    };
    (0..PROMPTS as u32).map(row).collect()
}

fn config(group: usize, sigma: f64) -> GrpoConfig {
    GrpoConfig { group, sigma, estimator: EstimatorKind::Score, ..Default::default() }
}

/// The stage with an advantage that can be worked with by hand.
fn stage(config: GrpoConfig, model: &LatentRecommender) -> Grpo {
    let stage = Grpo::new(config, 2, 0, model, Objective::vocabulary()).unwrap();
    stage.with_advantage(|rewards, _| (0..rewards.len()).map(|i| (i as f64 * 1.3).sin()).collect())
}

/// Standard noise `[rollouts, WIDTH]`, none for the first sample of each group.
fn noise(step: u64, group: usize) -> Vec<f32> {
    (0..PROMPTS as u64).flat_map(|prompt| group_noise(5, step, prompt, group, WIDTH)).collect()
}

/// The model with `by` added to some of its parameters.
fn moved(model: LatentRecommender, by: &dyn Fn(&str) -> Option<Vec<f32>>) -> LatentRecommender {
    struct Move<'a>(&'a dyn Fn(&str) -> Option<Vec<f32>>);
    impl NamedMapper for Move<'_> {
        fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(by) = (self.0)(name) else {
                return parameter;
            };
            parameter.map(|value| {
                let by = Tensor::from_data(TensorData::new(by, value.shape()), &value.device().inner());
                // A leaf again, as a parameter is.
                (value.inner() + by).autodiff().require_grad()
            })
        }
    }
    map_named(model, &mut Move(by))
}

/// The model whose thoughts are all shifted by `shift`: the bias of the values is added to every thought.
fn shifted(model: LatentRecommender, shift: &[f32]) -> LatentRecommender {
    moved(model, &|name| (name == BIAS).then(|| shift.to_vec()))
}

fn gradient(gradients: &Gradients, name: &str) -> Vec<f64> {
    read(gradients.get(name).unwrap()).into_iter().map(f64::from).collect()
}

/// `-sum_k A_k e_k / sigma_k^2` over the noisy samples of each prompt, divided by their number in the batch, `[PROMPTS,
/// WIDTH]`.
fn by_thought(advantages: &[f64], standard: &[f32], group: usize, deviations: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; PROMPTS * WIDTH];
    for rollout in (0..PROMPTS * group).filter(|rollout| rollout % group > 0) {
        let prompt = rollout / group;
        for i in 0..WIDTH {
            let along = f64::from(standard[rollout * WIDTH + i]) / deviations[prompt];
            sums[prompt * WIDTH + i] -= advantages[rollout] * along / (PROMPTS * (group - 1)) as f64;
        }
    }
    sums
}

fn sum_over_prompts(rows: &[f64]) -> Vec<f64> {
    (0..WIDTH).map(|i| rows.iter().skip(i).step_by(WIDTH).sum()).collect()
}

#[test]
fn the_gradient_is_that_of_the_density_worked_out_by_hand() {
    let (examples, world, group) = (examples(), World::alone(), 4);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    for sigma_relative in [None, Some(0.4)] {
        let config = GrpoConfig { sigma_relative, ..config(group, 0.7) };
        let model = freeze_untrained(small_model(1, 3), &config);
        let standard = noise(1, group);
        let (rollouts, update) = stage(config, &model).roll_out_and_update(&model, &local, &standard).unwrap();

        let deviation = |norm: &f64| sigma_relative.map_or(0.7, |share| share * norm / (WIDTH as f64).sqrt());
        let deviations: Vec<f64> = rollouts.pool.thought_norms.iter().map(deviation).collect();
        let by_thought = by_thought(&rollouts.advantages, &standard, group, &deviations);
        assert_close(&gradient(&update.gradients, BIAS), &sum_over_prompts(&by_thought), 1e-4);
        // The other parameters: along the same vectors, one prompt after the other, through the whole model.
        let mut expected = Gradients::default();
        for (example, along) in examples.iter().zip(by_thought.chunks(WIDTH)) {
            let thought = model.think(&mut model.prefill(&[&example.prompt]).unwrap()).unwrap().unwrap();
            let along: Vec<f32> = along.iter().map(|value| *value as f32).collect();
            let along = Tensor::<2>::from_data(TensorData::new(along, [1, WIDTH]), &model.device());
            expected.add(Gradients::collect(&model, (thought * along).sum().backward()));
        }
        let names: Vec<&str> = update.gradients.names().collect();
        assert!(names.len() == 6 && expected.names().eq(names.iter().copied()), "{names:?}");
        for name in names {
            // The bias of the keys moves all scores alike.
            if name != "attention.key.bias" {
                assert_close(&gradient(&update.gradients, name), &gradient(&expected, name), 1e-3);
            }
        }
    }
}

/// The bias of the values enters every thought, but only the last one's is followed.
#[test]
fn earlier_thoughts_count_as_given() {
    let (examples, world, group) = (examples(), World::alone(), 4);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let config = config(group, 0.7);
    let model = freeze_untrained(small_model(2, 3), &config);
    let (standard, stage) = (noise(1, group), stage(config, &model));
    let (rollouts, at_once) = stage.roll_out_and_update(&model, &local, &standard).unwrap();
    let expected = sum_over_prompts(&by_thought(&rollouts.advantages, &standard, group, &[0.7; PROMPTS]));
    let again = stage.update(&model, &local, &rollouts).unwrap();
    for update in [at_once, again] {
        assert_close(&gradient(&update.gradients, BIAS), &expected, 1e-4);
    }
}

/// Once the thoughts have moved by `shift`, the ratio of the densities is `exp((<e, shift> - |shift|^2 / 2) /
/// sigma^2)`.
#[test]
fn further_updates_weigh_and_clip_by_the_ratio_of_the_densities() {
    let (examples, world, group, sigma) = (examples(), World::alone(), 4, 0.7);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let shift: Vec<f32> = (0..WIDTH).map(|i| 0.1 * (i as f32).cos()).collect();
    let config = config(group, sigma);
    let model = freeze_untrained(small_model(1, 3), &config);
    let (standard, stage) = (noise(1, group), stage(config, &model));
    let rollouts = stage.roll_out(&model.valid(), &local, &standard).unwrap();
    let update = stage.update(&shifted(model, &shift), &local, &rollouts).unwrap();

    let (mut loss, mut ratios, mut outside, mut bias) = (0.0, 0.0, 0.0, vec![0.0; WIDTH]);
    let total = (PROMPTS * (group - 1)) as f64;
    for rollout in (0..PROMPTS * group).filter(|rollout| rollout % group > 0) {
        let noise: Vec<f64> = standard[rollout * WIDTH..][..WIDTH].iter().map(|e| sigma * f64::from(*e)).collect();
        let shift: Vec<f64> = shift.iter().map(|&value| f64::from(value)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let ratio = ((dot(&noise, &shift) - dot(&shift, &shift) / 2.0) / (sigma * sigma)).exp();
        let advantage = rollouts.advantages[rollout];
        let clipped = ratio.clamp(0.8, 1.28);
        loss -= (ratio * advantage).min(clipped * advantage) / total;
        ratios += ratio / total;
        outside += f64::from(u8::from(clipped != ratio)) / total;
        if ratio * advantage <= clipped * advantage {
            for i in 0..WIDTH {
                bias[i] -= advantage * ratio * (noise[i] - shift[i]) / (sigma * sigma) / total;
            }
        }
    }
    assert!(outside > 0.1 && outside < 0.9, "some are clipped and some are not: {outside}");
    let figures: Vec<f64> = update.metrics.names().iter().map(|name| update.metrics.get(name).unwrap()).collect();
    assert_close(&figures, &[loss, ratios, outside], 1e-4);
    assert_close(&gradient(&update.gradients, BIAS), &bias, 1e-4);
}

/// Two Gaussians of one variance, their means a `shift` apart: `|shift|^2 / (2 sigma^2)`.
#[test]
fn the_divergence_of_the_thoughts_pulls_them_back() {
    let (examples, world, group, sigma) = (examples(), World::alone(), 4, 0.7);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let shift: Vec<f32> = (0..WIDTH).map(|i| 0.1 * (i as f32).cos()).collect();
    let config = GrpoConfig { kl: 0.3, ..config(group, sigma) };
    let start = freeze_untrained(small_model(1, 3), &config);
    let stage = stage(config, &start).with_advantage(|rewards, _| vec![0.0; rewards.len()]);
    let standard = noise(1, group);
    let model = shifted(start, &shift);
    let (rollouts, at_once) = stage.roll_out_and_update(&model, &local, &standard).unwrap();
    let again = stage.update(&model, &local, &rollouts).unwrap();
    let square: f64 = shift.iter().map(|value| f64::from(value * value)).sum();
    let pull: Vec<f64> = shift.iter().map(|value| 0.3 * f64::from(*value) / (sigma * sigma)).collect();
    for update in [at_once, again] {
        let figure = |name: &str| update.metrics.get(name).unwrap();
        assert_close(&[figure("thought_kl")], &[square / (2.0 * sigma * sigma)], 1e-4);
        assert_close(&[figure("loss")], &[0.3 * square / (2.0 * sigma * sigma)], 1e-4);
        assert!(figure("kl") > 0.0);
        assert_close(&gradient(&update.gradients, BIAS), &pull, 1e-4);
    }
}

/// A reward without heavy tails: how likely the target's tokens are, on their geometric mean.
fn likelihood(sample: &Sample) -> f64 {
    let log_probs = sample.log_probs;
    (log_probs.iter().map(|&value| f64::from(value)).sum::<f64>() / log_probs.len() as f64).exp()
}

/// Nodes and weights of the Gauss-Hermite quadrature of the standard normal distribution, exact to degree 13.
const NODES: [(f64, f64); 7] = [
    (-3.750439717725742, 0.000548268855972218),
    (-2.366759410734541, 0.030757123967586),
    (-1.154405394739968, 0.240123178605013),
    (0.0, 0.457142857142857),
    (1.154405394739968, 0.240123178605013),
    (2.366759410734541, 0.030757123967586),
    (3.750439717725742, 0.000548268855972218),
];

/// With noise in two coordinates only, the expectation is a sum over a grid, and the bias of the values moves the
/// thoughts along these coordinates.
#[test]
fn on_a_grid_of_noise_it_is_the_derivative_of_the_expected_reward() {
    let (examples, world) = (examples(), World::alone());
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let grid: Vec<([f64; 2], f64)> =
        NODES.iter().flat_map(|(x, p)| NODES.iter().map(move |(y, q)| ([*x, *y], p * q))).collect();
    let group = 1 + grid.len();
    let weights: Vec<f64> = std::iter::once(0.0).chain(grid.iter().map(|(_, weight)| *weight)).collect();
    let of_group: Vec<f32> = std::iter::once(&([0.0; 2], 0.0))
        .chain(&grid)
        .flat_map(|([x, y], _)| [*x as f32, *y as f32].into_iter().chain([0.0; WIDTH - 2]))
        .collect();
    let standard = of_group.repeat(PROMPTS);

    let config = config(group, 0.4);
    let model = freeze_untrained(small_model(1, 3), &config);
    // Their sum over a group is the expectation; any baseline of the group's own leaves it as it is.
    let of_weights = weights.clone();
    let stage = Grpo::new(config, 2, 0, &model, Objective::vocabulary()).unwrap();
    let stage = stage.with_reward(likelihood).with_advantage(move |rewards, group| {
        let one = |(i, reward): (usize, &f64)| {
            (group - 1) as f64 * of_weights[i % group] * (reward - rewards[i / group * group])
        };
        rewards.iter().enumerate().map(one).collect()
    });
    let (_, update) = stage.roll_out_and_update(&model, &local, &standard).unwrap();
    let found: Vec<f64> = gradient(&update.gradients, BIAS)[..2].iter().map(|value| -value).collect();

    let expected_reward = |shift: &[f32]| {
        let model = shifted(model.clone(), shift).valid();
        let rollouts = stage.roll_out(&model, &local, &standard).unwrap();
        let rewards = rollouts.rewards.iter().enumerate();
        rewards.map(|(i, reward)| weights[i % group] * reward).sum::<f64>() / PROMPTS as f64
    };
    let step = 0.02;
    let difference = |coordinate: usize| {
        let at = |by: f32| {
            let mut shift = [0.0; WIDTH];
            shift[coordinate] = by;
            expected_reward(&shift)
        };
        (at(step) - at(-step)) / f64::from(2.0 * step)
    };
    assert_close(&found, &[difference(0), difference(1)], 5e-3);
}

/// In all coordinates and for all parameters: along a direction the mean over many samples is the slope of the expected
/// reward, within four standard errors, which are a tenth of it at most.
#[test]
fn over_many_samples_it_is_the_slope_of_the_expected_reward() {
    let (examples, world, group) = (examples(), World::alone(), 65);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let config = GrpoConfig { advantage: AdvantageKind::Own, ..config(group, 0.5) };
    let model = freeze_untrained(small_model(1, 3), &config);
    let stage = Grpo::new(config, PROMPTS, 0, &model, Objective::vocabulary()).unwrap();
    let stage = stage.with_reward(likelihood).with_advantage(|rewards, group| {
        rewards.iter().enumerate().map(|(i, reward)| reward - rewards[i / group * group]).collect()
    });
    let names: Vec<String> =
        weights(&model).into_keys().filter(|name| name.starts_with("attention.")).collect::<Vec<_>>();
    let estimate = |step: u64| {
        let (_, update) = stage.roll_out_and_update(&model, &local, &noise(step, group)).unwrap();
        names.iter().map(|name| gradient(&update.gradients, name)).collect::<Vec<_>>()
    };
    // Uphill, as other samples saw it.
    let mut direction = estimate(0);
    for step in 1..8 {
        for (sum, more) in direction.iter_mut().flatten().zip(estimate(step).into_iter().flatten()) {
            *sum += more;
        }
    }
    let length = direction.iter().flatten().map(|value| value * value).sum::<f64>().sqrt();
    direction.iter_mut().flatten().for_each(|value| *value /= -length);

    let far = 0.02;
    let expected_reward = |by: f64, standard: &[f32]| {
        let by = |name: &str| {
            let of = &direction[names.iter().position(|other| other == name)?];
            Some(of.iter().map(|value| (by * value) as f32).collect())
        };
        let rollouts = stage.roll_out(&moved(model.clone(), &by).valid(), &local, standard).unwrap();
        let noisy = rollouts.rewards.iter().enumerate().filter(|(i, _)| i % group > 0);
        noisy.map(|(_, reward)| reward).sum::<f64>() / (PROMPTS * (group - 1)) as f64
    };
    let (mut found, mut slopes) = (Vec::new(), Vec::new());
    for step in 8..40 {
        let standard = noise(step, group);
        let products = estimate(step).into_iter().flatten().zip(direction.iter().flatten()).map(|(g, d)| -g * d);
        found.push(products.sum::<f64>());
        slopes.push((expected_reward(far, &standard) - expected_reward(-far, &standard)) / (2.0 * far));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let error = |values: &[f64]| {
        let (mean, count) = (mean(values), values.len() as f64);
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count).sqrt()
    };
    let (estimate, slope) = (mean(&found), mean(&slopes));
    let error = error(&found).hypot(error(&slopes));
    println!("estimate {estimate:.5}, slope {slope:.5}, standard error {error:.5}");
    assert!(slope > 0.0 && error < 0.1 * slope, "slope {slope}, standard error {error}");
    assert!((estimate - slope).abs() < 4.0 * error, "{estimate} instead of {slope}, standard error {error}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let refused = [
        (GrpoConfig { train_backbone: true, ..config(4, 1.0) }, "estimator: score needs"),
        (config(4, 0.0), "sigma: must be positive"),
        (GrpoConfig { sigma_relative: Some(0.0), ..config(4, 1.0) }, "sigma_relative: must be positive"),
        (
            GrpoConfig { max_kl: Some(-1.0), ..Default::default() },
            "max_kl: must be a positive single-precision number, got -1",
        ),
        (
            GrpoConfig { stop_on_collapse: Some(1.0), ..Default::default() },
            "stop_on_collapse: must be a finite number above 1, got 1",
        ),
    ];
    for (config, message) in refused {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(GrpoConfig { updates: 3, sigma_relative: Some(0.1), ..config(4, 0.0) }.check().is_ok());
}

#[test]
fn the_pathwise_gradient_is_the_derivative_of_the_mean_reward() {
    let (examples, world, group) = (examples(), World::alone(), 4);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let config = GrpoConfig { group, sigma: 0.7, estimator: EstimatorKind::Pathwise, ..Default::default() };
    let model = freeze_untrained(small_model(1, 3), &config);
    let stage = Grpo::new(config.clone(), 2, 0, &model, Objective::vocabulary()).unwrap();
    let standard = noise(1, group);
    let (rollouts, update) = stage.roll_out_and_update(&model, &local, &standard).unwrap();
    let loss = |model: &LatentRecommender| {
        let rewards = stage.roll_out(&model.valid(), &local, &standard).unwrap().rewards;
        -rewards.iter().sum::<f64>() / rewards.len() as f64
    };
    let found = update.metrics.get("loss").unwrap();
    assert!((found - loss(&model)).abs() < 1e-4);
    let step = 0.02;
    let slope = |i: usize| {
        let shift = |by: f32| (0..WIDTH).map(|j| if i == j { by } else { 0.0 }).collect::<Vec<f32>>();
        let [above, below] = [step, -step].map(|by| loss(&shifted(model.clone(), &shift(by))));
        (above - below) / f64::from(2.0 * step)
    };
    assert_close(&gradient(&update.gradients, BIAS), &(0..WIDTH).map(slope).collect::<Vec<_>>(), 1e-2);

    // Beyond the bound a reward does not change.
    let worst = rollouts.rewards.iter().fold(0.0, |worst: f64, reward| worst.min(*reward));
    let bounded = GrpoConfig { max_perplexity: -worst * 0.999, ..config };
    let bounded = Grpo::new(bounded, 2, 0, &model, Objective::vocabulary())
        .unwrap()
        .roll_out_and_update(&model, &local, &standard)
        .unwrap()
        .1;
    assert_ne!(gradient(&bounded.gradients, BIAS), gradient(&update.gradients, BIAS));
}

#[test]
fn a_pathwise_gradient_that_would_be_wrong_is_refused() {
    let refused = |config: GrpoConfig, thoughts: usize| {
        let config = GrpoConfig { estimator: EstimatorKind::Pathwise, ..config };
        let problem =
            Grpo::new(config, 2, 0, &small_model(thoughts, 3), Objective::vocabulary()).err().unwrap().to_string();
        assert!(problem.contains("pathwise"), "{problem}");
    };
    refused(GrpoConfig { updates: 2, ..Default::default() }, 1);
    refused(GrpoConfig { kl: 0.1, ..Default::default() }, 1);
    refused(GrpoConfig { train_backbone: true, ..Default::default() }, 1);
    refused(GrpoConfig::default(), 2);
    // A reward that does not say its derivative.
    let (examples, world) = (examples(), World::alone());
    let config = GrpoConfig { group: 4, estimator: EstimatorKind::Pathwise, ..Default::default() };
    let model = freeze_untrained(small_model(1, 3), &config);
    let stage = Grpo::new(config, 2, 0, &model, Objective::vocabulary()).unwrap().with_reward(likelihood);
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let problem = stage.roll_out_and_update(&model, &local, &noise(1, 4)).err().unwrap().to_string();
    assert!(problem.contains("derivative of the reward"), "{problem}");
}
