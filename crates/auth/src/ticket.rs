//! Tickets: what a plain `EventSource`, which can set no header, brings in the query of its URL instead of a token.
//!
//! A ticket lets its bearer read one stream, from pages of one origin, until its token would have expired and for an hour
//! at most. It has an id of its own, and names the `jti` of the token that it was issued for: revoking either ends it.
//!
//! ```text
//! base64url(version 1, id 9 bytes, print of the token's key 8 bytes, issued, expires, the token's issue, its jti?)
//! ‖ base64url(HMAC-SHA256), which is always 43 characters
//! ```
//!
//! **What is signed** is more than what is carried: a sentence that stands before no token, the project, the stream, the
//! origin, then what is carried. Each is known from the request, so the ticket stays short, and there is nothing in it that
//! could be believed in place of what is asked for. A token is never a ticket, because it has dots; a ticket is never a
//! token, because it has none, and no signature of the one verifies the other.
//!
//! **Who signs**: the first key of the project where that is a secret. Where it is a public key, or there is none, the
//! gateway has nothing of the project's to sign with, so it takes a secret of its own ([`TicketSecrets`]), from which each
//! project has a key that tells nothing of another's. Without one there are no tickets for such a project.
//!
//! **Who verifies**: any current secret of the project or of the gateway. Besides, the key that verified the *token* must
//! still be one of the project's, or of its issuer's: a key that is removed, because it was stolen, takes all tickets with
//! it that were got with it, whoever signed them, and all that it signed itself. What lasts remembers both ([`TicketHeld`]).

mod query;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tailwater_protocol::ProjectId;
use tailwater_wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

pub use self::query::{PARAMETER, Repeated, in_query};
use crate::{
    access::{Act, Refusal, Ruling, decide},
    key::{Key, KeyPrint, MAX_SECRET, MIN_SECRET, SigningKey},
    origin::is_origin,
    pattern::{Pattern, Streams},
    project::Project,
    scope::{Scope, Scopes},
    token::{Grant, Moment},
};

/// How long a ticket lives at most, in seconds.
pub const MAX_LIFE: u64 = 3600;
/// How soon after its issue a ticket must be used for the first time, in seconds. It keeps URLs that were copied or logged
/// from being of use for long; whoever sends `Last-Event-ID` is not bound by it, so it is no lock.
pub const FIRST_USE: u64 = 60;
/// The longest ticket, in bytes.
pub const MAX_TICKET: usize = 512;
/// The most secrets of the gateway: one that signs, and others that were before it.
pub const MAX_TICKET_SECRETS: usize = 4;

const VERSION: u8 = 1;
/// No header of a token begins so, in base64url or otherwise.
const SENTENCE: &[u8] = b"tailwater ticket, version 1\0";
/// The characters of a signature.
const SIGNATURE: usize = 43;

/// A ticket as it is sent. It is a secret: `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketText(Zeroizing<String>);

/// It is made of what wipes itself, and of nothing else.
const _: fn(Zeroizing<String>) -> TicketText = TicketText;

/// A ticket's own name, by which it is revoked: drawn at random by whoever issues it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId(pub [u8; 9]);

/// Secrets of the gateway, for projects whose keys do not sign: the first signs, all verify.
#[derive(Clone, Default)]
pub struct TicketSecrets(Vec<Zeroizing<[u8; 32]>>);

/// They are made of what wipes itself, and of nothing else.
const _: fn(Vec<Zeroizing<[u8; 32]>>) -> TicketSecrets = TicketSecrets;

/// What a ticket is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'p> {
    /// The project, as it is now.
    pub project: &'p Project,
    /// The stream: its decoded segments with slashes between them.
    pub stream: &'p str,
    /// The origin of the page that reads.
    pub origin: &'p str,
    /// What the gateway signs with where the project cannot.
    pub secrets: &'p TicketSecrets,
}

/// Whether a request goes on where one before it was cut off: it brings `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It does not.
    First,
    /// It does.
    Resumed,
}

