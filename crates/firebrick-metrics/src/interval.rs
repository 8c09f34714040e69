//! How far a measured fraction, or a count, may be from the true one.

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

/// Exact interval of the mean of a Poisson distribution at 95 %, after `count` events: divide both ends by the hours (or
/// whatever was watched) to have a rate.
///
/// Garwood 1936. `scipy.stats.chi2.ppf(0.025, 2 * n) / 2` and `chi2.ppf(0.975, 2 * n + 2) / 2` are the reference.
///
/// ```
/// use firebrick_metrics::interval::poisson_interval;
///
/// let (low, high) = poisson_interval(0); // nothing in an hour: up to 3.7 an hour are as likely as 1 in 40
/// assert!(low == 0.0 && (high - 40f64.ln()).abs() < 1e-9);
/// ```
pub fn poisson_interval(count: u64) -> (f64, f64) {
    const TAIL: f64 = 0.025;
    // Beyond 40 deviations there is nothing in double precision.
    let most = count as f64 + 40.0 * (count as f64 + 1.0).sqrt();
    let low = match count {
        0 => 0.0,
        _ => falling(|mean| at_most(count - 1, mean) - (1.0 - TAIL), count as f64),
    };
    (low, falling(|mean| at_most(count, mean) - TAIL, most))
}

/// Probability of `count` events or fewer where `mean` are expected.
fn at_most(count: u64, mean: f64) -> f64 {
    if mean == 0.0 {
        return 1.0;
    }
    let mut log = -mean;
    let mut sum = log.exp();
    for k in 1..=count {
        log += (mean / k as f64).ln();
        sum += log.exp();
    }
    sum
}

/// Where a falling function crosses zero in `[0, most]`.
fn falling(f: impl Fn(f64) -> f64, most: f64) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        match f(middle) > 0.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    high
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

    /// `scipy.stats.chi2`, 1.17.
    #[test]
    fn means_of_a_poisson_distribution() {
        for (count, low, high) in [
            (1, 0.025317807984289876, 5.571643390938898),
            (7, 2.8143630515198654, 14.422675361702376),
            (100, 81.36399125092314, 121.62679379242638),
            (5000, 4862.359188694899, 5140.5489485350045),
        ] {
            let (a, b) = poisson_interval(count);
            assert!((a - low).abs() < 1e-6 * high && (b - high).abs() < 1e-6 * high, "{a} {b}");
        }
    }
}
