//! Numbers that are equal but for rounding.

/// Each must differ by less than `tolerance` of the largest expected one.
pub fn assert_close<A: Copy + Into<f64>, B: Copy + Into<f64>>(found: &[A], expected: &[B], tolerance: f64) {
    let largest = expected.iter().fold(0.0f64, |most, &value| most.max(value.into().abs()));
    assert!(largest > 0.0 && found.len() == expected.len());
    for (&found, &expected) in found.iter().zip(expected) {
        let (found, expected): (f64, f64) = (found.into(), expected.into());
        assert!((found - expected).abs() < tolerance * largest, "{found} instead of {expected} (largest {largest})");
    }
}
