//! The keys that a project has itself: the first signs, all verify. So a key is rotated by adding its successor, promoting that once
//! everybody knows it, and removing the old one when the last token that it signed has expired.

use crate::key::{Key, KeyId};

/// The most keys of a project. A token without a key's id is tried with each of its algorithm.
pub const MAX_KEYS: usize = 8;

/// Keys, in order: at least one, unless the project has those of an [issuer](crate::jwks) alone.
#[derive(Debug, Clone)]
pub struct Keys(Vec<Key>);

/// Why keys cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Without a key nothing could be verified.
    #[error("a project has at least one key, and the last one stays")]
    Last,
    /// There are too many.
    #[error("a project has at most {MAX_KEYS} keys")]
    TooMany,
    /// Two have the same id.
    #[error("two keys have the id `{id}`")]
    Repeated {
        /// The id.
        id: KeyId,
    },
    /// None has this id.
    #[error("no key has the id `{id}`")]
    Unknown {
        /// The id.
        id: KeyId,
    },
}

impl Keys {
    /// Keys in this order.
    ///
    /// # Errors
    /// [`KeysError::Last`] without any, [`KeysError::TooMany`], [`KeysError::Repeated`].
    pub fn new(keys: Vec<Key>) -> Result<Self, KeysError> {
        if keys.is_empty() {
            return Err(KeysError::Last);
        }
        let mut kept = Self(Vec::with_capacity(keys.len()));
        for key in keys {
            kept.add(key)?;
        }
        Ok(kept)
    }

    /// No keys of its own, for a project whose issuer has some.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// The key that signs, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<&Key> {
        self.0.first()
    }

    /// All keys: each verifies.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    fn add(&mut self, key: Key) -> Result<(), KeysError> {
        if self.0.len() == MAX_KEYS {
            return Err(KeysError::TooMany);
        }
        if let Some(id) = key.id().filter(|id| self.0.iter().any(|other| other.id() == Some(id))) {
            return Err(KeysError::Repeated { id: id.clone() });
        }
        self.0.push(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    fn key(text: &str) -> Key {
        Key::secret(Some(id(text)), &[7; 32]).unwrap()
    }

    #[test]
    fn the_first_signs_and_all_verify() {
        let keys = Keys::new(vec![key("new"), key("old")]).unwrap();
        assert_eq!(keys.first().and_then(Key::id), Some(&id("new")));
        assert_eq!(keys.iter().filter_map(Key::id).collect::<Vec<_>>(), [&id("new"), &id("old")]);
    }

    #[test]
    fn there_is_a_key_or_none_is_said_to_be() {
        assert_eq!(Keys::new(Vec::new()).unwrap_err(), KeysError::Last);
        assert!(Keys::none().first().is_none());
    }

    #[test]
    fn ids_are_told_apart_and_keys_are_few() {
        assert_eq!(Keys::new(vec![key("a"), key("a")]).unwrap_err(), KeysError::Repeated { id: id("a") });
        let many = |count: usize| (0..count).map(|n| key(&n.to_string())).collect();
        assert!(Keys::new(many(MAX_KEYS)).is_ok());
        assert_eq!(Keys::new(many(MAX_KEYS + 1)).unwrap_err(), KeysError::TooMany);
        let nameless = || Key::secret(None, &[7; 32]).unwrap();
        assert!(Keys::new(vec![nameless(), nameless()]).is_ok());
    }
}
