//! `POST /v1/ticket`: a ticket for who has a token, for a plain `EventSource` that can send no header.
//!
//! The body names the stream, as its URL does (`chat/room/1`, or the whole path), and the origin of the page that is to read
//! it: `{"stream": "chat/room/1", "origin": "https://app.example"}`. The answer is `201` with `ticket`, `id`, by which it is
//! revoked, and `expiresAt`, in seconds since the Unix epoch.
//!
//! Only a token in `Authorization` is looked at, so that no page gets a ticket by what its browser sends unasked, and no
//! ticket becomes another one. The stream is not looked at: who may read it gets a ticket, whether it is there or not.
//!
//! Which project is asked is not in the path, so a preflight cannot know whose origins count. It allows any page to ask, which
//! has to bring the token; who may see the answer says the project.

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
    IssueError, Project, Projects, Purpose, Refusal, TicketId, TokenError,
    json::object,
    ticket::{expiry, issue},
    token::Token,
};
use tailwater_protocol::{StreamPath, path::STREAM_ROOT};

use crate::{
    admin::said,
    app::App,
    cors::Cors,
    guard::{Auth, Guard},
    problem::Problem,
    quota,
    request::Fields,
};

/// Where tickets are.
pub(crate) const PATH: &str = "/v1/ticket";
/// The most bytes of a body: the longest name of a stream, each byte of it escaped, and an origin.
const MAX_BODY: usize = 8 * 1024;

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
    match asked(&app, &parts, body).await {
        Ok((wanted, path)) => {
            let projects = guard.projects();
            let project = projects.get(&path.project);
            let cors = Cors::of_project(project, &parts.headers);
            let issued = issued(&app, guard, &projects, (project, &path), &wanted, &parts).await;
            let mut response = issued.unwrap_or_else(Problem::into_response);
            response.extensions_mut().insert(cors);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// What is asked for, by somebody who has something like a token: the body is not read for anybody else.
async fn asked(app: &App, parts: &Parts, body: Body) -> Result<(Wanted, StreamPath), Problem> {
    if let Err(problem) = token_of(parts) {
        app.bodies.decline(&parts.headers, body).await;
        return Err(problem);
    }
    let body = app.bodies.receive_within(MAX_BODY, &parts.headers, body).await?.bytes;
    let wanted = wanted(&body)?;
    let raw = wanted.stream.strip_prefix(STREAM_ROOT).unwrap_or(&wanted.stream);
    let path = StreamPath::parse(raw, &app.config.addressing, &app.config.default_project)?;
    Ok((wanted, path))
}

fn token_of(parts: &Parts) -> Result<&str, Problem> {
    let token = Fields(&parts.headers).bearer()?.ok_or(Refusal::NoToken)?;
    Token::parse(token).map_err(Refusal::Token)?;
    Ok(token)
}

fn wanted(body: &Bytes) -> Result<Wanted, Problem> {
    // Of what it says, only where it is wrong: what stands there could be a token.
    object(body).map_err(|error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        let fault = format!("not an object of `stream` and `origin`, both texts: line {line}, column {column}");
        Problem::invalid_ticket_request(&fault)
    })
}

async fn issued(
    app: &App,
    guard: &Guard,
    projects: &Projects,
    (project, path): (Option<&Project>, &StreamPath),
    wanted: &Wanted,
    parts: &Parts,
) -> Result<Response, Problem> {
    let now_ms = app.ambient.now();
    let grant = guard.grant(projects, &path.project, token_of(parts)?, guard.moment(now_ms)).await?;
    let project = project.ok_or(Refusal::Token(TokenError::Unverified))?;
    quota::charge_one(app, project, &grant, parts)?;
    let origin = Fields(&parts.headers).origin()?;
    if origin.is_some_and(|page| page != wanted.origin) {
        return Err(Problem::invalid_ticket_request(&"the page that asks is of another origin than the ticket"));
    }
    let secrets = &app.config.ticket_secrets;
    let purpose = Purpose { project, stream: &path.stream, origin: &wanted.origin, secrets };
    let mut id = TicketId([0; 9]);
    (app.ambient.secret)(&mut id.0);
    let now = now_ms / 1000;
    let ticket = issue(&purpose, &grant, now, id).map_err(|error| match error {
        IssueError::Refused(refusal) => refusal.into(),
        IssueError::Expired => Refusal::Token(TokenError::Expired).into(),
        IssueError::Origin => Problem::invalid_ticket_request(&error),
        IssueError::NoSecret => Problem::ticket_secret_missing(),
    })?;
    let expires_at = expiry(&grant, now);
    tracing::debug!(project = %project.id, %id, expires_at, "issued a ticket");
    let answer = json!({ "ticket": ticket.reveal(), "id": id.to_string(), "expiresAt": expires_at });
    Ok(said(StatusCode::CREATED, &answer))
}
