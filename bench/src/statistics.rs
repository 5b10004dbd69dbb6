//! Medians and their intervals, without assumptions on how the values are spread.

/// A median with the interval that holds it with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The median, and the order statistics around it whose ranks the binomial distribution gives: each value is above the
/// true median with probability one half. `values` must not be empty.
pub(crate) fn median(values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let middle = count / 2;
    let value = if count % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    let outside = ranks_outside(count);
    Median { value, low: sorted[outside], high: sorted[count - 1 - outside] }
}

/// Ratios of two lanes, slice by slice.
pub(crate) fn paired(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// The value below which that share of them is. `values` must not be empty.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// How many values may be left out at each end so that the rest holds the median with 95 %.
fn ranks_outside(count: usize) -> usize {
    let mut probability = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = probability;
    let mut outside = 0;
    while below <= 0.025 && outside < count / 2 {
        probability *= (count - outside) as f64 / (outside + 1) as f64;
        below += probability;
        outside += 1;
    }
    outside.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_values_leave_nine_out_at_each_end() {
        // The tabulated interval for n = 30 is from the 10th to the 21st value.
        assert_eq!(ranks_outside(30), 9);
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(median(&values), Median { value: 15.5, low: 10.0, high: 21.0 });
    }

    #[test]
    fn few_values_give_their_whole_span() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Median { value: 2.0, low: 1.0, high: 3.0 });
    }

    #[test]
    fn ratios_are_taken_slice_by_slice() {
        assert_eq!(paired(&[1.0, 4.0], &[2.0, 2.0]), [0.5, 2.0]);
    }
}
