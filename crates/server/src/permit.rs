//! What a request may do: decided once, on the decoded name of its stream, before anything else is done for it.
//!
//! Who has no right to read may still read what is public, which only the stream's state can tell. Then the decision
//! stands with the very state that the answer is made of, and whatever else there is to say about the stream is not said.

use std::{num::NonZeroUsize, sync::Arc};

use axum::body::Body;
use http::{HeaderMap, Method, request::Parts};
use tailwater_auth::{Act, Grant, Limits, Principal, Project, Quotas, Refusal, Ruling, TicketHeld, Writers, decide};
use tailwater_fanout::{ForkError, Head, NewVisibility, OpError, Reader, SourceAccess};
use tailwater_log::Visibility;
use tailwater_protocol::{ProjectId, ReadOffset, StreamPath};
use tailwater_upstream::StreamKey;

use crate::{
    answer,
    app::App,
    body::Received,
    credential::{Credential, Unknown},
    guard::{Auth, Guard},
    problem::Problem,
    quota::{Asking, Attendance},
    request::{key_of, stream_path},
    standing::{Standing, Who},
};

/// A request that may go on.
#[derive(Debug)]
pub(crate) struct Permit {
    /// The stream that it is about.
    pub(crate) key: StreamKey,
    /// What it is answered unless the stream is public.
    unless_public: Option<Unknown>,
    /// On which terms it came in; none where everybody may do everything.
    pub(crate) terms: Option<Terms>,
    /// What it has to do with quotas, once it has been entered.
    pub(crate) asking: Option<Asking>,
}

/// What a guarded request came in on.
#[derive(Debug)]
pub(crate) struct Terms {
    guard: Guard,
    pub(crate) project: ProjectId,
    pub(crate) quotas: Quotas,
    pub(crate) grant: Option<Arc<Grant>>,
    /// What came in place of the token.
    ticket: Option<TicketHeld>,
    /// Who that is to quotas, where it came in a cookie.
    pub(crate) cookie: Option<Principal>,
    writers: Writers,
    visibility: Visibility,
    limits: Limits,
}

/// A live reader, and what it holds.
pub(crate) struct Followed {
    pub(crate) reader: Reader,
    pub(crate) attendance: Option<Box<Attendance>>,
}

/// What the author of a fork may see of its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    pub(crate) access: SourceAccess,
    /// What is answered where that is not enough.
    otherwise: Refusal,
}

impl Permit {
    /// Decides about a request.
    pub(crate) async fn decide(app: &App, request: &Parts) -> Result<Self, Problem> {
        let path = stream_path(&request.uri, &app.config)?;
        let key = key_of(&path);
        let Auth::Required(guard) = &app.config.auth else {
            return Ok(Self { key, unless_public: None, terms: None, asking: None });
        };
        if guard.is_unread() {
            return Err(Problem::register_not_known());
        }
        let projects = guard.projects();
        let credential = Credential::of(app, guard, &projects, &path, request).await?;
        // Whoever has no token cannot tell a project that is not there from one that shows nothing.
        let project = projects.get(&path.project).ok_or(Refusal::NoToken)?;
        let act = match request.method {
            Method::GET | Method::HEAD => Act::Read(&path.stream),
            _ => Act::Write(&path.stream),
        };
        let unless_public = match decide(act, credential.grant.as_deref(), project.writers) {
            Ruling::Allowed => None,
            Ruling::IfPublic(Refusal::NoToken) => Some(credential.unknown),
            Ruling::IfPublic(refusal) => Some(Unknown::Refused(refusal)),
            Ruling::Refused(refusal) => return Err(refusal.into()),
        };
        if matches!(act, Act::Write(_)) && app.config.audit.as_ref() == Some(&key) {
            return Err(Problem::audit_stream());
        }
        Ok(Self { key, unless_public, terms: Some(Terms::of(guard, project, credential)), asking: None })
    }

