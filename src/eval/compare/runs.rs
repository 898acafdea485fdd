//! Whether the way in which models were trained makes a difference, for users and seeds like these.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::gains::{Gains, Users};

/// What a t test over users and runs says of a mean difference.
pub(super) struct RunTest {
    pub standard_error: f64,
    pub degrees_of_freedom: f64,
    /// The 95% interval.
    pub interval: [f64; 2],
    /// Two-sided.
    pub p: f64,
}

/// Tests the mean difference of two models of at least two runs each; `None` where one has fewer.
///
/// All runs are evaluated on the same users, and each run belongs to one model: the design of several readers who read
/// the same cases, where each reader uses one of two methods (Hillis 2014, "A marginal-mean ANOVA approach for
/// analyzing multireader multicase radiological imaging data"). The difference varies
///
/// - with the users, by `V_u`, its variance over users, which has in it what is one run's luck with single users;
/// - with the runs, by `V_r = s_1^2 / a_1 + s_2^2 / a_2` for the variances s^2 of a runs' means, which has the same in
///   it, `V_i`, once more.
///
/// So `V = V_u + max(0, V_r - V_i)`: never less than what the users alone make. The degrees of freedom are
/// Satterthwaite's, `V^2 / (V_u^2 / (U - 1) + sum_g (s_g^2 / a_g)^2 / (a_g - 1))`, and at least those of the part that
/// has fewest. Of equal models with normal errors it says p <= .05 in 5% of all cases or less where the runs of both
/// spread alike, in 7% with two runs each; where only one model's runs spread, in up to 8% with three runs each and 13%
/// with two.
pub(super) fn test(baseline: &Gains, other: &Gains, users: &Users) -> Option<RunTest> {
    let spreads = [Spread::of(baseline, users)?, Spread::of(other, users)?];
    let difference = other.over(baseline);
    Some(t_test(users.mean(&difference), users.variance(&difference), (users.rows.len() - 1) as f64, spreads))
}

/// The test of a mean difference, from its variance over users with their degrees of freedom, and the runs' spreads.
fn t_test(mean: f64, by_users: f64, users_freedom: f64, spreads: [Spread; 2]) -> RunTest {
    let sum = |part: fn(&Spread) -> f64| spreads.iter().map(part).sum::<f64>();
    let variance = by_users + (sum(|spread| spread.of_mean) - sum(|spread| spread.luck)).max(0.0);
    let uncertainty = by_users.powi(2) / users_freedom + sum(|spread| spread.of_mean.powi(2) / spread.freedom);
    let degrees_of_freedom = if uncertainty > 0.0 { variance.powi(2) / uncertainty } else { users_freedom };
    // Without luck taken off, it could not be less.
    let fewest = spreads.iter().fold(users_freedom, |fewest, spread| fewest.min(spread.freedom));
    let degrees_of_freedom = degrees_of_freedom.max(fewest);
    let standard_error = variance.sqrt();
    let t = StudentsT::new(0.0, 1.0, degrees_of_freedom).expect("degrees of freedom are at least 1");
    let half = t.inverse_cdf(0.975) * standard_error;
    let p = match (mean == 0.0, standard_error > 0.0) {
        (true, _) => 1.0,
        (false, true) => 2.0 * t.sf(mean.abs() / standard_error),
        (false, false) => 0.0,
    };
    RunTest { standard_error, degrees_of_freedom, interval: [mean - half, mean + half], p }
}

/// How far the runs of one model lie apart.
struct Spread {
    /// The variance of the mean over the runs, from their distances.
    of_mean: f64,
    /// What of it comes from each run's luck with single users.
    luck: f64,
    freedom: f64,
}

impl Spread {
    fn of(gains: &Gains, users: &Users) -> Option<Self> {
        let runs = gains.runs.len();
        if runs < 2 {
            return None;
        }
        let own =
            |sums: &Vec<f64>| -> Vec<f64> { sums.iter().zip(&gains.mean).map(|(sum, mean)| sum - mean).collect() };
        let own: Vec<Vec<f64>> = gains.runs.iter().map(own).collect();
        let squares: f64 = own.iter().map(|own| users.mean(own).powi(2)).sum();
        let luck: f64 = own.iter().map(|own| users.variance(own)).sum();
        let (runs, freedom) = (runs as f64, runs as f64 - 1.0);
        Some(Self { of_mean: squares / freedom / runs, luck: luck / freedom / runs, freedom })
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use statrs::distribution::Normal;

    use super::*;
    use crate::models::random::generator;

    fn users(count: usize) -> Users {
        Users { of_row: (0..count).collect(), rows: vec![1.0; count] }
    }

    fn assert_near(ours: [f64; 4], theirs: [f64; 4]) {
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert!((ours - theirs).abs() < 1e-9, "{ours}, not {theirs}");
        }
    }

