/// The reward of a sample, from the log-probabilities of its target's tokens.
pub type Reward = Box<dyn Fn(&[f32]) -> f64 + Send + Sync>;

/// Minus the perplexity of the target: `-exp(-mean log-probability)`.
pub fn negative_perplexity(log_probs: &[f32]) -> f64 {
    let sum: f64 = log_probs.iter().map(|&value| f64::from(value)).sum();
    -(-sum / log_probs.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::negative_perplexity;

    #[test]
    fn a_certain_target_earns_minus_one_and_a_coin_toss_a_token_minus_two() {
        assert_eq!(negative_perplexity(&[0.0, 0.0]), -1.0);
        let half = 0.5f32.ln();
        assert!((negative_perplexity(&[half, half, half]) + 2.0).abs() < 1e-6);
    }
}
