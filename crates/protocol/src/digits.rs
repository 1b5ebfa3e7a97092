//! Unsigned decimal integers as the protocol's headers spell them: digits only, no sign, no space, no exponent.
//!
//! `str::parse` alone will not do, because it takes a leading `+`.

/// `[0-9]+`, leading zeros allowed; `None` for anything else and for what does not fit into 64 bits.
pub(crate) fn lenient(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)?.parse().ok()
}

/// `0|[1-9][0-9]*`: one spelling for each number.
pub(crate) fn canonical(text: &str) -> Option<u64> {
    if text.len() > 1 && text.starts_with('0') {
        return None;
    }
    lenient(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let table = [
            ("0", Some(0), Some(0)),
            ("7", Some(7), Some(7)),
            ("18446744073709551615", Some(u64::MAX), Some(u64::MAX)),
            ("18446744073709551616", None, None),
            ("007", Some(7), None),
            ("00", Some(0), None),
            ("", None, None),
            ("+1", None, None),
            ("-1", None, None),
            ("-0", None, None),
            (" 1", None, None),
            ("1 ", None, None),
            ("1.0", None, None),
            ("1e3", None, None),
            ("0x1", None, None),
            ("1_000", None, None),
            ("\u{0661}", None, None),
        ];
        for (text, any, one) in table {
            assert_eq!(lenient(text), any, "{text:?}");
            assert_eq!(canonical(text), one, "{text:?}");
        }
    }
}