/// What a ticket that counts lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// To read its stream. Its `id` and `issued_at` are those of the token: what revokes that revokes this.
    pub grant: Grant,
    /// What may end it besides.
    pub held: TicketHeld,
}

/// What may end what a ticket was let in for, beside what ends its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketHeld {
    /// By this name the ticket alone is revoked.
    pub id: TicketId,
    /// Of the project's key that signed it; `None` where the gateway's secret did.
    pub signer: Option<KeyPrint>,
    /// When its hour is over, in seconds since the Unix epoch. It is one of gateways' clocks, so no skew lengthens it.
    pub hour_ends_at: u64,
}

/// Why no ticket is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The token may not read the stream.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not what a browser calls a page's origin.
    #[error("a ticket is for pages of one origin: `https://host` or `https://host:port`")]
    Origin,
    /// The token has expired.
    #[error("the ticket would expire before it counts")]
    Expired,
    /// The project's first key is a public one, or it has none itself, and the gateway has no secret of its own.
    #[error("the first key of the project cannot sign, and the gateway has no secret for tickets")]
    NoSecret,
}

/// Why the gateway cannot have these secrets. Nothing of them is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketSecretsError {
    /// One is too short to be a secret, or absurdly long.
    #[error("a secret for tickets has {MIN_SECRET} to {MAX_SECRET} bytes, and one has {length}")]
    Length {
        /// Its bytes.
        length: usize,
    },
    /// There are too many.
    #[error("there are at most {MAX_TICKET_SECRETS} secrets for tickets")]
    TooMany,
}

/// Why a ticket does not count. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is longer than [`MAX_TICKET`].
    #[error("the ticket is longer than {MAX_TICKET} bytes")]
    TooLong,
    /// It is no ticket.
    #[error("this is no ticket")]
    Form,
    /// The request does not say of which origin its page is.
    #[error("a ticket is for pages of one origin, and the request does not tell its own")]
    NoOrigin,
    /// It is another's: of another project, for another stream, for pages of another origin, or of no key that counts.
    #[error("no key of the project verifies the ticket for this stream and origin")]
    Unverified,
    /// It has expired.
    #[error("the ticket has expired")]
    Expired,
    /// It is from the future.
    #[error("the ticket does not count yet")]
    NotYet,
    /// It was not used in time.
    #[error("the ticket was not used within {FIRST_USE} seconds of its issue")]
    Late,
    /// It was revoked, or its token was, or the key of that.
    #[error("the ticket was revoked")]
    Revoked,
}

/// What a ticket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Carried<'t> {
    id: TicketId,
    /// Of the key that verified the token.
    key: KeyPrint,
    issued_at: u64,
    expires_at: u64,
    /// When the token was issued.
    since: Option<u64>,
    /// The token's `jti`.
    token: Option<&'t str>,
}

impl TicketSecrets {
    /// Secrets in this order; none is allowed.
    ///
    /// # Errors
    /// [`TicketSecretsError`]: one is too short or too long, or there are more than [`MAX_TICKET_SECRETS`].
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Result<Self, TicketSecretsError> {
        let mut kept = Vec::new();
        for secret in secrets {
            if !(MIN_SECRET..=MAX_SECRET).contains(&secret.len()) {
                return Err(TicketSecretsError::Length { length: secret.len() });
            }
            kept.push(Zeroizing::new(blake3::derive_key("tailwater secret for tickets", secret)));
        }
        if kept.len() > MAX_TICKET_SECRETS { Err(TicketSecretsError::TooMany) } else { Ok(Self(kept)) }
    }

    /// The keys of a project.
    fn keys<'s>(&'s self, project: &'s ProjectId) -> impl Iterator<Item = Key> + 's {
        self.0.iter().map(|secret| {
            let derived = Zeroizing::new(*blake3::keyed_hash(secret, project.as_str().as_bytes()).as_bytes());
            Key::secret(None, &*derived).expect("a hash is as long as a secret must be")
        })
    }

