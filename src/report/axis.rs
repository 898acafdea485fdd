//! An axis: where values lie on it, and round numbers to read them by.

/// Ticks that an axis has at most, about.
const TICKS: f64 = 5.0;
/// Larger values lie at the end of the axis; their differences would overflow.
const LARGEST: f64 = 1e300;
/// An axis is logarithmic where its largest value is more than this many times its smallest.
const LARGEST_RATIO: f64 = 8.0;
/// A logarithmic axis over more powers of ten than this has ticks at powers of ten only.
const FINE_DECADES: f64 = 2.0;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    /// For positive values.
    Log,
    /// For negative values, the largest at the top.
    NegativeLog,
}

impl Scale {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            Self::NegativeLog => -(-value).log10(),
        }
    }
}

/// An axis with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Values and what is written beside them, the smallest first.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that holds all of the values: logarithmic where they all have one sign and lie far apart.
    pub fn fit(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        match (low, high) {
            (low, high) if low > 0.0 && high / low > LARGEST_RATIO => Self::logarithmic(Scale::Log, low, high),
            (low, high) if high < 0.0 && low / high > LARGEST_RATIO => {
                Self::logarithmic(Scale::NegativeLog, -high, -low)
            }
            _ => Self::linear(low, high),
        }
    }

    /// A logarithmic axis for sizes from `low` to `high`.
    fn logarithmic(scale: Scale, low: f64, high: f64) -> Self {
        let decades = (high / low).log10();
        let sizes = if decades > FINE_DECADES {
            let step = (decades / TICKS).ceil();
            let (first, last) = ((low.log10() / step).floor(), (high.log10() / step).ceil());
            (0..=(last - first) as i32).map(|i| 10f64.powf((first + f64::from(i)) * step)).collect()
        } else {
            round_numbers(low, high)
        };
        let signed = |size: f64| if scale == Scale::NegativeLog { -size } else { size };
        let mut ticks: Vec<(f64, String)> =
            sizes.into_iter().map(|size| (signed(size), number(signed(size), 0))).collect();
        ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let [low, high] = [ticks[0].0, ticks[ticks.len() - 1].0].map(|end| scale.of(end));
        Self { scale, low, high, ticks }
    }

    /// A linear axis from zero to the largest value, with ticks within.
    pub fn up_to_largest(values: impl IntoIterator<Item = f64>) -> Self {
        let largest = range(values).1;
        let axis = Self::linear(0.0, largest);
        let high = if largest > 0.0 { largest } else { axis.high };
        let ticks = axis.ticks.into_iter().filter(|(value, _)| *value <= high * (1.0 + 1e-9)).collect();
        Self { high, ticks, ..axis }
    }

    /// A linear axis from zero that holds all of the values, none of them negative.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        Self::linear(0.0, range(values).1)
    }

    /// An axis with names in equal distances, at 0, 1, ...
    pub fn named(names: &[String]) -> Self {
        let ticks = names.iter().enumerate().map(|(at, name)| (at as f64, name.clone())).collect();
        Self { scale: Scale::Linear, low: -0.5, high: names.len().max(1) as f64 - 0.5, ticks }
    }

    fn linear(low: f64, high: f64) -> Self {
        // A single value gets room around it.
        let (low, high) = match low {
            _ if high > low => (low, high),
            0.0 => (0.0, 1.0),
            _ => (low - 0.1 * low.abs(), low + 0.1 * low.abs()),
        };
        let step = round_step((high - low) / TICKS);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let decimals = (-step.log10()).ceil().clamp(0.0, 12.0) as usize;
        let tick = |i: usize| {
            let value = (first + i as f64) * step;
            (value, number(value, decimals))
        };
        let ticks = (0..=(last - first) as usize).map(tick).collect();
        Self { scale: Scale::Linear, low: first * step, high: last * step, ticks }
    }

    /// Where a value lies: 0 at the beginning of the axis, 1 at its end.
    pub fn place(&self, value: f64) -> f64 {
        (self.scale.of(value.clamp(-LARGEST, LARGEST)) - self.low) / (self.high - self.low)
    }

    /// Whether equal distances are equal ratios.
    pub fn is_logarithmic(&self) -> bool {
        self.scale != Scale::Linear
    }
}

