//! The administration: projects as they are in force, and tokens for them, as JSON under `/v1/admin/`.
//!
//! | path | method | what |
//! |---|---|---|
//! | `projects` | `GET` | all projects; for the operator |
//! | `projects/{project}` | `GET` | a project, without secrets |
//! | `projects/{project}/keys` | `GET` | its keys, without secrets |
//! | `projects/{project}/tokens` | `POST` | a new token |
//! | `projects/{project}/tokens/inspect` | `POST` | what the token in the body says, and whether it counts |
//! | `projects/{project}/revocations` | `POST` | a token, a ticket, or all of before a time count no more |
//! | `projects`, `projects/{project}` | `POST`, `PUT`, `DELETE` | projects of run time come and go; for the operator |
//! | `projects/{project}/keys`, `.../{key}` | `POST`, `PUT`, `DELETE` | their keys come, sign, and go |
//!
//! Projects of files are changed there. What changes others is in [`change`], and is written down first, where there is an
//! [audit log](crate::audit).
//!
//! It is there where tokens are asked for, and nowhere else. A token with the scope `manage`, for all streams, administers
//! its own project; the operator's credential, if there is one, administers all. Who has neither learns nothing about what
//! exists. No answer says that a page of another origin may see it, and none may be kept.

mod change;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tailwater_auth::{
    Act, Grant, JwksUrl, Key, KeyId, MAX_TOKEN, MintError, Moment, NewToken, Origins, Project, Projects, Quotas,
    Refusal, Ruling, Scope, Scopes, TokenError, Writers, decide, inspect as look_into,
    json::{given, object},
    mint,
    quota::{Allowance, Policy},
    register::Register,
    token::Token,
};
use tailwater_protocol::ProjectId;

use crate::{
    app::App,
    audit::{Attempt, Deed, Who},
    guard::{Auth, Guard},
    issuers::NoGrant,
    problem::Problem,
    request::Fields,
};

/// Where the administration is.
pub(crate) const ROOT: &str = "/v1/admin/";
/// The most bytes of a body: a token in JSON, or what a new one is to say.
const MAX_BODY: usize = 4 * MAX_TOKEN;
/// How long a body may take in all. It is short, and there are few connections for operations.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long a token lasts that nobody said how long it should, in seconds.
const LASTS: u64 = 3600;

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Projects,
    Project,
    Keys,
    Key,
    Tokens,
    Inspection,
    Revocations,
}

/// Who asks.
#[derive(Debug)]
enum Administrator {
    /// Who runs the gateway.
    Operator,
    /// Who has a token for one project.
    OfProject(Arc<Grant>),
}

/// Somebody who may not ask.
struct Denied {
    problem: Box<Problem>,
    /// Who it is, if that is known.
    who: Option<Who>,
}

/// A request of somebody who may ask.
struct Asked<'a> {
    app: &'a App,
    guard: &'a Guard,
    administrator: Administrator,
}

/// What a new token is to say. A member that is `null` is malformed, not missing: a restriction must not vanish so.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    scope: Vec<String>,
    #[serde(default, deserialize_with = "given")]
    streams: Option<Vec<String>>,
    /// Seconds.
    #[serde(default, deserialize_with = "given")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    id: Option<String>,
}

/// `/v1/admin/projects`.
pub(crate) async fn projects(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Projects, request).await
}

/// `/v1/admin/projects/{project}`.
pub(crate) async fn project(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Project, request).await
}

/// `/v1/admin/projects/{project}/keys`.
pub(crate) async fn keys(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Keys, request).await
}

/// `/v1/admin/projects/{project}/keys/{key}`.
pub(crate) async fn key(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Key, request).await
}

/// `/v1/admin/projects/{project}/tokens`.
pub(crate) async fn tokens(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Tokens, request).await
}

/// `/v1/admin/projects/{project}/tokens/inspect`.
pub(crate) async fn inspect(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Inspection, request).await
}

