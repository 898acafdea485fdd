//! How often differences are found where there are none, and where there are some, in synthetic ranks.

use rand::{Rng, RngExt};
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

use super::gains::{Gains, Users};
use super::*;
use crate::eval::{Evaluation, EvaluationResult, Method, Shard};
use crate::models::Precision;
use crate::models::random::generator;

/// What users and runs are made of.
#[derive(Clone, Copy)]
struct World {
    users: usize,
    /// Rows of each user, all of which find their items or none.
    rows_of_user: usize,
    /// HR@10 of the models.
    hit_rate: f64,
    /// Standard deviation of HR@10 over the runs of the baseline and of the other model.
    run_deviation: [f64; 2],
}

/// How often a run judges a user as all runs do, and not by chance.
const AGREEMENT: f64 = 0.7;

const WORLD: World = World { users: 6000, rows_of_user: 1, hit_rate: 0.09, run_deviation: [0.0; 2] };

impl World {
    fn rows(self) -> Users {
        let of_row = (0..self.users * self.rows_of_user).map(|row| row / self.rows_of_user).collect();
        Users { of_row, rows: vec![self.rows_of_user as f64; self.users] }
    }

    /// What all runs agree on.
    fn difficulty(self, random: &mut impl Rng) -> Vec<f64> {
        (0..self.users).map(|_| random.random()).collect()
    }

    /// A run's ranks: a user's item is found where it is easier than the run's hit rate, and the easier, the higher.
    fn run(hit_rate: f64, difficulty: &[f64], random: &mut impl Rng) -> Vec<Option<f64>> {
        let mut rank = |common: &f64| {
            let own: f64 = if random.random::<f64>() < AGREEMENT { *common } else { random.random() };
            (own < hit_rate).then(|| 1.0 + (10.0 * own / hit_rate).floor())
        };
        difficulty.iter().map(&mut rank).collect()
    }

    /// Two models of so many runs.
    fn models(self, runs: usize, better: f64, number: u64) -> [Gains; 2] {
        let mut random = generator([1, 2, 3, number]);
        let difficulty = self.difficulty(&mut random);
        [(0.0, self.run_deviation[0]), (better, self.run_deviation[1])].map(|(more, deviation)| {
            let sums = |rank: Option<f64>| self.rows_of_user as f64 * Metric::Hr(10).gain(rank);
            let mut run = || {
                let normal = Normal::new(self.hit_rate + more, deviation.max(1e-12)).unwrap();
                let hit_rate = normal.inverse_cdf(random.random());
                Self::run(hit_rate, &difficulty, &mut random).into_iter().map(sums).collect()
            };
            Gains::of_sums((0..runs).map(|_| run()).collect())
        })
    }
}

/// Of so many comparisons, those whose p value is at most .05.
fn found(comparisons: u64, p: impl Fn(u64) -> f64 + Sync) -> u64 {
    (0..comparisons).into_par_iter().filter(|&number| p(number) <= 0.05).count() as u64
}

fn p_of_users(world: World, runs: usize, better: f64, number: u64) -> f64 {
    let [baseline, other] = world.models(runs, better, number);
    permutation::p_values(&[other.over(&baseline)], 199, number)[0]
}

fn p_of_runs(world: World, runs: usize, better: f64, number: u64) -> f64 {
    let [baseline, other] = world.models(runs, better, number);
    runs::test(&baseline, &other, &world.rows()).unwrap().p
}

/// 99.8% of all draws from a binomial distribution of 400 with a share of .05 are in here.
const FIVE_PERCENT_OF_400: std::ops::RangeInclusive<u64> = 8..=35;

#[test]
fn sign_flips_find_a_difference_between_equal_models_in_one_case_of_twenty() {
    let false_positives = found(400, |number| p_of_users(WORLD, 3, 0.0, number));
    println!("3 runs that differ by users only: {false_positives} of 400");
    assert!(FIVE_PERCENT_OF_400.contains(&false_positives), "{false_positives}");
    // Single runs, and users of 4 rows that find their items together.
    let of_few = World { users: 1500, rows_of_user: 4, ..WORLD };
    let false_positives = found(400, |number| p_of_users(of_few, 1, 0.0, 1000 + number));
    assert!(FIVE_PERCENT_OF_400.contains(&false_positives), "{false_positives}");
}

