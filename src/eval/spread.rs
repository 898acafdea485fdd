/// The mean of some values, and of several the standard deviation of the population that they are a sample of.
pub(crate) fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = || values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    match values.len() {
        0 => None,
        1 => Some((mean, None)),
        _ => Some((mean, Some((squares() / (n - 1.0)).sqrt()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[]), None);
        assert_eq!(mean_and_deviation(&[3.0]), Some((3.0, None)));
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0))));
    }
}