/// `/v1/admin/projects/{project}/revocations`.
pub(crate) async fn revocations(State(app): State<App>, request: Request) -> Response {
    answer(&app, Subject::Revocations, request).await
}

async fn answer(app: &App, subject: Subject, request: Request) -> Response {
    let Auth::Required(guard) = &app.config.auth else { return Problem::not_found().into_response() };
    if !subject.methods().contains(request.method()) {
        return Problem::method_not_allowed(subject.allowed()).into_response();
    }
    if guard.is_unread() {
        return Problem::register_not_known().into_response();
    }
    // Ids have no character that would be written in another way, so a path is taken as it stands.
    let id = request.uri().path().strip_prefix(ROOT).and_then(|rest| rest.split('/').nth(1));
    let id = id.and_then(|id| ProjectId::parse(id).ok());
    let projects = guard.projects();
    let deed = subject.deed(request.method());
    match Administrator::of(app, guard, &projects, id.as_ref(), request.headers()).await {
        Ok(administrator) => {
            let asked = Asked { app, guard, administrator };
            let answered = match deed {
                None => asked.looks(subject, &projects, id.as_ref(), request).await,
                Some(deed) => asked.acts(deed, id, request).await,
            };
            answered.unwrap_or_else(Problem::into_response)
        }
        Err(Denied { problem, who }) => {
            let (parts, body) = request.into_parts();
            app.bodies.decline(&parts.headers, body).await;
            if let (Some(deed), Some(who)) = (deed, who) {
                let attempt = Attempt::new(app, deed, id, who, &parts.headers);
                attempt.finish(Some(&problem)).await;
            }
            problem.into_response()
        }
    }
}

