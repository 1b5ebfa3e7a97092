//! Who may do what: one function from what is asked and who asks to an answer.
//!
//! | what | without a token | `read` | `write` | `manage` |
//! |---|---|---|---|---|
//! | read a private stream, or none | 401 | yes | where the project says so, else 403 | 403 |
//! | read a public stream | yes | yes | yes | yes |
//! | create, append, close, delete | 401 | 403 | yes | 403 |
//! | fork a stream of the same project | 401 | 403 | with a right to read the source | 403 |
//! | administer the project | 401 | 403 | 403 | yes |
//!
//! A token that is for some streams only reads others as if they were not there (404, unless they are public), writes none
//! of them (403), and administers nothing. A token that does not count is refused even where none is needed: its bearer
//! would not notice otherwise. No answer depends on whether a stream exists that the asker may not read.

use crate::{
    pattern::Streams,
    project::Writers,
    scope::Scope,
    ticket::TicketError,
    token::{Grant, TokenError},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'s> {
    /// To read this stream, or what it is like.
    Read(&'s str),
    /// To create this stream, append to it, close or delete it.
    Write(&'s str),
    /// To administer the project.
    Manage,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Yes.
    Allowed,
    /// Yes if the stream is there and public, else this.
    IfPublic(Refusal),
    /// No.
    Refused(Refusal),
}

/// Why somebody may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows who asks.
    #[error("this needs a token")]
    NoToken,
    /// The token does not count.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The ticket does not count.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The token is for other things.
    #[error("this needs a token with the scope `{0}`")]
    Scope(Scope),
    /// The token is for other streams.
    #[error("the token is for other streams")]
    Stream,
    /// The stream is not to be seen, which looks as if it were not there.
    #[error("the stream does not exist")]
    Hidden,
}

/// Decides. `grant` is what the asker's token was verified to allow in the project of the stream, if there is one.
#[must_use]
pub fn decide(act: Act<'_>, grant: Option<&Grant>, writers: Writers) -> Ruling {
    match act {
        Act::Read(stream) => match refused_read(stream, grant, writers) {
            None => Ruling::Allowed,
            Some(refusal) => Ruling::IfPublic(refusal),
        },
        Act::Write(stream) => refused(grant, Scope::Write, |streams| streams.contain(stream)),
        Act::Manage => refused(grant, Scope::Manage, |streams| *streams == Streams::All),
    }
}

fn refused_read(stream: &str, grant: Option<&Grant>, writers: Writers) -> Option<Refusal> {
    let Some(grant) = grant else { return Some(Refusal::NoToken) };
    let writes = writers == Writers::ReadToo && grant.scopes.contains(Scope::Write);
    if !grant.scopes.contains(Scope::Read) && !writes {
        return Some(Refusal::Scope(Scope::Read));
    }
    (!grant.streams.contain(stream)).then_some(Refusal::Hidden)
}

fn refused(grant: Option<&Grant>, needed: Scope, is_for: impl FnOnce(&Streams) -> bool) -> Ruling {
    match grant {
        None => Ruling::Refused(Refusal::NoToken),
        Some(grant) if !grant.scopes.contains(needed) => Ruling::Refused(Refusal::Scope(needed)),
        Some(grant) if !is_for(&grant.streams) => Ruling::Refused(Refusal::Stream),
        Some(_) => Ruling::Allowed,
    }
}

impl Refusal {
    /// The status of its answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoToken | Self::Token(_) | Self::Ticket(_) => 401,
            Self::Scope(_) | Self::Stream => 403,
            Self::Hidden => 404,
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_protocol::ProjectId;

    use super::*;
    use crate::{key::KeyPrint, scope::Scopes};

    fn grant(scopes: &str, streams: Option<&[&str]>) -> Grant {
        Grant {
            project: ProjectId::default(),
            scopes: Scopes::among(scopes.split(' ')),
            streams: streams.map_or(Streams::All, |only| Streams::only(only.iter().copied()).unwrap()),
            expires_at: 1,
            not_before: None,
            issued_at: None,
            key: KeyPrint([0; 8]),
            id: None,
        }
    }

    /// What the table of this module says, cell by cell: `+` yes, `p` only if public, with the status of the refusal.
    #[test]
    fn each_right_is_for_what_it_says() {
        let own: &[&str] = &["s", "t/*"];
        let others: &[&str] = &["other"];
        let table = [
            // who, streams: read, read where writers read, write, manage
            (None, None, ["p401", "p401", "401", "401"]),
            (Some(""), None, ["p403", "p403", "403", "403"]),
            (Some("read"), None, ["+", "+", "403", "403"]),
            (Some("write"), None, ["p403", "+", "+", "403"]),
            (Some("manage"), None, ["p403", "p403", "403", "+"]),
            (Some("read write"), None, ["+", "+", "+", "403"]),
            (Some("read write manage"), None, ["+", "+", "+", "+"]),
            (Some("read"), Some(own), ["+", "+", "403", "403"]),
            (Some("write"), Some(own), ["p403", "+", "+", "403"]),
            (Some("read write manage"), Some(own), ["+", "+", "+", "403"]),
            (Some("read"), Some(others), ["p404", "p404", "403", "403"]),
            (Some("write"), Some(others), ["p403", "p404", "403", "403"]),
            (Some("read write manage"), Some(others), ["p404", "p404", "403", "403"]),
            (Some("read write manage"), Some(&[]), ["p404", "p404", "403", "403"]),
        ];
        for (scopes, streams, cells) in table {
            let grant = scopes.map(|scopes| grant(scopes, streams));
            let ruled = |act, writers| match decide(act, grant.as_ref(), writers) {
                Ruling::Allowed => "+".to_owned(),
                Ruling::IfPublic(refusal) => format!("p{}", refusal.status()),
                Ruling::Refused(refusal) => refusal.status().to_string(),
            };
            let strict = Writers::WriteOnly;
            let ruled = [
                ruled(Act::Read("s"), strict),
                ruled(Act::Read("s"), Writers::ReadToo),
                ruled(Act::Write("s"), strict),
                ruled(Act::Manage, strict),
            ];
            assert_eq!(ruled, cells, "{scopes:?} {streams:?}");
        }
    }
}