#[test]
fn seeds_alone_make_no_difference_to_the_test_over_runs() {
    let cases = [(3, [0.0; 2]), (3, [0.002; 2]), (3, [0.003; 2]), (3, [0.004; 2]), (3, [0.0, 0.006]), (5, [0.003; 2])];
    for (runs, run_deviation) in cases {
        let world = World { run_deviation, ..WORLD };
        let false_positives = found(400, |number| p_of_runs(world, runs, 0.0, number));
        println!("the training, {runs} runs, {run_deviation:?}: {false_positives} of 400");
        assert!(false_positives <= *FIVE_PERCENT_OF_400.end(), "{runs} runs, {run_deviation:?}: {false_positives}");
    }
}

#[test]
fn seeds_alone_make_a_difference_to_the_test_over_users() {
    // Why a single run says nothing of the training.
    let world = World { run_deviation: [0.003; 2], ..WORLD };
    for runs in [1, 3] {
        let found = found(400, |number| p_of_users(world, runs, 0.0, number));
        println!("these runs, {runs}: {found} of 400");
        assert!(found > *FIVE_PERCENT_OF_400.end(), "{runs} runs: {found}");
    }
}

#[test]
fn differences_are_found() {
    let world = World { run_deviation: [0.003; 2], ..WORLD };
    let over_runs = found(100, |number| p_of_runs(world, 3, 0.02, number));
    let over_users = found(100, |number| p_of_users(WORLD, 1, 0.02, number));
    println!("{over_runs} and {over_users} of 100");
    assert!(over_runs >= 90 && over_users >= 90, "{over_runs} {over_users}");
}

#[test]
fn intervals_are_those_of_the_normal_approximation_in_a_large_sample() {
    let world = World { users: 3000, rows_of_user: 2, ..WORLD };
    let [baseline, other] = world.models(2, 0.01, 7);
    let (users, difference) = (world.rows(), other.over(&baseline));
    let (mean, deviation) = (users.mean(&difference), users.variance(&difference).sqrt());
    let [interval] = bootstrap::intervals(&[difference], &users.rows, 10_000, 0)[..] else { panic!("one metric") };
    for (bound, expected) in interval.into_iter().zip([mean - 1.96 * deviation, mean + 1.96 * deviation]) {
        // Four standard errors of a quantile of 10,000 draws.
        assert!((bound - expected).abs() < 0.11 * deviation, "{interval:?}, {mean} +- 1.96 * {deviation}");
    }
}

#[test]
fn intervals_have_the_difference_in_19_cases_of_20() {
    // Users have from 1 to 4 rows: the mean is a ratio.
    let world = World { users: 1000, ..WORLD };
    let rows: Vec<f64> = (0..world.users).map(|user| 1.0 + (user % 4) as f64).collect();
    let misses = found(400, |number| {
        let [baseline, other] = world.models(1, 0.0, 5000 + number);
        let difference: Vec<f64> = other.over(&baseline).iter().zip(&rows).map(|(d, rows)| d * rows).collect();
        let [low, high] = bootstrap::intervals(&[difference], &rows, 399, number)[0];
        if low <= 0.0 && 0.0 <= high { 1.0 } else { 0.0 }
    });
    assert!(FIVE_PERCENT_OF_400.contains(&misses), "{misses}");
}

/// An evaluation of 300 users with two rows each.
fn result(number: u64, hit_rate: f64) -> EvaluationResult {
    let difficulty = World { users: 600, ..WORLD }.difficulty(&mut generator([9, 9, 9, 9]));
    let found = World::run(hit_rate, &difficulty, &mut generator([9, 9, 9, number]));
    let rank = |(row, rank): (usize, Option<f64>)| UserRank {
        row,
        user: format!("u{}", row / 2),
        item: format!("i{row}"),
        item_count: 1,
        rank,
        title_rank: rank.map(|rank| (rank - 1.0).max(1.0)),
        popularity_rank: 1.0,
        list: vec![vec![u32::from(rank.is_some())]],
    };
    let ranks: Vec<UserRank> = found.into_iter().enumerate().map(rank).collect();
    let method = Method { length_penalty: Some(1.0), ..Method::named("beam search", 10) };
    EvaluationResult {
        split: "test".into(),
        data_fingerprint: "f".into(),
        model_files: Default::default(),
        limit: None,
        seed: 0,
        batch: 16,
        precision: Precision::F32,
        trained_objective: None,
        thoughts: None,
        guide_files: Default::default(),
        users_of_all_parts: ranks.len(),
        shard: Shard::WHOLE,
        evaluation: Evaluation::of(ranks, vec![1; 600], method, 1.0),
    }
}