    fn signing(&self, project: &ProjectId) -> Option<SigningKey> {
        self.keys(project).next()?.signing()
    }
}

/// A ticket for who has this token's rights: `now` is in seconds since the Unix epoch, `id` is drawn at random.
///
/// # Errors
/// [`IssueError`].
pub fn issue(purpose: &Purpose<'_>, grant: &Grant, now: u64, id: TicketId) -> Result<TicketText, IssueError> {
    let Purpose { project, stream, origin, secrets } = *purpose;
    match decide(Act::Read(stream), Some(grant), project.writers) {
        Ruling::Allowed => {}
        // Without a right to read, nobody learns whether the stream is there; and what is public needs no ticket.
        Ruling::IfPublic(refusal) | Ruling::Refused(refusal) => return Err(refusal.into()),
    }
    if !is_origin(origin) {
        return Err(IssueError::Origin);
    }
    let expires_at = expiry(grant, now);
    if expires_at <= now {
        return Err(IssueError::Expired);
    }
    let carried =
        Carried { id, key: grant.key, issued_at: now, expires_at, since: grant.issued_at, token: grant.id.as_deref() };
    let carried = carried.encode();
    let signing = project.keys.first().and_then(Key::signing).or_else(|| secrets.signing(&project.id));
    let signature = signing.and_then(|key| key.sign(&purpose.signed(&carried))).ok_or(IssueError::NoSecret)?;
    Ok(TicketText(Zeroizing::new(URL_SAFE_NO_PAD.encode(&carried) + &signature)))
}

/// When a ticket ends that is issued now to who has this token's rights.
#[must_use]
pub fn expiry(grant: &Grant, now: u64) -> u64 {
    grant.expires_at.min(now.saturating_add(MAX_LIFE))
}

/// Whether a text has the form of a ticket. [`admit`] asks that first, too; who asks it before he looks for the project
/// gives the same answers whether there is one or not.
///
/// # Errors
/// [`TicketError::TooLong`], [`TicketError::Form`].
pub fn check_form(ticket: &str) -> Result<(), TicketError> {
    let (bytes, _) = taken_apart(ticket)?;
    Carried::decode(&bytes).map_err(|_| TicketError::Form).map(drop)
}

/// What a ticket lets its bearer do at this moment. `origin` is that of the page that asks, if the request tells (see
/// [`page_of`]); `is_revoked` is asked with an id, of the ticket or of its token, and with the time of the token's issue;
/// `is_issuers` is asked, of a ticket that is authentic, whether a key that the project does not have itself is one of its
/// issuer's now.
///
/// # Errors
/// [`TicketError`], where it does not count.
pub fn admit(
    ticket: &str,
    purpose: &Purpose<'_>,
    moment: Moment,
    arrival: Arrival,
    is_revoked: impl Fn(&str, Option<u64>) -> bool,
    is_issuers: impl FnOnce(KeyPrint) -> bool,
) -> Result<Admission, TicketError> {
    let Purpose { project, secrets, .. } = *purpose;
    let (bytes, signature) = taken_apart(ticket)?;
    let carried = Carried::decode(&bytes).map_err(|_| TicketError::Form)?;
    let signed = purpose.signed(&bytes);
    let mut own = project.keys.iter().filter(|key| key.algorithm().is_symmetric());
    let signer = own.find(|key| key.verifies(&signed, signature)).map(Key::print);
    if signer.is_none() && !secrets.keys(&project.id).any(|key| key.verifies(&signed, signature)) {
        return Err(TicketError::Unverified);
    }
    carried.check_time(moment, arrival)?;
    let ids = [Some(carried.id.to_string()), carried.token.map(str::to_owned)];
    let named = ids.iter().flatten().any(|id| project.revoked.contains(id) || is_revoked(id, carried.since));
    let has_key = || project.keys.iter().any(|key| key.print() == carried.key) || is_issuers(carried.key);
    // A token without an id is revoked with all that are as old: the ticket's own id is always asked for.
    if named || !has_key() {
        return Err(TicketError::Revoked);
    }
    let grant = Grant {
        project: project.id.clone(),
        scopes: Scopes::from_iter([Scope::Read]),
        streams: Streams::Only(vec![Pattern::exactly(purpose.stream)]),
        // Whoever has a key of the project can sign a ticket that says it lives for ever.
        expires_at: carried.expires_at.min(carried.hour_ends_at()),
        not_before: None,
        issued_at: carried.since,
        key: carried.key,
        id: carried.token.map(str::to_owned),
    };
    Ok(Admission { grant, held: TicketHeld { id: carried.id, signer, hour_ends_at: carried.hour_ends_at() } })
}

