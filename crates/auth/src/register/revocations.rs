//! What one project has revoked.

use std::collections::BTreeMap;

/// The end of a revocation that has none.
pub(super) const FOREVER: u64 = u64::MAX;

/// What is kept of a token's id: half a hash, so that ids of any length take the same room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenPrint(pub(super) [u8; 16]);

/// The revocations of a project. What is revoked stays so until it has expired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Revocations {
    /// No token counts that was issued before this, in seconds since the Unix epoch.
    pub(super) before: u64,
    /// Tokens that do not count, and when that needs no remembering any more.
    pub(super) tokens: BTreeMap<TokenPrint, u64>,
    /// Whether it is of a project that was removed, and neither put again nor spoken of since.
    pub(super) is_removed: bool,
}

impl TokenPrint {
    pub(super) fn of(id: &str) -> Self {
        let mut print = [0; 16];
        blake3::Hasher::new_derive_key("tailwater print of a token's id")
            .update(id.as_bytes())
            .finalize_xof()
            .fill(&mut print);
        Self(print)
    }
}

impl Revocations {
    pub(super) fn cover(&self, id: Option<&str>, issued_at: u64) -> bool {
        issued_at < self.before || id.is_some_and(|id| self.tokens.contains_key(&TokenPrint::of(id)))
    }

    pub(super) fn raise(&mut self, before: u64) {
        self.before = self.before.max(before);
    }
}