fn group(name: &str, hit_rate: f64, runs: std::ops::Range<u64>) -> Group {
    let run = |number| Run { path: format!("{name}-{number}.json").into(), result: result(number, hit_rate) };
    Group { name: name.into(), runs: runs.map(run).collect() }
}

fn config() -> CompareConfig {
    CompareConfig { by: By::Item, metrics: default_metrics(10), pairs: Pairs::AgainstFirst, resamples: 500, seed: 0 }
}

#[test]
fn means_are_those_of_the_evaluations_and_both_questions_are_corrected_by_themselves() {
    let groups = [group("a", 0.1, 0..3), group("b", 0.2, 3..6), group("c", 0.12, 6..7)];
    let all = compare(&groups, &CompareConfig { pairs: Pairs::All, ..config() }).unwrap();
    assert_eq!((all.rows, all.users, all.comparisons.len()), (600, 300, 3 * 7));
    let hr = |group: usize, run: usize| groups[group].runs[run].result.evaluation.by_item.hr[&10].unwrap();
    let first = &all.comparisons[3];
    assert_eq!((first.baseline.as_str(), first.other.as_str(), first.metric), ("a", "b", Metric::Hr(10)));
    for (value, expected) in
        first.baseline_runs.iter().chain(&first.other_runs).zip((0..2).flat_map(|g| (0..3).map(move |r| (g, r))))
    {
        assert!((value - hr(expected.0, expected.1)).abs() < 1e-12);
    }
    assert!((first.difference - (first.other_mean - first.baseline_mean)).abs() < 1e-12);
    let raw: Vec<f64> = all.comparisons.iter().map(|comparison| comparison.these_runs.p).collect();
    let adjusted: Vec<f64> = all.comparisons.iter().map(|comparison| comparison.these_runs.p_holm).collect();
    assert_eq!(holm(&raw), adjusted);
    // c has a single run, so that one pair of three has an answer.
    let of_runs: Vec<Evidence> =
        all.comparisons.iter().filter_map(|comparison| comparison.runs_like_these).map(|of| of.evidence).collect();
    assert_eq!(of_runs.len(), 7);
    assert_eq!(
        holm(&of_runs.iter().map(|e| e.p).collect::<Vec<_>>()),
        of_runs.iter().map(|e| e.p_holm).collect::<Vec<_>>()
    );
    assert!(first.these_runs.p_holm < 0.05 && first.these_runs.interval[0] > 0.0);
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Comparisons>(&text).unwrap(), all);
}

#[test]
fn a_model_without_a_difference_to_itself_has_none() {
    let again = |name: &str| Group {
        name: name.into(),
        runs: (0..3).map(|run| Run { path: format!("{name}{run}").into(), result: result(run, 0.1) }).collect(),
    };
    for comparison in compare(&[again("a"), again("b")], &config()).unwrap().comparisons {
        let of_runs = comparison.runs_like_these.unwrap();
        assert_eq!((comparison.these_runs.interval, comparison.these_runs.p), ([0.0, 0.0], 1.0));
        assert_eq!((of_runs.evidence.p, comparison.difference), (1.0, 0.0));
    }
}

