//! Ages as kubectl writes them, and the time of day.

use std::time::{Duration, SystemTime};

use config::api::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// `42s`, `5m30s`, `59m`, `3h20m`, `23h`, `3d4h`, `40d`, `2y10d`: at most two units, fewer as it grows.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: u64, big_unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        small => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, 'y', days % 365, 'd'),
    }
}

/// `12:00:01.250Z`, UTC.
pub(crate) fn of_day(time: Timestamp) -> String {
    time.to_string().split_once('T').map(|(_, clock)| clock.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (3540, "59m"),
            (10_799, "179m"),
            (12_000, "3h20m"),
            (82_800, "23h"),
            (172_800, "2d"),
            (273_600, "3d4h"),
            (3_456_000, "40d"),
            (63_936_000, "2y10d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(of_day(Timestamp::from_millis(43_201_250)), "12:00:01.250Z");
    }
}
