use burn::tensor::Tensor;

/// Divergences are reported as at most this, so that sums over micro-batches and ranks stay finite.
pub(super) const LARGEST_KL: f64 = 1e30;

/// The loss of some rollouts, in parts; each is a sum over their tokens divided by the tokens of the whole batch.
#[derive(Debug)]
pub struct PolicyLoss {
    /// What is minimised, `[1]`.
    pub loss: Tensor<1>,
    /// The estimate of the KL divergence within it, before its weight, `[1]`; absent without reference.
    pub kl: Option<Tensor<1>>,
    /// The probability ratio, `[1]`, without gradient.
    pub ratio: Tensor<1>,
    /// The tokens whose ratio is outside the clip range, `[1]`: a share, or their number if `total` is 1.
    pub clipped: Tensor<1>,
}

/// By what the loss is clipped, and the weight of the divergence in it.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    /// The ratio is clipped below `1 - low`.
    pub low: f64,
    /// The ratio is clipped above `1 + high`.
    pub high: f64,
    /// Weight of the KL divergence to the reference.
    pub kl: f64,
}

impl PolicyLoss {
    /// Its parts as metrics, the divergence under the name of `kl`.
    pub(super) fn metrics(self, kl: &'static str) -> impl Iterator<Item = (&'static str, Tensor<1>)> {
        let metrics = [("loss", self.loss), ("ratio", self.ratio), ("clip_share", self.clipped)];
        metrics.into_iter().chain(self.kl.map(|value| (kl, value)))
    }
}

/// The clipped policy loss (arXiv 1707.06347) with the k3 estimate of the KL divergence to a reference (arXiv
/// 2402.03300): `-min(ratio A, clip(ratio) A) + kl (exp(d) - d - 1)`, `d = reference - log_probs`, `ratio =
/// exp(log_probs - old)`.
///
/// All tensors are `[tokens]`; `advantages` repeats a rollout's advantage for each of its tokens; `total` counts the
/// tokens of the whole batch.
pub fn policy_loss(
    log_probs: Tensor<1>,
    old: Tensor<1>,
    advantages: Tensor<1>,
    reference: Option<Tensor<1>>,
    total: usize,
    clip: Clip,
) -> PolicyLoss {
    let ratio = (log_probs.clone() - old).exp();
    let (lower, upper) = (1.0 - clip.low, 1.0 + clip.high);
    let mean = |x: Tensor<1>| x.sum().div_scalar(total as f64);
    let plain = ratio.clone().inner();
    let is_outside = plain.clone().lower_elem(lower).bool_or(plain.clone().greater_elem(upper));
    let (mean_ratio, outside) = (mean(plain), mean(is_outside.float()));
    let clipped = ratio.clone().clamp(lower, upper);
    let gain = (ratio * advantages.clone()).min_pair(clipped * advantages);
    let mut loss = mean(gain).neg();
    let Some(reference) = reference else {
        return PolicyLoss { loss, kl: None, ratio: mean_ratio, clipped: outside };
    };
    let difference = reference - log_probs;
    let kl = mean((difference.clone().exp() - difference).sub_scalar(1.0));
    // Without a weight it may be infinite; it is capped, so that the guard stops the run, not the check for NaN.
    if clip.kl > 0.0 {
        loss = loss + kl.clone().mul_scalar(clip.kl);
    }
    PolicyLoss { loss, kl: Some(kl.clamp_max(LARGEST_KL)), ratio: mean_ratio, clipped: outside }
}
