//! The few fields of an X.509 certificate (RFC 5280 §4.1) that neither rustls nor webpki hands out: who issued whom, and
//! until when. Signatures, keys and names are rustls's business.

/// What is read from a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    /// The issuer's name, DER.
    pub(super) issuer: &'a [u8],
    /// The subject's name, DER.
    pub(super) subject: &'a [u8],
    /// Seconds since 1970 from which it is valid.
    pub(super) not_before: i64,
    /// Seconds since 1970 until which it is valid.
    pub(super) not_after: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Reads them; `None` if the bytes are no certificate.
pub(super) fn read(certificate: &[u8]) -> Option<Fields<'_>> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(outer, SEQUENCE)?;
    let body = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_serial, body) = element(body, INTEGER)?;
    let (_algorithm, body) = element(body, SEQUENCE)?;
    let (issuer, body) = element(body, SEQUENCE)?;
    let (validity, body) = element(body, SEQUENCE)?;
    let (subject, _) = element(body, SEQUENCE)?;
    let (not_before, validity) = time(validity)?;
    let (not_after, _) = time(validity)?;
    Some(Fields { issuer, subject, not_before, not_after })
}

/// The content of a DER element with that tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let &[found, first, ref rest @ ..] = bytes else { return None };
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    if length.is_empty() || length.len() > 4 {
        return None;
    }
    rest.split_at_checked(length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
}

/// RFC 5280 §4.1.2.5: UTCTime with two digits of the year up to 2049, GeneralizedTime from 2050 on, both in Zulu time.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, year) = if let Some((text, rest)) = element(bytes, UTC_TIME) {
        let short = number(text.get(..2)?)?;
        (text.get(2..)?, rest, if short < 50 { 2000 + short } else { 1900 + short })
    } else {
        let (text, rest) = element(bytes, GENERALIZED_TIME)?;
        (text.get(4..)?, rest, number(text.get(..4)?)?)
    };
    let part = |at: usize| text.get(at..at + 2).and_then(number);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if text.get(10..)? != b"Z" || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 in the Gregorian calendar; the year begins in March so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2026, 11, 22), 20_779);
        assert_eq!(days(2100, 3, 1), 47_541);
    }

    #[test]
    fn both_forms_of_time() {
        let utc = [&[UTC_TIME, 13][..], b"491231235959Z"].concat();
        assert_eq!(time(&utc).unwrap().0, 2_524_607_999);
        let long = [&[GENERALIZED_TIME, 15][..], b"20500101000000Z"].concat();
        assert_eq!(time(&long).unwrap().0, 2_524_608_000);
        let local = [&[UTC_TIME, 17][..], b"491231235959+0100"].concat();
        assert_eq!(time(&local), None);
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        assert_eq!(element(&[SEQUENCE, 2, 0], SEQUENCE), None);
        assert_eq!(element(&[SEQUENCE, 0x84, 255, 255, 255, 255], SEQUENCE), None);
        assert_eq!(element(&[SEQUENCE, 0x80, 0, 0], SEQUENCE), None, "indefinite length is not DER");
        assert_eq!(element(&[SEQUENCE, 0x81, 1, 7, 8], SEQUENCE), Some((&[7][..], &[8][..])));
    }
}
