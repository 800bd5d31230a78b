//! Decimal numbers, compared by value, for IS, DS and binary numbers. `01`, `1.0` and `1e0` are the
//! same number.

/// An exact decimal number: `0.digits` times ten to the power of `exponent`. The digits have no
/// zeros at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Parses what PS3.5 6.2 allows in IS and DS, and the text that Rust writes for floating point
    /// numbers.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            // Seven digits of exponent are more than any real number has, and too few to overflow.
            Some(at) => (unsigned.get(..at)?, small_number(unsigned.get(at + 1..)?)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.len() + fraction.len() == 0 || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut digits = String::with_capacity(whole.len() + fraction.len());
        digits.push_str(whole);
        digits.push_str(fraction);
        let leading = digits.len() - digits.trim_start_matches('0').len();
        digits.drain(..leading);
        digits.truncate(digits.trim_end_matches('0').len());
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Self { negative, digits, exponent: exponent + point })
    }
}

fn small_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 7 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_are_equal_however_written() {
        for same in [
            &["1", "01", "+1", "1.0", "1e0", "0.1E1", "10e-1", "1."][..],
            &["0", "-0", "00", "0.0", "0e5", ".0"],
            &["-12.5", "-012.50", "-1.25e+1"],
            &["1200", "1.2e3", "12e2"],
            &["0.001", ".001", "1e-3"],
        ] {
            for text in same {
                assert_eq!(Decimal::parse(text), Decimal::parse(same[0]), "{text}");
                assert!(Decimal::parse(text).is_some(), "{text}");
            }
        }
        assert_ne!(Decimal::parse("1"), Decimal::parse("10"));
        assert_ne!(Decimal::parse("1"), Decimal::parse("-1"));
        assert_ne!(Decimal::parse("9007199254740993"), Decimal::parse("9007199254740992"));
    }

    #[test]
    fn other_text_is_no_number() {
        for bad in ["", "+", "-", ".", "e5", "1e", "1e12345678", "1 2", "0x1", "１", "--1", "1.2.3", "NaN", "inf"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }
}
