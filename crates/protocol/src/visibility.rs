//! `Stream-Visibility`: who may see a stream, as its creator says. An extension of the protocol.

use crate::bad_request::{BadRequest, Excerpt};

/// Who may see a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everybody, so shared caches may keep it.
    Public,
    /// Who has a right to; only their own caches may keep it.
    Private,
}

impl Visibility {
    /// Parses a value of the header, in any case.
    ///
    /// # Errors
    /// [`BadRequest::Visibility`] for any other word: whoever meant `private` must not end up with something else.
    pub fn parse(value: &str) -> Result<Self, BadRequest> {
        [Self::Public, Self::Private]
            .into_iter()
            .find(|visibility| value.eq_ignore_ascii_case(visibility.as_str()))
            .ok_or_else(|| BadRequest::Visibility { got: Excerpt::new(value) })
    }

    /// The header's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_words_are_taken() {
        for visibility in [Visibility::Public, Visibility::Private] {
            assert_eq!(Visibility::parse(visibility.as_str()), Ok(visibility));
            assert_eq!(Visibility::parse(&visibility.as_str().to_ascii_uppercase()), Ok(visibility));
        }
        for value in ["", "true", "privat", "private ", "public, private", "hidden"] {
            assert_eq!(Visibility::parse(value), Err(BadRequest::Visibility { got: Excerpt::new(value) }), "{value:?}");
        }
    }
}
