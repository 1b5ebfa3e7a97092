//! Who runs the gateway: one credential for the administration of all projects. It is no token of a project, reads and
//! writes no stream, and is compared in constant time.

use std::fmt;

/// The least bytes of the credential.
pub const MIN_OPERATOR: usize = 32;

/// The credential of who runs the gateway. Kept is a hash alone: nothing in memory can be sent in its place.
#[derive(Clone)]
pub struct Operator(blake3::Hash);

/// Why something is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// It is so short that it could be guessed.
    #[error("it has {length} bytes, and needs {MIN_OPERATOR} at least")]
    TooShort {
        /// Its length, in bytes.
        length: usize,
    },
    /// No header could carry it.
    #[error("it holds something else than visible ascii characters")]
    Unsendable,
}

impl Operator {
    /// Whoever sends this.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub fn new(credential: &str) -> Result<Self, OperatorError> {
        if credential.len() < MIN_OPERATOR {
            return Err(OperatorError::TooShort { length: credential.len() });
        }
        if !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OperatorError::Unsendable);
        }
        Ok(Self(blake3::hash(credential.as_bytes())))
    }

    /// Whether this is the credential. Hashes are compared in constant time.
    #[must_use]
    pub fn is(&self, presented: &str) -> bool {
        self.0 == blake3::hash(presented.as_bytes())
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_who_sends_all_of_the_credential() {
        let credential = "0123456789abcdef0123456789abcdef";
        let operator = Operator::new(credential).unwrap();
        assert!(operator.is(credential));
        for other in ["", &credential[1..], &credential[..31], &credential.to_uppercase(), &format!("{credential}0")] {
            assert!(!operator.is(other), "{other}");
        }
        assert_eq!(format!("{operator:?}"), "Operator(…)");
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_none() {
        assert_eq!(Operator::new(&"x".repeat(31)).unwrap_err(), OperatorError::TooShort { length: 31 });
        assert_eq!(Operator::new(&"x ".repeat(16)).unwrap_err(), OperatorError::Unsendable);
        assert_eq!(Operator::new(&"ü".repeat(16)).unwrap_err(), OperatorError::Unsendable);
    }
}
