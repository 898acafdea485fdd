//! Holm's correction of several p values.

/// The adjusted p values, in the order of the raw ones: to reject those of at most .05 makes one false rejection or
/// more with a probability of at most .05, however the tests depend on each other (Holm 1979, "A simple sequentially
/// rejective multiple test procedure").
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0_f64);
    for (smaller, at) in order.into_iter().enumerate() {
        largest = largest.max((p.len() - smaller) as f64 * p[at]).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusted_values_equal_those_by_hand() {
        // 4 * .01 = .04; 3 * .03 = .09; 2 * .04 = .08, not below the one before; 1 * .9.
        assert_eq!(holm(&[0.03, 0.01, 0.9, 0.04]), [3.0 * 0.03, 0.04, 0.9, 3.0 * 0.03]);
        assert_eq!(holm(&[0.7, 0.6]), [1.0, 1.0]);
        assert_eq!(holm(&[0.02]), [0.02]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }
}