    /// Whether the stream may be seen, given what it is.
    pub(crate) fn sees(&self, head: &Head) -> Result<(), Problem> {
        match self.unless_public {
            Some(refusal) if head.visibility != Visibility::Public => Err(refusal.into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes in the body of a write, unless nothing can be written just now. What has come is counted, and whether what it
    /// came in with still counts is asked again: it may have taken minutes.
    pub(crate) async fn receive(&self, app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
        if let Err(refused) = app.gateway.takes_writes(&self.key) {
            app.bodies.decline(headers, body).await;
            return Err(refused.into());
        }
        let body = app.bodies.receive_within(self.max_body(), self.usage(), headers, body).await;
        self.received(&body);
        let body = body?;
        self.still(app)?;
        app.metrics.received.inc_by(body.bytes.len() as u64);
        Ok(body)
    }

    fn still(&self, app: &App) -> Result<(), Problem> {
        let Some(Terms { guard, grant: Some(grant), ticket, .. }) = &self.terms else { return Ok(()) };
        Ok(guard.counts(grant, *ticket, app.ambient.now()).map_err(Refusal::Token)?)
    }

    /// Looks whether the stream may be seen by who has no right of his own, before anything is begun for him that costs more
    /// than a look, or that is a use of the stream. What is answered then is judged on its own state again. That it may be
    /// asked is known from here on, and so is whose quotas it is for.
    pub(crate) async fn look(&self, app: &App) -> Result<(), Problem> {
        if self.unless_public.is_none() {
            return Ok(());
        }
        match app.gateway.head(&self.key).await {
            Ok(head) => self.sees(&head).and_then(|()| self.charge(app)),
            Err(error) => Err(self.failed(app, error).await),
        }
    }

    /// Whether it has been decided, whatever the stream is.
    pub(crate) fn is_settled(&self) -> bool {
        self.unless_public.is_none()
    }

    /// Joins the stream, if it may be seen and there is a place.
    pub(crate) async fn follow(&self, app: &App, from: ReadOffset) -> Result<Followed, Problem> {
        self.look(app).await?;
        let attendance = self.attend(app)?;
        let most = self.limits().readers_per_stream.map_or(usize::MAX, NonZeroUsize::get);
        match app.gateway.follow_among(&self.key, from, most).await {
            Ok(reader) => self.sees(reader.head()).map(|()| Followed { reader, attendance }),
            Err(error) => Err(self.failed(app, error).await),
        }
    }

    /// What is said of an error: nothing that tells what is there, unless that may be seen.
    pub(crate) async fn failed(&self, app: &App, error: OpError) -> Problem {
        let Some(refusal) = self.unless_public.filter(|_| tells(&error)) else { return error.into() };
        match app.gateway.head(&self.key).await {
            Ok(head) if head.visibility == Visibility::Public => error.into(),
            Err(error) if !tells(&error) => error.into(),
            Ok(_) | Err(_) => refusal.into(),
        }
    }

    /// What an answer that lasts stands on; nothing where everybody may do everything.
    pub(crate) fn standing(&self, app: &App) -> Option<Arc<Standing>> {
        let terms = self.terms.as_ref()?;
        let who = match &terms.grant {
            Some(grant) => Who::Bearer { grant: Arc::clone(grant), ticket: terms.ticket },
            None => Who::Anybody(terms.project.clone()),
        };
        let has_right = self.unless_public.is_none();
        let stream = Arc::clone(&self.key.stream);
        Some(Arc::new(Standing::new(terms.guard.clone(), who, stream, has_right, app.ambient)))
    }

    /// The most bytes that its body may have, as far as the project says.
    pub(crate) fn max_body(&self) -> usize {
        self.limits().body.map_or(usize::MAX, NonZeroUsize::get)
    }

    fn limits(&self) -> Limits {
        self.terms.as_ref().map_or_else(Limits::default, |terms| terms.limits)
    }

    /// Who may see a new stream.
    pub(crate) fn new_visibility(&self, declared: Option<tailwater_protocol::Visibility>) -> NewVisibility {
        match (declared, &self.terms) {
            (Some(declared), _) => NewVisibility::Declared(answer::in_log(declared)),
            (None, Some(terms)) => NewVisibility::Default(terms.visibility),
            (None, None) => NewVisibility::Undeclared,
        }
    }

    /// What the author of a fork of this source may see of it.
    ///
    /// # Errors
    /// The source is another project's, where tokens are asked for. A fork keeps its source and counts among its forks, which
    /// is for no token of another project to do; and what a project shows is for the project to show, not for a fork that
    /// outlives it.
    pub(crate) fn sight_of(&self, source: &StreamPath) -> Result<Sight, Problem> {
        let any = Sight { access: SourceAccess::Any, otherwise: Refusal::Hidden };
        let Some(Terms { grant, writers, .. }) = &self.terms else { return Ok(any) };
        let Some(grant) = grant.as_deref().filter(|grant| grant.project == source.project) else {
            return Err(OpError::from(ForkError::SourceNotFound).into());
        };
        Ok(match decide(Act::Read(&source.stream), Some(grant), *writers) {
            Ruling::Allowed => any,
            Ruling::IfPublic(refusal @ Refusal::Scope(_)) | Ruling::Refused(refusal) => {
                Sight { access: SourceAccess::Public, otherwise: refusal }
            }
            Ruling::IfPublic(_) => Sight { access: SourceAccess::Public, otherwise: Refusal::Hidden },
        })
    }
}

impl Sight {
    /// Whether it goes as far as to a stream like this.
    pub(crate) fn reaches(self, head: &Head) -> bool {
        self.access == SourceAccess::Any || head.visibility == Visibility::Public
    }

    /// What is said of an error.
    pub(crate) fn failed(self, error: OpError) -> Problem {
        match (self.otherwise, &error) {
            (Refusal::Hidden, _) => error.into(),
            (refusal, OpError::Fork(ForkError::SourceNotFound)) => refusal.into(),
            (_, _) => error.into(),
        }
    }
}

impl Terms {
    fn of(guard: &Guard, project: &Project, credential: Credential) -> Self {
        let Credential { grant, ticket, cookie, unknown: _ } = credential;
        let visibility = answer::in_log(project.visibility);
        Self {
            guard: guard.clone(),
            project: project.id.clone(),
            quotas: project.quotas,
            grant,
            ticket,
            cookie,
            writers: project.writers,
            visibility,
            limits: project.limits,
        }
    }
}

/// Whether an error depends on what stands in the stream.
fn tells(error: &OpError) -> bool {
    match error {
        OpError::Refused(_)
        | OpError::Conflict { .. }
        | OpError::Misplaced(_)
        | OpError::Fork(_)
        | OpError::Unreadable { .. }
        | OpError::StoreRefused { .. } => true,
        OpError::StreamBusy
        | OpError::TooManyReaders { .. }
        | OpError::TooManyStreams
        | OpError::OverFairShare
        | OpError::TooManyProjects { .. }
        | OpError::Draining
        | OpError::Unavailable { .. }
        | OpError::OutcomeUnknown => false,
    }
}
