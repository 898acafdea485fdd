//! Loops over slices of `f32` in the widest vectors of the machine.

use pulp::Arch;

/// Partial sums of a reduction: enough for two vectors of the widest kind.
const LANES: usize = 32;

/// Runs `body` compiled for the machine's vector instructions. What it calls must be inlined into it.
#[inline(always)]
pub(super) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(body)
}

/// `sum(a * b)`, in an order that depends on the length alone.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest value, minus infinity if there is none.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().fold(rest, |most, &x| if x > most { x } else { most })
}

/// Replaces each value by `exp(x - shift)` and gives their sum.
#[inline(always)]
pub(super) fn exp_in_place(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            let value = exp(chunk[lane] - shift);
            chunk[lane] = value;
            lanes[lane] += value;
        }
    }
    let mut rest = 0.0;
    for x in chunks.into_remainder() {
        *x = exp(*x - shift);
        rest += *x;
    }
    lanes.iter().sum::<f32>() + rest
}

/// `sum(exp(x - shift))`.
#[inline(always)]
pub(super) fn sum_of_exp(x: &[f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| exp(x - shift)).sum();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += exp(chunk[lane] - shift);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `exp(x)` within 2 units in the last place, 0 below the smallest normal number (so also for minus infinity) and,
/// where it would be infinite, about the largest number.
///
/// `2^n * p(r)` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`; `p` is the polynomial of the Cephes library. A NaN stays one.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const SMALLEST: f32 = -87.33654;
    const LARGEST: f32 = 88.72283;
    /// Adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x > LARGEST { LARGEST } else { x };
    let bounded = if bounded < SMALLEST { SMALLEST } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // 2^n as two factors, for n may be 128, which no single exponent holds.
    let n = (shifted.to_bits() as i32) - (ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let value = p * power(half) * power(n - half);
    if x < SMALLEST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let error = |i: i32| {
            let x = i as f32 * 0.001_7;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact.log2().floor().exp2();
            (f64::from(exp(x)) - exact).abs() / unit
        };
        let worst = (-51_000..52_000).map(error).fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn exp_has_the_right_ends() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(88.7).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_equal_plain_loops_at_every_length() {
        for length in [0, 1, 31, 32, 33, 100] {
            let a: Vec<f32> = (0..length).map(|i| ((i * 37 % 11) as f32 - 5.0) / 3.0).collect();
            let b: Vec<f32> = (0..length).map(|i| ((i * 17 % 7) as f32 - 3.0) / 2.0).collect();
            let close = |x: f32, y: f32| assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{length}: {x} {y}");
            close(vectorized(|| dot(&a, &b)), a.iter().zip(&b).map(|(a, b)| a * b).sum());
            let plain: f32 = a.iter().map(|a| (a - 0.5).exp()).sum();
            close(vectorized(|| sum_of_exp(&a, 0.5)), plain);
            let mut powers = a.clone();
            close(vectorized(|| exp_in_place(&mut powers, 0.5)), plain);
            powers.iter().zip(&a).for_each(|(power, a)| close(*power, (a - 0.5).exp()));
            assert_eq!(vectorized(|| largest(&a)), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
