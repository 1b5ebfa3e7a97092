//! `POST /v1/ticket`: a ticket for who has a token, for a plain `EventSource` that can send no header.
//!
//! The body names the stream, as its URL does (`chat/room/1`, or the whole path), and the origin of the page that is to read
//! it: `{"stream": "chat/room/1", "origin": "https://app.example"}`. The answer is `201` with `ticket`, `id`, by which it is
//! revoked, and `expiresAt`, in seconds since the Unix epoch.
//!
//! The token is judged before the body is read, with the keys of the project that it claims to be for, which must then be the
//! stream's: what others send is thrown away. Whether it still counts is asked again behind the body.
//!
//! Only a token in `Authorization` is looked at, so that no page gets a ticket by what its browser sends unasked, and no
//! ticket becomes another one. The stream is not looked at: who may read it gets a ticket, whether it is there or not.
//!
//! Which project is asked is not in the path, so a preflight cannot know whose origins count. It allows any page to ask, which
//! has to bring the token; who may see the answer says the project.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::json;
use tailwater_auth::{
    Grant, IssueError, Project, Projects, Purpose, Refusal, TicketId, TokenError,
    ticket::{expiry, issue},
    token::Token,
};
use tailwater_protocol::{ProjectId, StreamPath, path::STREAM_ROOT};

use crate::{
    admin::{read, said},
    app::App,
    cors::Cors,
    guard::{Auth, Guard},
    problem::Problem,
    quota,
    request::Fields,
    share::Usage,
};

/// Where tickets are.
pub(crate) const PATH: &str = "/v1/ticket";
/// The most bytes of a body: the longest name of a stream, each byte of it escaped, and an origin.
const MAX_BODY: usize = 8 * 1024;

/// How long a body may take in all.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// What is said of a token that no key verifies which could.
const UNVERIFIED: Refusal = Refusal::Token(TokenError::Unverified);

/// Who asks, known by a token that counts. The body is not kept for anybody else.
struct Bearer<'p> {
    project: &'p Project,
    grant: Arc<Grant>,
    usage: Arc<Usage>,
}

/// What a ticket is to be for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    stream: String,
    origin: String,
}

/// A ticket.
pub(crate) async fn post(State(app): State<App>, request: Request) -> Response {
    let Auth::Required(guard) = &app.config.auth else { return Problem::not_found().into_response() };
    if request.method() != Method::POST {
        return Problem::method_not_allowed("POST, OPTIONS").into_response();
    }
    if guard.is_unread() {
        return Problem::register_not_known().into_response();
    }
    let (parts, body) = request.into_parts();
    let (token, claimed) = match shown(&parts) {
        Ok(shown) => shown,
        Err(problem) => return declined(&app, &parts, body, problem).await,
    };
    let projects = guard.projects();
    let cors = Cors::of_project(projects.get(&claimed), &parts.headers);
    let mut response = match Bearer::of(&app, guard, &projects, (token, &claimed), &parts).await {
        Ok(bearer) => bearer.issue(&app, guard, &parts, body).await.unwrap_or_else(Problem::into_response),
        Err(problem) => declined(&app, &parts, body, problem).await,
    };
    response.extensions_mut().insert(cors);
    response
}

impl<'p> Bearer<'p> {
    /// Who asks, by a token that claims to be for this project.
    async fn of(
        app: &App,
        guard: &Guard,
        projects: &'p Arc<Projects>,
        (token, claimed): (&str, &ProjectId),
        parts: &Parts,
    ) -> Result<Self, Problem> {
        let grant = guard.grant(projects, claimed, token, guard.moment(app.ambient.now())).await?;
        let project = projects.get(claimed).ok_or(UNVERIFIED)?;
        quota::charge_bearer(app, projects, project, &grant, parts)?;
        Ok(Self { project, grant, usage: app.shares.of(&project.id, projects) })
    }

    async fn issue(&self, app: &App, guard: &Guard, parts: &Parts, body: Body) -> Result<Response, Problem> {
        let Self { project, grant, usage } = self;
        let body = app.bodies.receive_by(BODY_LIMIT, MAX_BODY, Some(usage), &parts.headers, body).await?.bytes;
        // Behind the body, which may have taken a while.
        guard.counts(grant, None, app.ambient.now()).map_err(Refusal::Token)?;
        let (wanted, path) = asked(app, &body)?;
        // Of another project its keys say nothing.
        if path.project != project.id {
            return Err(UNVERIFIED.into());
        }
        let origin = Fields(&parts.headers).origin()?;
        if origin.is_some_and(|page| page != wanted.origin) {
            return Err(Problem::invalid_ticket_request(&"the page that asks is of another origin than the ticket"));
        }
        let secrets = &app.config.ticket_secrets;
        let purpose = Purpose { project, stream: &path.stream, origin: &wanted.origin, secrets };
        let mut id = TicketId([0; 9]);
        (app.ambient.secret)(&mut id.0);
        let now = app.ambient.now() / 1000;
        let ticket = issue(&purpose, grant, now, id).map_err(|error| match error {
            IssueError::Refused(refusal) => refusal.into(),
            IssueError::Expired => Refusal::Token(TokenError::Expired).into(),
            IssueError::Origin => Problem::invalid_ticket_request(&error),
            IssueError::NoSecret => Problem::ticket_secret_missing(),
        })?;
        let expires_at = expiry(grant, now);
        tracing::debug!(project = %project.id, %id, expires_at, "issued a ticket");
        let answer = json!({ "ticket": ticket.reveal(), "id": id.to_string(), "expiresAt": expires_at });
        Ok(said(StatusCode::CREATED, &answer))
    }
}

/// The token that is shown, and the project that it claims to be for. Without one no key could verify it.
fn shown(parts: &Parts) -> Result<(&str, ProjectId), Problem> {
    let token = Fields(&parts.headers).bearer()?.ok_or(Refusal::NoToken)?;
    let claimed = Token::parse(token).map_err(Refusal::Token)?.claimed_project();
    Ok((token, claimed.ok_or(UNVERIFIED)?))
}

/// The answer to whoever is refused, whatever the body holds.
async fn declined(app: &App, parts: &Parts, body: Body, problem: Problem) -> Response {
    app.bodies.decline(&parts.headers, body).await;
    problem.into_response()
}

/// What is asked for.
fn asked(app: &App, body: &Bytes) -> Result<(Wanted, StreamPath), Problem> {
    let form = "`stream` and `origin`, both texts";
    let wanted: Wanted = read(form, body).map_err(|fault| Problem::invalid_ticket_request(&fault))?;
    let raw = wanted.stream.strip_prefix(STREAM_ROOT).unwrap_or(&wanted.stream);
    let path = StreamPath::parse(raw, &app.config.addressing, &app.config.default_project)?;
    Ok((wanted, path))
}
