//! How far a mean difference might have come out otherwise with other users.

use rand::RngExt;
use rayon::prelude::*;

use super::gains::by_user;
use crate::models::random::generator;

/// Marks the bootstrap's generator.
const BOOTSTRAP: u64 = 0x424f_4f54_5354_5250;

/// 95% intervals of the mean differences over rows, by the percentiles of resamples in which as many users are drawn
/// with replacement, each with all of their rows (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
/// chapter 13).
///
/// `differences` are `[metrics][users]`, summed over each user's rows, of which there are `rows`. The same users are
/// drawn for every metric.
pub(super) fn intervals(differences: &[Vec<f64>], rows: &[f64], resamples: usize, seed: u64) -> Vec<[f64; 2]> {
    let (users, metrics) = (rows.len(), differences.len());
    let table = by_user(differences);
    let resample = |times: &mut Vec<u32>, number: usize| {
        times.fill(0);
        let mut random = generator([seed, BOOTSTRAP, number as u64, 0]);
        for _ in 0..users {
            times[random.random_range(0..users)] += 1;
        }
        let (mut sums, mut all) = (vec![0.0; metrics], 0.0);
        for ((&times, of_user), rows) in times.iter().zip(table.chunks_exact(metrics)).zip(rows) {
            let times = f64::from(times);
            all += times * rows;
            for (sum, difference) in sums.iter_mut().zip(of_user) {
                *sum += times * difference;
            }
        }
        sums.iter_mut().for_each(|sum| *sum /= all);
        sums
    };
    let means: Vec<Vec<f64>> =
        (0..resamples).into_par_iter().map_init(|| vec![0; users], |times, number| resample(times, number)).collect();
    let interval = |metric: usize| {
        let mut means: Vec<f64> = means.iter().map(|means| means[metric]).collect();
        means.sort_unstable_by(f64::total_cmp);
        [0.025, 0.975].map(|share| quantile(&means, share))
    };
    (0..metrics).map(interval).collect()
}

/// The value below which a share of sorted values lies, between two of them in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_values() {
        let sorted = [0.0, 10.0, 20.0, 30.0, 40.0];
        assert_eq!([0.0, 0.25, 0.375, 1.0].map(|share| quantile(&sorted, share)), [0.0, 10.0, 15.0, 40.0]);
    }

    #[test]
    fn a_seed_gives_the_same_intervals_with_any_number_of_threads() {
        let differences = [vec![1.0, 0.0, -1.0, 0.5, 0.0], vec![0.0, 0.0, 0.25, 0.5, 1.0]];
        let rows = [1.0, 2.0, 1.0, 1.0, 3.0];
        let with = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| intervals(&differences, &rows, 500, seed))
        };
        assert_eq!(with(1, 3), with(3, 3));
        assert_ne!(with(1, 3), with(1, 4));
    }
}
