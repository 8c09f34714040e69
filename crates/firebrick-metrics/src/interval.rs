//! How far a measured fraction may be from the true one.

/// 97.5 % quantile of the normal distribution: two-sided 95 %.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// Wilson score interval of `correct / total` at 95 % confidence, both ends in `[0, 1]`.
///
/// Wilson 1927. statsmodels is the reference (`proportion_confint(correct, total, method="wilson")`);
/// scikit-learn has no counterpart. `None` when nothing was seen or `correct > total`.
///
/// ```
/// use firebrick_metrics::interval::wilson_interval;
///
/// let (low, high) = wilson_interval(80, 100).unwrap();
/// assert!((low - 0.7112).abs() < 1e-4 && (high - 0.8666).abs() < 1e-4);
/// assert_eq!(wilson_interval(0, 0), None);
/// ```
pub fn wilson_interval(correct: u64, total: u64) -> Option<(f64, f64)> {
    if total == 0 || correct > total {
        return None;
    }
    let n = total as f64;
    let p = correct as f64 / n;
    let shrink = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(((centre - half).max(0.0), (centre + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(correct: u64, total: u64, low: f64, high: f64) {
        let (a, b) = wilson_interval(correct, total).unwrap();
        assert!((a - low).abs() < 1e-9 && (b - high).abs() < 1e-9, "{a} {b}");
    }

    /// The ends solve `(p - x)^2 = z^2 x (1 - x) / n`: for p = 0 that is `z^2 / (n + z^2)`.
    #[test]
    fn ends_that_have_a_closed_form() {
        let z2 = Z * Z;
        check(0, 10, 0.0, z2 / (10.0 + z2));
        check(10, 10, 10.0 / (10.0 + z2), 1.0);
    }

    #[test]
    fn ends_solve_the_defining_equation() {
        for (correct, total) in [(1, 3), (80, 100), (719, 872)] {
            let (low, high) = wilson_interval(correct, total).unwrap();
            let (n, p) = (total as f64, correct as f64 / total as f64);
            for x in [low, high] {
                assert!(((p - x).powi(2) - Z * Z * x * (1.0 - x) / n).abs() < 1e-12);
            }
        }
        assert_eq!(wilson_interval(2, 1), None);
    }
}