/// The smallest and the largest value; 0 and 1 if there is none.
fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let values = values.into_iter().filter(|value| value.is_finite()).map(|value| value.clamp(-LARGEST, LARGEST));
    let widen = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    match values.fold((f64::INFINITY, f64::NEG_INFINITY), widen) {
        (low, high) if low <= high => (low, high),
        _ => (0.0, 1.0),
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// 1, 2 and 5 times powers of ten, from the last that is not above `low` to the first that is not below `high`.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let all: Vec<f64> =
        (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power))).collect();
    let from = all.iter().rposition(|value| *value <= low * (1.0 + 1e-9)).unwrap_or(0);
    let to = all.iter().position(|value| *value >= high * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
    all[from..=to].to_vec()
}

/// A number as people write it: with commas between thousands, with an exponent where it is very large or small.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e6).contains(&size) {
        return format!("{value:.1e}").replace(".0e", "e").replace('-', "−");
    }
    // A power of ten below one needs its own decimals.
    let decimals = if value != 0.0 && size < 1.0 { decimals.max((-size.log10()).ceil() as usize) } else { decimals };
    let text = format!("{size:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits: Vec<char> = whole.chars().collect();
    let mut grouped = String::new();
    for (at, digit) in digits.iter().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(*digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_around_the_values() {
        assert_eq!(labels(&Axis::fit([0.31, 0.95])), ["0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::fit([1.0, 8100.0, 30.0])), ["1", "10", "100", "1,000", "10,000"]);
        assert_eq!(labels(&Axis::fit([0.31, 6.0])), ["0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(&Axis::fit([-2.0, -900.0])), ["−1,000", "−100", "−10", "−1"]);
        assert_eq!(labels(&Axis::fit([-1.2, -11.0])), ["−20", "−10", "−5", "−2", "−1"]);
        assert_eq!(labels(&Axis::from_zero([140.0])), ["0", "50", "100", "150"]);
        assert_eq!(labels(&Axis::up_to_largest([140.0])), ["0", "50", "100"]);
        assert_eq!(labels(&Axis::fit([-1.0, 300.0])), ["−100", "0", "100", "200", "300"]);
        assert_eq!(labels(&Axis::from_zero([])), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::from_zero([0.0])), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn a_logarithmic_axis_has_equal_ratios_at_equal_distances() {
        let axis = Axis::fit([1.0, 10_000.0]);
        assert!((axis.place(100.0) - 0.5).abs() < 1e-12);
        let axis = Axis::fit([-1.0, -10_000.0]);
        assert!((axis.place(-100.0) - 0.5).abs() < 1e-12 && axis.place(-1.0) > axis.place(-2.0));
    }

    #[test]
    fn numbers_are_written_for_people() {
        let written = [(234567.0, 0), (-0.5, 2), (0.001, 0), (3.4e38, 0), (2e6, 0), (1e-9, 3), (12.3456, 1)];
        let written = written.map(|(value, decimals)| number(value, decimals));
        assert_eq!(written, ["234,567", "−0.50", "0.001", "3.4e38", "2e6", "1e−9", "12.3"]);
    }

    proptest! {
        #[test]
        fn every_value_lies_on_its_axis(values in prop::collection::vec(-f64::MAX..f64::MAX, 1..20), exponent in -300i32..1) {
            let scaled: Vec<f64> = values.iter().map(|value| value * 10f64.powi(exponent)).collect();
            let sizes: Vec<f64> = scaled.iter().map(|value| value.abs()).collect();
            for (axis, values) in [
                (Axis::fit(scaled.iter().copied()), &scaled),
                (Axis::fit(sizes.iter().copied()), &sizes),
                (Axis::from_zero(sizes.iter().copied()), &sizes),
                (Axis::up_to_largest(sizes.iter().copied()), &sizes),
            ] {
                prop_assert!((2..20).contains(&axis.ticks.len()), "{axis:?}");
                for &value in values {
                    let place = axis.place(value);
                    prop_assert!((-1e-6..=1.0 + 1e-6).contains(&place), "{value} at {place} of {axis:?}");
                }
            }
        }
    }
}
