//! Whether two given models differ on users like these.

use rand::Rng;
use rayon::prelude::*;

use super::gains::by_user;
use crate::models::random::generator;

/// Marks the permutations' generator.
const PERMUTATION: u64 = 0x5045_524d_5554_4500;

/// Two-sided p values of sign flips: were both models alike, each user might as well have had the one's lists for the
/// other's, which turns the sign of the user's difference. `(1 + resamples at least as far from 0 as what was seen) /
/// (1 + resamples)` (Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero").
///
/// `differences` are `[metrics][users]`, summed over each user's rows. The same users are flipped for every metric.
pub(super) fn p_values(differences: &[Vec<f64>], resamples: usize, seed: u64) -> Vec<f64> {
    let metrics = differences.len();
    let table = by_user(differences);
    // Many resamples equal what was seen but for the order of the sum; rounding must not decide which of them count.
    let bound = |of_users: &Vec<f64>| {
        let size: f64 = of_users.iter().map(|difference| difference.abs()).sum();
        of_users.iter().sum::<f64>().abs() - 1e-10 * size
    };
    let bounds: Vec<f64> = differences.iter().map(bound).collect();
    let is_as_far = |number: usize| {
        let mut random = generator([seed, PERMUTATION, number as u64, 0]);
        let mut sums = vec![0.0; metrics];
        for users in table.chunks(64 * metrics) {
            let signs = random.next_u64();
            for (place, of_user) in users.chunks_exact(metrics).enumerate() {
                let sign = if signs >> place & 1 == 0 { 1.0 } else { -1.0 };
                for (sum, difference) in sums.iter_mut().zip(of_user) {
                    *sum += sign * difference;
                }
            }
        }
        sums.iter().zip(&bounds).map(|(sum, bound)| u64::from(sum.abs() >= *bound)).collect::<Vec<u64>>()
    };
    let add = |a: Vec<u64>, b: Vec<u64>| a.iter().zip(b).map(|(a, b)| a + b).collect();
    let counts = (0..resamples).into_par_iter().map(is_as_far).reduce(|| vec![0; metrics], add);
    counts.into_iter().map(|count| (1 + count) as f64 / (1 + resamples) as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_those_of_all_sign_flips() {
        let differences =
            [vec![0.9, 0.4, -0.3, 0.25, 0.1, 0.8, -0.2, 0.5], vec![1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 1.0, 1.0]];
        let exact = differences.each_ref().map(|of_users| {
            let sum = |flips: u32| {
                let signed = of_users.iter().enumerate().map(|(user, d)| if flips >> user & 1 == 0 { *d } else { -d });
                signed.sum::<f64>().abs()
            };
            (0..256).filter(|&flips| sum(flips) >= sum(0) - 1e-9).count() as f64 / 256.0
        });
        // By hand: of six differences of 1, one points the other way; 2 (1 + 6) of 64 sign flips are as far.
        assert_eq!(exact[1], 14.0 / 64.0);
        let resamples = 40_000;
        for (p, exact) in p_values(&differences, resamples, 5).into_iter().zip(exact) {
            let standard_error = (exact * (1.0 - exact) / resamples as f64).sqrt();
            assert!((p - exact).abs() < 4.0 * standard_error, "{p}, exactly {exact}");
        }
    }

    #[test]
    fn equal_models_have_a_p_value_of_1() {
        assert_eq!(p_values(&[vec![0.0; 70], vec![0.0; 70]], 200, 0), [1.0, 1.0]);
    }

    #[test]
    fn rounding_does_not_decide_between_equal_sums() {
        // Of 32 sign flips 20 are as far from 0 as what was seen, among them 2 that come out a bit nearer.
        let p = p_values(&[vec![0.1, 0.2, 0.3, -0.6, 0.6]], 40_000, 1)[0];
        assert!((p - 20.0 / 32.0).abs() < 4.0 * (0.625_f64 * 0.375 / 40_000.0).sqrt(), "{p}");
    }

    #[test]
    fn a_seed_gives_the_same_p_values_with_any_number_of_threads() {
        let differences = [(0..200).map(|user| f64::from(user % 7) - 2.5).collect()];
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| p_values(&differences, 700, 3))
        };
        assert_eq!(with(1), with(3));
    }
}
