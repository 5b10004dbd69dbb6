//! Paired ratios: what one subject did against another in the same round, so that the machine's mood cancels out.

/// The median of paired ratios and the interval that holds the true median with about 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median of subject ÷ baseline.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of pairs.
    pub pairs: usize,
}

/// Compares two subjects round by round. `None` with fewer than six pairs: no interval can be given for them.
pub fn paired(subject: &[f64], baseline: &[f64]) -> Option<Ratio> {
    let mut ratios: Vec<f64> = subject.iter().zip(baseline).filter(|(_, b)| **b > 0.0).map(|(s, b)| s / b).collect();
    if ratios.len() < 6 {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let (low, high) = interval(ratios.len());
    Some(Ratio { median: median(&ratios), low: ratios[low], high: ratios[high], pairs: ratios.len() })
}

/// The middle of a sorted, non-empty list.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Order statistics around the median with 95 % coverage: the sign test's interval, which asks nothing of the
/// distribution. Exact binomial sums; the largest tail of at most 2.5 % on each side is left out.
fn interval(n: usize) -> (usize, usize) {
    let mut term = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut tail, mut cut) = (term, 0);
    for k in 1..n / 2 {
        if tail > 0.025 {
            break;
        }
        cut = k;
        term *= (n - k + 1) as f64 / k as f64;
        tail += term;
    }
    let low = cut.saturating_sub(1);
    (low, n - 1 - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_sign_tests() {
        // Tables of the sign test: n = 30 leaves out 9 on each side (the 10th and the 21st value), n = 10 leaves out 1.
        assert_eq!(interval(30), (9, 20));
        assert_eq!(interval(10), (1, 8));
        assert_eq!(interval(6), (0, 5));
    }

    #[test]
    fn a_shared_mood_cancels_out() {
        let mood: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i % 7)).collect();
        let subject: Vec<f64> = mood.iter().map(|m| m * 1.2).collect();
        let ratio = paired(&subject, &mood).expect("enough pairs");
        assert!((ratio.median - 1.2).abs() < 1e-9 && (ratio.high - ratio.low).abs() < 1e-9);
    }

    #[test]
    fn too_few_pairs_give_no_answer() {
        assert_eq!(paired(&[1.0; 5], &[1.0; 5]), None);
        assert_eq!(paired(&[1.0; 9], &[0.0; 9]), None);
    }
}
