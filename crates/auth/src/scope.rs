//! Scopes: what a token lets its bearer do (RFC 6749, section 3.3, for their spelling).

use std::fmt;

/// One kind of right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read streams.
    Read,
    /// Create, append to, close and delete streams.
    Write,
    /// Administer the project.
    Manage,
}

/// A set of scopes; it may be empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scopes(u8);

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Manage];

    /// How tokens and `WWW-Authenticate` spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
        }
    }

    /// The scope of this name; names are compared exactly.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Manage => 4,
        }
    }
}

impl Scopes {
    /// The scopes among these names. Others are somebody else's, and mean nothing here: issuers put several services'
    /// scopes into one token.
    #[must_use]
    pub fn among<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        names.into_iter().filter_map(Scope::named).collect()
    }

    /// Whether it holds this one. No scope implies another.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// The scopes that it holds.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_implies_another() {
        for one in Scope::ALL {
            let alone = Scopes::from_iter([one]);
            for other in Scope::ALL {
                assert_eq!(alone.contains(other), one == other, "{one} {other}");
            }
            assert_eq!(alone.to_string(), one.as_str());
        }
    }

    #[test]
    fn names_of_other_services_mean_nothing() {
        let table = [
            ("read", "read"),
            ("write read", "read write"),
            ("openid manage email", "manage"),
            ("READ", ""),
            ("reader write:all", ""),
            ("", ""),
        ];
        for (names, scopes) in table {
            assert_eq!(Scopes::among(names.split(' ')).to_string(), scopes, "{names}");
        }
    }
}
