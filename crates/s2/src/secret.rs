//! Text that must not be shown: tokens and keys.

use std::fmt;

use zeroize::Zeroizing;

/// A token or key. `Debug` shows that there is one, never what it is; its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// It is made of what wipes itself, and of nothing else.
const _: fn(Zeroizing<String>) -> Secret = Secret;

impl Secret {
    /// The secret, for the place that sends or compares it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// 256 random bits, as text.
    pub(crate) fn random() -> Self {
        blake3::Hash::from_bytes(rand::random()).to_hex().to_string().into()
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        secret.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(…)");
    }

    #[test]
    fn two_random_secrets_differ() {
        assert_ne!(Secret::random(), Secret::random());
        assert_eq!(Secret::random().reveal().len(), 64);
    }
}
