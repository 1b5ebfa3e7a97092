//! Who asks about a stream: at most one of a token in `Authorization`, a ticket in the query, and a token in the project's
//! cookie.
//!
//! | what | counts for | where it does not count |
//! |---|---|---|
//! | `Authorization: Bearer` | everything that the token allows | `401`, even for what is public |
//! | `?ticket=` | `GET` and `HEAD`; for anything else it is not looked at | `401`, even for what is public |
//! | both | nothing | `400` |
//! | the project's cookie | `GET` and `HEAD`, without the other two, from pages that may ask | as if there were none |
//!
//! A page has no say in `Origin`, `Sec-Fetch-Site` and `Host`: what is decided by them keeps one page from using what another
//! was given. It keeps nobody out who has a ticket and no browser.
//!
//! A cookie comes unasked, so one that does not count must not close what is public. Nor may it tell that a project is there
//! which names such a cookie: only of a token that one of the project's keys has signed it is said why it does not count.
//! While its issuer is away, which nobody knows, what is not public is answered `503`.

use std::{cell::Cell, sync::Arc};

use http::{HeaderValue, Method, header, request::Parts};
use tailwater_auth::{
    Arrival, Grant, Moment, Principal, Projects, Purpose, Refusal, TicketError, TicketHeld, TokenError,
    cookie::may_count,
    ticket::{admit, check_form, in_query, page_of},
};
use tailwater_protocol::{ProjectId, StreamPath};

use crate::{
    app::App,
    guard::Guard,
    issuers::{IssuerAway, NoGrant},
    location::{self, LocalAddress},
    problem::Problem,
    request::{Fields, SEC_FETCH_SITE},
};

/// What a request shows of who sends it.
#[derive(Debug)]
pub(crate) struct Credential {
    /// What that was verified to allow.
    pub(crate) grant: Option<Arc<Grant>>,
    /// What was brought in place of a token.
    pub(crate) ticket: Option<TicketHeld>,
    /// Who that is to quotas, where it came in a cookie: only there is the token still at hand.
    pub(crate) cookie: Option<Principal>,
    /// Without it, what is said where one is needed.
    pub(crate) unknown: Unknown,
}

/// Why somebody has no right of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is known that he has none.
    Refused(Refusal),
    /// Nobody knows: what he sent may well count.
    Away(IssuerAway),
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Refused(refusal) => refusal.into(),
            Unknown::Away(away) => away.into(),
        }
    }
}

/// What credentials are judged by.
struct Judge<'a> {
    app: &'a App,
    guard: &'a Guard,
    projects: &'a Projects,
    moment: Moment,
}

impl Credential {
    /// Looks for one, and verifies it.
    ///
    /// # Errors
    /// There are two, or the one that there is does not count.
    pub(crate) async fn of(
        app: &App,
        guard: &Guard,
        projects: &Projects,
        path: &StreamPath,
        request: &Parts,
    ) -> Result<Self, Problem> {
        let judge = Judge { app, guard, projects, moment: guard.moment(app.ambient.now()) };
        let token = Fields(&request.headers).bearer()?;
        let ticket = in_query(request.uri.query().unwrap_or_default())?;
        let reads = [Method::GET, Method::HEAD].contains(&request.method);
        match (token, ticket) {
            (Some(_), Some(_)) => Err(Problem::two_credentials()),
            (Some(token), None) => Ok(Self::known(judge.verify(&path.project, token).await?)),
            (None, Some(ticket)) if reads => judge.by_ticket(path, request, &ticket).await,
            (None, None) if reads => judge.by_cookie(path, request).await,
            (None, Some(_) | None) => Ok(Self::none(Unknown::Refused(Refusal::NoToken))),
        }
    }

    fn known(grant: Arc<Grant>) -> Self {
        Self { grant: Some(grant), ticket: None, cookie: None, unknown: Unknown::Refused(Refusal::NoToken) }
    }