impl Asked<'_> {
    async fn looks(
        self,
        subject: Subject,
        projects: &Projects,
        id: Option<&ProjectId>,
        request: Request,
    ) -> Result<Response, Problem> {
        let project = || id.and_then(|id| projects.get(id)).ok_or_else(Problem::project_not_found);
        match subject {
            Subject::Projects => Ok(all(projects)),
            Subject::Project => Ok(said(StatusCode::OK, &shown(project()?))),
            Subject::Keys => Ok(said(StatusCode::OK, &keys_of(project()?))),
            Subject::Inspection => {
                let project = project()?;
                let body = self.body(MAX_BODY, request).await?;
                let token = str::from_utf8(&body).map(str::trim).unwrap_or_default();
                let moment = self.guard.moment(self.app.ambient.now());
                Ok(inspected(token, self.guard.grant(projects, &project.id, token, moment).await)?)
            }
            Subject::Key | Subject::Tokens | Subject::Revocations => {
                Err(Problem::method_not_allowed(subject.allowed()))
            }
        }
    }

    /// Does something, and sees to it that this is written down.
    async fn acts(self, deed: Deed, id: Option<ProjectId>, request: Request) -> Result<Response, Problem> {
        let mut attempt = Attempt::new(self.app, deed, id.clone(), self.administrator.who(), request.headers());
        let acted = Box::pin(self.tries(deed, id, request, &mut attempt)).await;
        attempt.finish(acted.as_ref().err()).await;
        acted
    }

    async fn tries(
        &self,
        deed: Deed,
        id: Option<ProjectId>,
        request: Request,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        if deed.is_operators() && !matches!(self.administrator, Administrator::Operator) {
            return Err(Problem::operator_needed());
        }
        // What other gateways were asked for before is what this is judged on, and who asks.
        self.guard.catch_up().await;
        self.still()?;
        let projects = self.guard.projects();
        let project = || id.as_ref().and_then(|id| projects.get(id)).ok_or_else(Problem::project_not_found);
        let named = || id.clone().ok_or_else(Problem::project_not_found);
        // A gateway that is given no register has the files alone, which nobody changes here.
        let log = || self.guard.register().ok_or_else(Problem::projects_from_files);
        match deed {
            Deed::MakeToken => self.mints(&project()?.id, request, attempt).await,
            Deed::MakeProject => self.makes(log()?, request, attempt).await,
            Deed::PutProject => self.puts(log()?, named()?, request, attempt).await,
            Deed::RemoveProject => self.removes(log()?, named()?, attempt).await,
            Deed::AddKey | Deed::PromoteKey | Deed::RemoveKey => {
                self.rekeys(log()?, deed, named()?, request, attempt).await
            }
            Deed::Revoke => self.revokes(log()?, project()?, request, attempt).await,
        }
    }

    /// Whether who asks may still ask. To be asked again behind whatever takes a while.
    fn still(&self) -> Result<(), Problem> {
        match &self.administrator {
            Administrator::Operator => Ok(()),
            Administrator::OfProject(grant) => {
                Ok(self.guard.counts(grant, None, self.app.ambient.now()).map_err(Refusal::Token)?)
            }
        }
    }

    /// The same by a register that is to be changed, which may say more than is in force here.
    fn still_in(&self, register: &Register) -> Result<(), Problem> {
        match &self.administrator {
            Administrator::Operator => Ok(()),
            Administrator::OfProject(grant) => {
                Ok(self.guard.counts_in(register, grant, self.app.ambient.now()).map_err(Refusal::Token)?)
            }
        }
    }

    async fn mints(&self, id: &ProjectId, request: Request, attempt: &mut Attempt<'_>) -> Result<Response, Problem> {
        let body = self.body(MAX_BODY, request).await?;
        // As they are behind the body: one that has lost its first key meanwhile signs with another.
        let projects = self.guard.projects();
        let project = projects.get(id).ok_or_else(Problem::project_not_found)?;
        let made = minted(self, project, &body, self.app.ambient.now() / 1000)?;
        let what = json!({ "id": made.id, "scope": made.scopes.to_string(), "expiresAt": made.expires_at });
        attempt.intend(what).await?;
        self.still()?;
        tracing::info!(project = %project.id, id = ?made.id, scopes = %made.scopes, made.expires_at, "made a token");
        let told = json!({ "token": made.token, "id": made.id, "expiresAt": made.expires_at });
        Ok(said(StatusCode::CREATED, &told))
    }

    /// A body, from somebody who may still ask when it has come.
    async fn body(&self, most: usize, request: Request) -> Result<Bytes, Problem> {
        let (parts, body) = request.into_parts();
        let received = self.app.bodies.receive_by(BODY_WITHIN, most, None, &parts.headers, body).await?;
        self.still()?;
        Ok(received.bytes)
    }
}

impl Subject {
    /// What can be asked of it, granted or not.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Projects | Self::Keys => &[Method::GET, Method::HEAD, Method::POST],
            Self::Project => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
            Self::Key => &[Method::PUT, Method::DELETE],
            Self::Tokens | Self::Inspection | Self::Revocations => &[Method::POST],
        }
    }

    /// What is done to it; nothing by who only looks.
    fn deed(self, method: &Method) -> Option<Deed> {
        if [Method::GET, Method::HEAD].contains(method) {
            return None;
        }
        let removes = *method == Method::DELETE;
        match self {
            Self::Inspection => None,
            Self::Projects => Some(Deed::MakeProject),
            Self::Project => Some(if removes { Deed::RemoveProject } else { Deed::PutProject }),
            Self::Keys => Some(Deed::AddKey),
            Self::Key => Some(if removes { Deed::RemoveKey } else { Deed::PromoteKey }),
            Self::Tokens => Some(Deed::MakeToken),
            Self::Revocations => Some(Deed::Revoke),
        }
    }

    /// The same for `Allow`.
    fn allowed(self) -> &'static str {
        match self {
            Self::Projects | Self::Keys => "GET, HEAD, POST, OPTIONS",
            Self::Project => "GET, HEAD, PUT, DELETE, OPTIONS",
            Self::Key => "PUT, DELETE, OPTIONS",
            Self::Tokens | Self::Inspection | Self::Revocations => "POST, OPTIONS",
        }
    }
}