/// The origin of the page that asks. A browser names it in `Origin`, but not in a GET to the page's own origin: there
/// `Sec-Fetch-Site`, which no page can set, says so, and `own` is what the gateway itself is called in the URL. A request
/// with neither is none that a page can read the answer of.
///
/// # Errors
/// [`TicketError::NoOrigin`].
pub fn page_of<'r>(
    origin: Option<&'r str>,
    fetch_site: Option<&str>,
    own: Option<&'r str>,
) -> Result<&'r str, TicketError> {
    origin.or_else(|| own.filter(|_| fetch_site == Some("same-origin"))).ok_or(TicketError::NoOrigin)
}

/// What a ticket carries, and its signature.
fn taken_apart(ticket: &str) -> Result<(Vec<u8>, &str), TicketError> {
    if ticket.len() > MAX_TICKET {
        return Err(TicketError::TooLong);
    }
    let (payload, signature) =
        ticket.len().checked_sub(SIGNATURE).and_then(|at| ticket.split_at_checked(at)).ok_or(TicketError::Form)?;
    Ok((URL_SAFE_NO_PAD.decode(payload).map_err(|_| TicketError::Form)?, signature))
}

impl Purpose<'_> {
    fn signed(&self, carried: &[u8]) -> Vec<u8> {
        let mut w = Writer::default();
        w.fixed(SENTENCE).text(self.project.id.as_str()).text(self.stream).text(self.origin).fixed(carried);
        w.finish()
    }
}

impl<'t> Carried<'t> {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(VERSION).fixed(&self.id.0).fixed(&self.key.0).number(self.issued_at).number(self.expires_at);
        w.option(self.since, Writer::number);
        w.option(self.token, Writer::text);
        w.finish()
    }

    fn decode(bytes: &'t [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.byte()? != VERSION {
            return Err(WireError::Value);
        }
        let carried = Self {
            id: TicketId(r.fixed()?),
            key: KeyPrint(r.fixed()?),
            issued_at: r.number()?,
            expires_at: r.number()?,
            since: r.option(Reader::number)?,
            token: r.option(Reader::text)?,
        };
        r.finish()?;
        Ok(carried)
    }

    fn hour_ends_at(&self) -> u64 {
        self.issued_at.saturating_add(MAX_LIFE)
    }

    fn check_time(&self, moment: Moment, arrival: Arrival) -> Result<(), TicketError> {
        if !moment.precedes(self.expires_at) || moment.now >= self.hour_ends_at() {
            return Err(TicketError::Expired);
        }
        if !moment.has_reached(self.issued_at) {
            return Err(TicketError::NotYet);
        }
        match arrival {
            Arrival::First if moment.now >= self.issued_at.saturating_add(FIRST_USE) => Err(TicketError::Late),
            Arrival::First | Arrival::Resumed => Ok(()),
        }
    }
}

impl TicketText {
    /// The ticket, for an answer to who asked for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TicketError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Form => "form",
            Self::NoOrigin => "no_origin",
            Self::Unverified => "unverified",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Late => "late",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket-{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(…)")
    }
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecrets({} of them)", self.0.len())
    }
}

#[cfg(test)]
mod tests;
