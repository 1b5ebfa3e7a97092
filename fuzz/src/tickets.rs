//! Tickets: what stands in a query, and what is issued.

use tailwater_auth::{
    Admission, Arrival, Grant, IssueError, Moment, Origins, Purpose, Scopes, Streams, TicketError, TicketId,
    ticket::{FIRST_USE, MAX_LIFE, MAX_TICKET, admit, check_form, in_query, issue},
};

use crate::{
    input::lines,
    trust::{MOMENT, NOW, STOLEN, TICKET_SECRETS, project},
};

/// The longest `jti` of a token.
const MAX_TOKEN_ID: usize = 256;

fn purpose<'p>(name: &str, stream: &'p str, origin: &'p str) -> Purpose<'p> {
    Purpose { project: project(name), stream, origin, secrets: &TICKET_SECRETS }
}

fn admitted(ticket: &str, purpose: &Purpose<'_>, moment: Moment) -> Result<Admission, TicketError> {
    admit(ticket, purpose, moment, Arrival::Resumed, |_, _| false, |_| false)
}

/// A query, a stream and an origin.
pub(crate) fn ticket(data: &[u8]) {
    let [query, stream, origin] = lines::<3>(data).map(|line| line.unwrap_or_default());
    let Ok(Some(ticket)) = in_query(&query) else { return };
    for name in ["chat", "public"] {
        let purpose = purpose(name, &stream, &origin);
        let admission = admitted(&ticket, &purpose, MOMENT);
        assert_eq!(admission, admitted(&ticket, &purpose, MOMENT));
        // The form is told without a look at the project.
        let fault = check_form(&ticket).err();
        assert_eq!(fault, admission.as_ref().err().copied().filter(is_of_the_form));
        if admission.is_ok() {
            is_for_nothing_else(&ticket, &purpose, data.len());
        }
    }
}

fn is_of_the_form(error: &TicketError) -> bool {
    matches!(error, TicketError::TooLong | TicketError::Form)
}

/// That a ticket that counts counts for its own stream, origin, project and time alone, and in its one spelling.
fn is_for_nothing_else(ticket: &str, purpose: &Purpose<'_>, seed: usize) {
    assert!(ticket.len() <= MAX_TICKET);
    let (stream, origin) = (format!("{}x", purpose.stream), format!("{}x", purpose.origin));
    let others = [
        Purpose { stream: &stream, ..*purpose },
        Purpose { origin: &origin, ..*purpose },
        Purpose { project: project("twin"), ..*purpose },
    ];
    for other in &others {
        assert_eq!(admitted(ticket, other, MOMENT).err(), Some(TicketError::Unverified));
    }
    let late = Moment { now: NOW + MAX_LIFE + MOMENT.skew, ..MOMENT };
    assert_eq!(admitted(ticket, purpose, late).err(), Some(TicketError::Expired));
    let revoked = admit(ticket, purpose, MOMENT, Arrival::Resumed, |_, _| true, |_| true);
    assert_eq!(revoked.err(), Some(TicketError::Revoked));
    let at = seed % ticket.len();
    let other = if ticket.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = [&ticket[..at], other, &ticket[at + 1..]].concat();
    assert!(admitted(&forged, purpose, MOMENT).is_err());
    for forged in [format!("{ticket}="), format!("{ticket}A"), ticket[1..].to_owned(), format!(" {ticket}")] {
        assert!(admitted(&forged, purpose, MOMENT).is_err());
    }
}

/// A stream, an origin, a `jti`, for how many seconds the token lasts, and when it was issued.
pub(crate) fn ticket_issued(data: &[u8]) {
    let [stream, origin, token_id, life, since] = lines(data);
    let (stream, origin) = (stream.unwrap_or_default(), origin.unwrap_or_default());
    let token_id = token_id.map(|id| id.into_owned()).filter(|id| (1..=MAX_TOKEN_ID).contains(&id.len()));
    let life: u64 = life.and_then(|life| life.parse().ok()).unwrap_or_default();
    for name in ["chat", "public"] {
        let purpose = purpose(name, &stream, &origin);
        let grant = Grant {
            project: purpose.project.id.clone(),
            scopes: Scopes::among(["read"]),
            streams: Streams::All,
            expires_at: NOW.saturating_add(life),
            not_before: None,
            issued_at: since.as_ref().and_then(|since| since.parse().ok()),
            key: purpose.project.keys.first().expect("the project has a key").print(),
            id: token_id.clone(),
        };
        let is_origin = matches!(Origins::parse([&*origin].into_iter()), Ok(Origins::Only(_)));
        let text = match issue(&purpose, &grant, NOW, TicketId(*b"123456789")) {
            Ok(text) => text,
            Err(error) => {
                let expected = if is_origin { IssueError::Expired } else { IssueError::Origin };
                assert_eq!((error, is_origin && life > 0), (expected, false));
                continue;
            }
        };
        assert!(is_origin && life > 0);
        counts(text.reveal(), &purpose, &grant, data.len());
        assert!(!format!("{text:?}").contains(text.reveal()));
    }
}

/// That a ticket lets its bearer do what it was issued for.
fn counts(ticket: &str, purpose: &Purpose<'_>, grant: &Grant, seed: usize) {
    let query = format!("offset=now&ticket={ticket}&live=sse");
    assert_eq!(in_query(&query).as_ref().map(Option::as_deref), Ok(Some(ticket)));
    let admission = match admitted(ticket, purpose, MOMENT) {
        Ok(admission) => admission,
        Err(error) => {
            assert_eq!((error, grant.id.as_deref()), (TicketError::Revoked, Some(STOLEN)));
            return;
        }
    };
    assert_eq!(admission.grant.id, grant.id);
    assert_eq!(admission.grant.issued_at, grant.issued_at);
    assert_eq!(admission.grant.expires_at, grant.expires_at.min(NOW + MAX_LIFE));
    assert!(admission.grant.streams.contain(purpose.stream));
    let first = |now| admit(ticket, purpose, Moment { now, ..MOMENT }, Arrival::First, |_, _| false, |_| false);
    assert!(first(NOW).is_ok());
    // Whatever skew is granted to the issuer's clock.
    assert!(first(NOW + FIRST_USE).is_err());
    is_for_nothing_else(ticket, purpose, seed);
}