impl Administrator {
    /// Who asks, if that is somebody who may administer this project; without one, all of them.
    async fn of(
        app: &App,
        guard: &Guard,
        projects: &Projects,
        id: Option<&ProjectId>,
        headers: &HeaderMap,
    ) -> Result<Self, Denied> {
        let unknown = |problem: Problem| Denied { problem: problem.into(), who: None };
        let token = Fields(headers).bearer().map_err(|error| unknown(error.into()))?;
        let token = token.ok_or_else(|| unknown(Refusal::NoToken.into()))?;
        if app.config.operator.as_ref().is_some_and(|operator| operator.is(token)) {
            return Ok(Self::Operator);
        }
        let refused = |error| unknown(Refusal::Token(error).into());
        // Of what is no project, or of all of them, no key verifies anything; the form is judged first, as always.
        Token::parse(token).map_err(refused)?;
        let id = id.ok_or_else(|| refused(TokenError::Unverified))?;
        let grant = guard.grant(projects, id, token, guard.moment(app.ambient.now())).await;
        let grant = grant.map_err(|error| unknown(error.into()))?;
        match decide(Act::Manage, Some(&grant), Writers::default()) {
            Ruling::Allowed => Ok(Self::OfProject(grant)),
            Ruling::IfPublic(refusal) | Ruling::Refused(refusal) => {
                Err(Denied { problem: Problem::from(refusal).into(), who: Some(Who::Bearer(grant.id.clone())) })
            }
        }
    }

    fn who(&self) -> Who {
        match self {
            Self::Operator => Who::Operator,
            Self::OfProject(grant) => Who::Bearer(grant.id.clone()),
        }
    }

    /// What may stand in a token that it asks for, and until when that may count: nothing goes beyond what it was made with,
    /// and only the operator makes administrators.
    fn bound(&self, scopes: Scopes, expires_at: u64) -> Result<u64, Problem> {
        let grant = match self {
            Self::Operator => return Ok(expires_at),
            Self::OfProject(grant) => grant,
        };
        if scopes.contains(Scope::Manage) {
            return Err(Problem::invalid_token_request(&"a token does not make another one with the scope `manage`"));
        }
        match scopes.iter().find(|scope| !grant.scopes.contains(*scope)) {
            Some(lacking) => Err(Refusal::Scope(lacking).into()),
            None => Ok(expires_at.min(grant.expires_at)),
        }
    }
}

/// A token that was made, and not told yet.
struct Minted {
    token: String,
    id: String,
    scopes: Scopes,
    expires_at: u64,
}

fn minted(asked: &Asked<'_>, project: &Project, body: &[u8], now: u64) -> Result<Minted, Problem> {
    let form = "`scope` and perhaps `streams`, `expiresIn` and `id`";
    let wanted: Wanted = read(form, body).map_err(|fault| Problem::invalid_token_request(&fault))?;
    let scopes: Option<Scopes> = wanted.scope.iter().map(|name| Scope::named(name)).collect();
    let scopes = scopes
        .filter(|scopes| *scopes != Scopes::default())
        .ok_or_else(|| Problem::invalid_token_request(&"`scope` is a list of `read`, `write` and `manage`"))?;
    let key = project.keys.first().and_then(Key::signing).ok_or_else(Problem::key_cannot_sign)?;
    let expires_at = asked.administrator.bound(scopes, now.saturating_add(wanted.expires_in.unwrap_or(LASTS)))?;
    let id = wanted.id.unwrap_or_else(|| asked.app.ambient.id());
    let token = NewToken {
        project: project.id.clone(),
        scopes,
        streams: wanted.streams,
        issued_at: now,
        expires_at,
        not_before: None,
        audience: project.audience.clone(),
        issuer: project.issuer.clone(),
        id: Some(id.clone()),
    };
    let minted = mint(&key, &token).map_err(|error| match error {
        MintError::Key => Problem::key_cannot_sign(),
        MintError::Streams(_) | MintError::Id | MintError::Expired | MintError::TooLong => {
            Problem::invalid_token_request(&error)
        }
    })?;
    // Such as one whose id is longer than one may be, or was revoked.
    let verified = project.verify(&minted, Moment { now, skew: 0 });
    let verified = verified.and_then(|grant| match asked.guard.revokes(&grant, None) {
        true => Err(TokenError::Revoked),
        false => Ok(()),
    });
    verified.map_err(|error| Problem::invalid_token_request(&error))?;
    Ok(Minted { token: minted, id, scopes, expires_at })
}