#[test]
fn pairs_are_those_asked_for() {
    let groups = [group("a", 0.1, 0..1), group("b", 0.2, 1..2), group("c", 0.12, 2..3)];
    let pairs = |pairs| {
        let metrics = vec![Metric::Ndcg(10)];
        let all = compare(&groups, &CompareConfig { metrics, pairs, ..config() }).unwrap();
        all.comparisons.iter().map(|of| format!("{}{}", of.baseline, of.other)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(pairs(Pairs::AgainstFirst), "ab ac");
    assert_eq!(pairs(Pairs::Against("b".into())), "ba bc");
    assert_eq!(pairs(Pairs::All), "ab ac bc");
}

#[test]
fn lists_that_differ_are_counted_between_models_and_between_runs() {
    let mut groups = [group("a", 0.1, 0..2), group("b", 0.1, 2..3), group("c", 0.1, 3..5)];
    let mut of_run = |group: usize, run: usize, lists: [u32; 4]| {
        let ranks = &mut groups[group].runs[run].result.evaluation.ranks;
        ranks.truncate(4);
        ranks.iter_mut().zip(lists).for_each(|(user, item)| user.list = vec![vec![item], vec![9]]);
    };
    of_run(0, 0, [1, 2, 3, 4]);
    of_run(0, 1, [1, 2, 3, 5]);
    of_run(1, 0, [1, 2, 7, 5]);
    of_run(2, 0, [1, 2, 3, 4]);
    of_run(2, 1, [1, 2, 7, 8]);
    let all = compare(&groups, &config()).unwrap().lists;
    let lists = &all[0];
    assert_eq!((lists.baseline.as_str(), lists.other.as_str()), ("a", "b"));
    assert_eq!(
        (lists.between_models, lists.between_paired_runs, lists.between_baseline_runs, lists.between_other_runs),
        (Some(0.375), None, Some(0.25), None)
    );
    assert_eq!((all[1].between_models, all[1].between_paired_runs), (Some(0.3125), Some(0.25)));
}

#[test]
fn titles_have_ranks_of_their_own() {
    let groups = [group("a", 0.1, 0..1), group("b", 0.2, 1..2)];
    let mean = |by| compare(&groups, &CompareConfig { by, ..config() }).unwrap().comparisons[1].baseline_mean;
    let evaluation = &groups[0].runs[0].result.evaluation;
    for (by, ranking) in [(By::Item, &evaluation.by_item), (By::Title, &evaluation.by_title)] {
        assert!((mean(by) - ranking.hr[&3].unwrap()).abs() < 1e-12);
    }
    assert_ne!(mean(By::Item), mean(By::Title));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let good = [group("a", 0.1, 0..2), group("b", 0.2, 2..4)];
    let refused = |groups: &[Group], config: &CompareConfig| compare(groups, config).unwrap_err().to_string();
    let changed = |change: fn(&mut EvaluationResult)| {
        let mut groups = good.clone();
        change(&mut groups[1].runs[1].result);
        refused(&groups, &config())
    };
    for (message, part) in [
        (
            changed(|result| result.split = "valid".into()),
            "a-0.json and b-3.json cannot be compared user by user: they differ in split",
        ),
        (changed(|result| result.data_fingerprint = "g".into()), "differ in data"),
        (changed(|result| result.evaluation.item_counts[3] = 9), "differ in items"),
        (changed(|result| result.evaluation.method.beams = 5), "needs lists longer than 5 items"),
        (changed(|result| drop(result.evaluation.ranks.pop())), "differ in number of users"),
        (
            changed(|result| result.evaluation.ranks[5].user = "x".into()),
            "row 5 has user `u2` and item `i5`, but in the other it is row 5 with user `x`",
        ),
        (changed(|result| result.evaluation.ranks[5].item = "x".into()), "with user `u2` and item `x`"),
        (changed(|result| result.evaluation.ranks[5].row = 6), "row 6 with user `u2`"),
        (
            changed(|result| result.evaluation.ranks[5].rank = Some(0.5)),
            "b-3.json: 0.5 is not a rank; ranks start at 1 (user `u2`, row 5)",
        ),
        (changed(|result| result.evaluation.ranks[5].title_rank = Some(f64::NAN)), "NaN is not a rank"),
        (
            changed(|result| result.shard = "2/3".parse().unwrap()),
            "b-3.json is shard 2/3 of an evaluation; merge all shards with `latentr3 merge`",
        ),
        (refused(&good[..1], &config()), "at least two models"),
        (refused(&[good[0].clone(), Group { name: "b".into(), runs: Vec::new() }], &config()), "`b` has no runs"),
        (refused(&[good[0].clone(), good[0].clone()], &config()), "two models are named `a`"),
        (
            refused(&[good[0].clone(), Group { name: "c".into(), ..good[0].clone() }], &config()),
            "a-0.json is given twice",
        ),
        (
            refused(&good, &CompareConfig { metrics: vec![Metric::Hr(20)], ..config() }),
            "HR@20 needs lists longer than 10 items",
        ),
        (refused(&good, &CompareConfig { metrics: Vec::new(), ..config() }), "at least one metric"),
        (refused(&good, &CompareConfig { resamples: 99, ..config() }), "got 99"),
        (
            refused(&good, &CompareConfig { pairs: Pairs::Against("z".into()), ..config() }),
            "no model is named `z`; the models are `a`, `b`",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
    // A model of its own and another length penalty are what is compared.
    let mut other = good.clone();
    other[1].runs[0].result.evaluation.method.length_penalty = Some(0.0);
    other[1].runs[0].result.model_files = [("model.safetensors".to_owned(), "0".to_owned())].into();
    assert!(compare(&other, &config()).is_ok());
    // One user says nothing, and none does not either.
    for rows in [0, 2] {
        let mut few = good.clone();
        for run in few.iter_mut().flat_map(|group| &mut group.runs) {
            run.result.evaluation.ranks.truncate(rows);
        }
        assert!(refused(&few, &config()).contains("too few"));
    }
}