    #[test]
    fn where_users_make_no_difference_it_is_welchs_test_of_the_runs() {
        let model = |means: &[f64]| Gains::of_sums(means.iter().map(|mean| vec![*mean; 40]).collect());
        let test = test(&model(&[0.10, 0.12, 0.13]), &model(&[0.15, 0.14, 0.18, 0.17]), &users(40)).unwrap();
        let ours = [test.degrees_of_freedom, test.p, test.interval[0], test.interval[1]];
        // scipy 1.17.1: ttest_ind(equal_var=False).
        assert_near(ours, [4.861271676300579, 0.019819978463292517, 0.010422992157703807, 0.07624367450896288]);
    }

    #[test]
    fn where_runs_make_no_difference_it_is_the_t_test_of_the_users() {
        let other = vec![1.0, 0.0, 0.5, -1.0, 1.0, 0.0, 1.0, 0.25];
        let model = |sums: Vec<f64>| Gains::of_sums(vec![sums; 2]);
        let test = test(&model(vec![0.0; 8]), &model(other), &users(8)).unwrap();
        let ours = [test.degrees_of_freedom, test.p, test.interval[0], test.interval[1]];
        // scipy 1.17.1: ttest_1samp.
        assert_near(ours, [7.0, 0.2037095834893214, -0.23608146121974083, 0.9235814612197407]);
    }

    #[test]
    fn the_luck_of_single_users_counts_once() {
        // Each run finds the items of half of the users, by chance: its mean varies by no more than that.
        let half = |odd: usize| (0..100).map(|user| ((user + odd) % 2) as f64).collect::<Vec<_>>();
        let model = Gains::of_sums(vec![half(0), half(1)]);
        let spread = Spread::of(&model, &users(100)).unwrap();
        // s^2 of the differences of a half, over 100 users and 2 runs.
        assert_eq!(spread.of_mean, 0.0);
        assert!((spread.luck - 2.0 * 100.0 / 99.0 * 0.25 / 100.0 / 2.0).abs() < 1e-15);
    }

    #[test]
    fn runs_in_another_order_are_no_difference() {
        let thirds =
            |at: [usize; 3]| at.map(|run| (0..9).map(|user| 1.0 / (2.0 + (user * run) as f64).log2()).collect());
        let [a, b] = [[0, 1, 2], [2, 0, 1]].map(|at| Gains::of_sums(thirds(at).to_vec()));
        let test = test(&a, &b, &users(9)).unwrap();
        assert_eq!(test.p, 1.0);
        assert!(test.degrees_of_freedom >= 2.0 && test.interval[0] <= 0.0 && test.interval[1] >= 0.0);
    }

    #[test]
    fn a_single_run_says_nothing_of_the_training() {
        let model = |runs| Gains::of_sums(vec![vec![1.0, 0.0]; runs]);
        assert!(test(&model(1), &model(3), &users(2)).is_none());
        assert!(test(&model(3), &model(1), &users(2)).is_none());
    }

    /// The share of 4,000 equal models with p <= .05: the users' part has the variance 1 and is known, each run's mean
    /// varies by `variances`, which is no luck.
    fn level(runs: usize, variances: [f64; 2]) -> f64 {
        let normal = Normal::standard();
        let mut random = generator([5, 5, runs as u64, variances[0].to_bits() ^ variances[1].to_bits().rotate_left(1)]);
        let mut draw = || normal.inverse_cdf(random.random::<f64>());
        let (size, freedom) = (runs as f64, runs as f64 - 1.0);
        let mut is_found = || {
            let models = variances.map(|variance| {
                let means: Vec<f64> = (0..runs).map(|_| variance.sqrt() * draw()).collect();
                let mean = means.iter().sum::<f64>() / size;
                let squares: f64 = means.iter().map(|own| (own - mean).powi(2)).sum();
                (mean, Spread { of_mean: squares / freedom / size, luck: 0.0, freedom })
            });
            let [(baseline, first), (other, second)] = models;
            t_test(draw() + other - baseline, 1.0, 1e4, [first, second]).p <= 0.05
        };
        (0..4000).filter(|_| is_found()).count() as f64 / 4000.0
    }

    #[test]
    fn equal_models_are_found_different_as_rarely_as_documented() {
        for (runs, alike, one) in [(2, 0.07, 0.13), (3, 0.05, 0.08), (5, 0.05, 0.06)] {
            let worst = |variances: fn(f64) -> [f64; 2]| {
                [0.5, 2.0, 8.0, 16.0]
                    .map(|share| level(runs, variances(share * runs as f64)))
                    .into_iter()
                    .fold(0.0, f64::max)
            };
            for (level, documented) in [(worst(|v| [v / 2.0; 2]), alike), (worst(|v| [0.0, v]), one)] {
                println!("{runs} runs: {level}, documented {documented}");
                // Three standard errors of a share of 4,000.
                assert!(level < documented + 3.0 * f64::sqrt(documented / 4000.0), "{runs} runs: {level}");
            }
        }
    }
}