fn inspected(token: &str, verdict: Result<Arc<Grant>, NoGrant>) -> Result<Response, Problem> {
    let shown = look_into(token);
    let verdict = match verdict {
        Ok(grant) => json!({ "counts": true, "expiresAt": grant.expires_at }),
        Err(NoGrant::Token(error)) => {
            json!({ "counts": false, "reason": error.name(), "detail": error.to_string() })
        }
        Err(NoGrant::Away(away)) => return Err(away.into()),
    };
    Ok(said(StatusCode::OK, &json!({ "header": shown.header, "claims": shown.claims, "verdict": verdict })))
}

fn all(projects: &Projects) -> Response {
    let mut all: Vec<_> = projects.iter().collect();
    all.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    let all: Vec<_> = all.into_iter().map(shown).collect();
    said(StatusCode::OK, &json!({ "projects": all }))
}

fn shown(project: &Project) -> Value {
    let origins: Vec<&str> = match &project.origins {
        Origins::Closed => Vec::new(),
        Origins::Any => vec!["*"],
        Origins::Only(origins) => origins.iter().map(String::as_str).collect(),
    };
    json!({
        "id": project.id.as_str(),
        "visibility": project.visibility.as_str(),
        "writersRead": project.writers == Writers::ReadToo,
        "origins": origins,
        "cookie": project.cookie.as_ref().map(ToString::to_string),
        "audience": project.audience,
        "issuer": project.issuer,
        "jwks": project.jwks.as_ref().map(JwksUrl::without_query),
        "basin": project.basin.as_ref().map(ToString::to_string),
        "maxBody": project.limits.body,
        "maxReadersPerStream": project.limits.readers_per_stream,
        "quota": quotas_of(&project.quotas),
        "revokedTokens": project.revoked.len(),
        "keys": keys_of(project)["keys"],
    })
}

/// As its file has them; `null` where there are none.
fn quotas_of(quotas: &Quotas) -> Value {
    let flow = |policy: Option<Policy>| policy.map(|of| json!({ "most": of.quota, "within": of.window }));
    let allowance = |of: &Allowance| {
        json!({
            "requests": flow(of.requests),
            "bytes": flow(of.bytes),
            "connections": flow(of.connections),
            "readers": of.readers,
            "streams": of.streams,
        })
    };
    if *quotas == Quotas::default() {
        return Value::Null;
    }
    let mut shown = allowance(&quotas.project);
    shown["principal"] = allowance(&quotas.principal);
    shown
}

fn keys_of(project: &Project) -> Value {
    let key = |(at, key): (usize, &Key)| json!({ "id": key.id().map(KeyId::as_str), "algorithm": key.algorithm().as_str(), "first": at == 0 });
    json!({ "keys": project.keys.iter().enumerate().map(key).collect::<Vec<_>>() })
}

/// Reads an object of this form, or says what is wrong with it: of what stands there only the place is told, because it could
/// be a token or a secret.
pub(crate) fn read<T: DeserializeOwned>(form: &str, body: &[u8]) -> Result<T, String> {
    let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    object(body).map_err(|error| malformed(form, &place(error)))
}

fn malformed(form: &str, fault: &str) -> String {
    format!("not an object of {form}: {fault}")
}

/// An answer that is for who has asked alone.
pub(crate) fn said(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(value.to_string().into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
