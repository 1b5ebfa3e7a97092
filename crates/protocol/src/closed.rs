//! The spelling of `Stream-Closed` (protocol, section 4.1).

/// Whether a value of `Stream-Closed` means that the stream is closed: `true` in any case. Every other value counts as
/// if the header were absent, and is no error.
#[must_use]
pub fn is_closed_value(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_closes_in_any_case() {
        for value in ["true", "TRUE", "True", "tRuE"] {
            assert!(is_closed_value(value), "{value:?}");
        }
        for value in ["", "false", "yes", "1", "on", "t", "true ", " true", "true,true", "truetrue", "\"true\""] {
            assert!(!is_closed_value(value), "{value:?}");
        }
    }
}
