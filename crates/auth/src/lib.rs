//! Who may do what: projects and their keys, tokens, and the decision.
//!
//! Bytes and a time come in, an answer goes out. Nothing here reads a clock or a file, waits, or knows a socket: what
//! configures projects is parsed from bytes that somebody else has read.
//!
//! | module | what it holds |
//! |---|---|
//! | [`project`], [`projects`] | a project; all of them, and what their tokens allow |
//! | [`document`], [`rekey`](mod@rekey) | projects as TOML; other keys in such a text |
//! | [`key`], [`keys`] | what verifies tokens; in which order |
//! | [`jwks`], [`outbound`] | an issuer's keys, and when they are fetched; which addresses that may lead to |
//! | `der` | keys out of PEM files |
//! | [`json`] | objects of JSON in their one spelling |
//! | [`token`] | JWTs: form, header, claims, and why one does not count |
//! | [`scope`], [`pattern`] | what a token is for: deeds, and streams |
//! | [`access`] | the decision |
//! | [`operator`] | who runs the gateway, and may administer all projects |
//! | [`origin`] | which pages of other origins may see answers |
//! | `cache` | tokens that were verified before |
//! | [`cookie`] | tokens that a browser sends by itself, and when they count |
//! | [`mint`](mod@mint), [`inspect`](mod@inspect) | making tokens, and looking into them |
//! | [`register`] | what was revoked, and projects made at run time: the fold of a log |
//! | [`quota`], [`fair`] | how much projects and principals may ask for; whose turn it is when a pod is nearly full |
//! | [`ticket`] | what stands in the query of a plain `EventSource` instead of a token |
//!
//! # Invariants
//!
//! - A key is for one algorithm. A token is verified with a key only if its header names that algorithm; nothing in a
//!   token brings a key, or says where one is.
//! - No claim is believed before the signature is verified, and what is not understood restricts: a pattern, a critical
//!   header, a member of another type.
//! - Time and revocation are looked at for each request, whatever is remembered.
//! - No error, and no `Debug`, shows a secret, a token, or a part of one.
//! - Without a token, or with one that does not count, no answer depends on whether a project or a stream exists, except by
//!   the origins that a project allows.
//!
//! Signatures are made and verified by `jsonwebtoken` on aws-lc-rs, which rustls brings along in any case; of its reading
//! of tokens nothing is used, because it looks at neither `crit` nor members that stand there twice, and takes the time
//! from the system.

pub mod access;
mod cache;
pub mod cookie;
mod der;
pub mod document;
pub mod fair;
pub mod inspect;
pub mod json;
pub mod jwks;
pub mod key;
pub mod keys;
pub mod mint;
pub mod operator;
pub mod origin;
pub mod outbound;
pub mod pattern;
pub mod project;
pub mod projects;
pub mod quota;
pub mod register;
pub mod rekey;
pub mod scope;
pub mod ticket;
pub mod token;

pub use access::{Act, Refusal, Ruling, decide};
pub use cookie::CookieName;
pub use document::{DocumentError, File};
pub use fair::{Claim, Turn, turn};
pub use inspect::{Inspection, inspect};
pub use jwks::{HostsError, Jwks, JwksCache, JwksError, JwksHosts, JwksUrl};
pub use key::{Algorithm, Key, KeyError, KeyId, SigningKey};
pub use keys::{Keys, KeysError};
pub use mint::{MintError, NewToken, is_credential, mint};
pub use operator::{Operator, OperatorError};
pub use origin::{OriginError, Origins, Sharing};
pub use pattern::{Pattern, PatternError, Streams};
pub use project::{BasinName, Limits, Project, Writers};
pub use projects::{Projects, ProjectsError};
pub use quota::{Asker, Cost, Exceeded, Meter, Principal, Quotas};
pub use register::{Record, Register, RegisterError};
pub use rekey::{RekeyError, Rekeyed, rekey};
pub use scope::{Scope, Scopes};
pub use ticket::{
    Admission, Arrival, IssueError, MAX_TICKET_SECRETS, Purpose, TicketError, TicketHeld, TicketId, TicketSecrets,
    TicketSecretsError, TicketText,
};
pub use token::{Grant, MAX_TOKEN, Moment, TokenError};