    fn none(unknown: Unknown) -> Self {
        Self { grant: None, ticket: None, cookie: None, unknown }
    }
}

impl Judge<'_> {
    /// What a token lets its bearer do now.
    async fn verify(&self, project: &ProjectId, token: &str) -> Result<Arc<Grant>, NoGrant> {
        self.guard.grant(self.projects, project, token, self.moment).await
    }

    async fn by_ticket(&self, path: &StreamPath, request: &Parts, ticket: &str) -> Result<Credential, Problem> {
        check_form(ticket).map_err(Refusal::Ticket)?;
        let config = &self.app.config;
        let fields = Fields(&request.headers);
        let (origin, fetch_site) = (fields.origin()?, fields.fetch_site()?);
        let local = request.extensions.get::<LocalAddress>().copied();
        let own = location::own_origin(config.public_url.as_ref(), &request.uri, &request.headers, local);
        let origin = page_of(origin, fetch_site, own.as_deref()).map_err(Refusal::Ticket)?;
        // Of a project that is not there, no key verifies anything.
        let project = self.projects.get(&path.project).ok_or(Refusal::Ticket(TicketError::Unverified))?;
        let purpose = Purpose { project, stream: &path.stream, origin, secrets: &config.ticket_secrets };
        let arrival = match fields.last_event_id() {
            Some(id) if !id.is_empty() => Arrival::Resumed,
            Some(_) | None => Arrival::First,
        };
        // What the project itself revokes, and which keys it has itself, is looked at there. Of another key its issuer's
        // are asked, as for a token: so they are fetched again in time, though nobody has come with a token for long.
        let (mut admitted, strange) = {
            let strange = Cell::new(None);
            let has = |key| {
                strange.set(Some(key));
                false
            };
            (admit(ticket, &purpose, self.moment, arrival, |_, _| false, has), strange.take())
        };
        if let Some(key) = strange
            && self.guard.issuers().recognise(project, key).await?
        {
            admitted = admit(ticket, &purpose, self.moment, arrival, |_, _| false, |asked| asked == key);
        }
        let admission = admitted.map_err(Refusal::Ticket)?;
        if self.guard.revokes(&admission.grant, Some(admission.held)) {
            return Err(Refusal::Ticket(TicketError::Revoked).into());
        }
        Ok(Credential { ticket: Some(admission.held), ..Credential::known(Arc::new(admission.grant)) })
    }

    async fn by_cookie(&self, path: &StreamPath, request: &Parts) -> Result<Credential, Problem> {
        let none = Credential::none(Unknown::Refused(Refusal::NoToken));
        let headers = &request.headers;
        let Some(project) = self.projects.get(&path.project) else { return Ok(none) };
        let Some(name) = &project.cookie else { return Ok(none) };
        let only = |name: &str| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
        };
        let from_page = may_count(only(SEC_FETCH_SITE), only(header::ORIGIN.as_str()), &project.origins);
        // Credentials of another scheme are somebody else's, but whoever sends them does not count on a cookie.
        if !from_page || headers.contains_key(header::AUTHORIZATION) {
            return Ok(none);
        }
        let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        let Some(token) = name.value_in(lines) else { return Ok(none) };
        let error = match self.verify(&path.project, token).await {
            Ok(grant) => {
                let cookie = Some(Principal::of_bearer(&grant, token));
                return Ok(Credential { cookie, ..Credential::known(grant) });
            }
            Err(NoGrant::Away(away)) => return Ok(Credential::none(Unknown::Away(away))),
            Err(NoGrant::Token(error)) => error,
        };
        Ok(match error {
            TokenError::TooLong | TokenError::Form | TokenError::Header(_) | TokenError::Unverified => none,
            TokenError::Claims
            | TokenError::Streams(_)
            | TokenError::Project
            | TokenError::Audience
            | TokenError::Issuer
            | TokenError::Expired
            | TokenError::NotYet
            | TokenError::Revoked => Credential::none(Unknown::Refused(error.into())),
        })
    }
}
