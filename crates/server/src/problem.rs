//! Errors to HTTP: the one place (RFC 9457; protocol, section 5).
//!
//! Every error response is `application/problem+json` with `type`, `title`, `status`, `code` and `detail`. A code never
//! changes; a detail may. Beside the codes of malformed requests (`400`, one for each field, see
//! [`BadRequest::code`]) there are:
//!
//! | status | code | further headers |
//! |---|---|---|
//! | 400 | `invalid_host` (none or two where there has to be one) | |
//! | 400 | `repeated_header`, `unreadable_header` (the member `field` names it), `broken_body` | |
//! | 400 | `offset_beyond_tail`, `fork_offset_beyond_tail`, `fork_sub_offset_beyond`, `fork_too_deep` | |
//! | 400 | `new_epoch_not_at_zero` | |
//! | 400 | `two_credentials`, `repeated_ticket`, `invalid_ticket_request` | |
//! | 401 | `token_needed`, `token_refused`, `ticket_refused` (the member `reason` says why) | `WWW-Authenticate` |
//! | 403 | `scope_needed` (the member `scope` names it), `stream_not_allowed` | `WWW-Authenticate` |
//! | 403 | `stale_epoch` | `Producer-Epoch`: the current one |
//! | 400 | `invalid_token_request`, `invalid_project`, `invalid_key_request`, `invalid_revocation` (to the administration) | |
//! | 400 | `invalid_seconds` (of a profile) | |
//! | 403 | `operator_needed` (to the administration) | `WWW-Authenticate` |
//! | 403 | `audit_stream` | `WWW-Authenticate` |
//! | 404 | `not_found` (the path), `stream_not_found`, `fork_source_not_found`, `project_not_found`, `key_not_found` | |
//! | 405 | `method_not_allowed` | `Allow` |
//! | 408 | `body_timeout` | |
//! | 409 | `stream_closed` | `Stream-Closed`, `Stream-Next-Offset`: the final one |
//! | 409 | `producer_gap` | `Producer-Expected-Seq`, `Producer-Received-Seq` |
//! | 409 | `content_type_mismatch`, `stream_seq_not_greater`, `stream_fenced`, `fork_source_deleted` | |
//! | 409 | `content_type_conflict`, `lifetime_conflict`, `closed_conflict`, `visibility_conflict`, `fork_conflict`, `deleted_conflict` (of a `PUT`) | |
//! | 409 | `projects_from_files`, `project_exists`, `key_cannot_sign`, `keys_conflict` (of the administration) | |
//! | 409 | `too_many_revoked_tokens`, `too_many_revoking_projects`, `no_room_for_project`, `unfit_record` (of the register) | |
//! | 409 | `ticket_secret_missing` | |
//! | 410 | `stream_deleted`, `fork_offset_gone` | |
//! | 410 | `offset_gone` | `Stream-Earliest-Offset` |
//! | 413 | `body_too_large` | |
//! | 415 | `content_encoding_not_supported` | |
//! | 429 | `too_many_producers`, `too_many_forks`, `too_many_connections_from_address`, `profile_under_way` | `Retry-After` |
//! | 429 | `quota_exceeded` (the member `violated-policies` names the quota) | `Retry-After`, `RateLimit`, `RateLimit-Policy` |
//! | 500 | `stream_unreadable`, `profile_failed` | |
//! | 501 | `reserved_name` | |
//! | 502 | `store_refused` | |
//! | 503 | `too_many_connections` | `Retry-After`; the connection ends |
//! | 503 | `over_fair_share` | `Retry-After`; with `Connection: close` where connections are nearly used up |
//! | 503 | `issuer_unavailable` (of a token that may count) | `Retry-After` |
//! | 503 | `stream_busy`, `too_many_readers`, `over_capacity`, `too_many_projects`, `draining`, `store_unavailable`, `outcome_unknown` | `Retry-After` |
//! | 503 | `register_not_known`, `register_behind`, `register_broken`, `register_contended`, `audit_unavailable` | `Retry-After` |
//!
//! The `type` is `urn:tailwater:problem:` and the code, but for `quota_exceeded` and `over_fair_share`, which are of types
//! that are registered (draft-ietf-httpapi-ratelimit-headers-11, section 5).
//!
//! What caused an error is logged here, once, and not sent.

mod administration;

use std::{error::Error, io, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use tailwater_auth::{
    Exceeded, Refusal as Denial,
    quota::{Fields, QUOTA_EXCEEDED, REDUCED_CAPACITY},
    ticket::Repeated,
};
use tailwater_fanout::{ForkError, OpError};
use tailwater_log::{ConfigField, Misplaced, Refusal};
use tailwater_protocol::{BadRequest, headers};
use tailwater_upstream::{Fault, Traffic};

use crate::{
    admission::Limit,
    body::BodyError,
    drain::Draining,
    host::HostError,
    issuers::{IssuerAway, NoGrant},
    quota,
    request::FieldError,
    share::Shared,
};

/// On a `410`: the earliest offset that can still be read. An extension.
pub const STREAM_EARLIEST_OFFSET: &str = "stream-earliest-offset";

/// When to come back, where nobody knows better.
const SOON: Duration = Duration::from_secs(1);
/// When to come back where there were too many: not at once, or they would be too many again.
const LESS_CROWDED: Duration = Duration::from_secs(5);
/// When to come back where a limit of the stream's state was met: state goes away slowly.
const LATER: Duration = Duration::from_secs(60);

/// The code of a refusal that draws its own `Retry-After`.
pub(crate) const QUOTA: &str = "quota_exceeded";
/// The code of a refusal for the sake of other projects.
const OVER_SHARE: &str = "over_fair_share";

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    fault: Fault,
    retryable: bool,
    headers: HeaderMap,
    members: Map<String, Value>,
}

/// What a response says about its problem to whoever counts responses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) code: &'static str,
    pub(crate) fault: Fault,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: &impl ToString) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.to_string(),
            fault: Fault::Client,
            retryable: false,
            headers: HeaderMap::new(),
            members: Map::new(),
        }
    }

    /// No such path.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", &"nothing is served at this path")
    }

    /// No such method here.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let detail = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", &detail)
            .with(header::ALLOW, allow)
    }

    /// No such project, which only who administers all of them is told.
    pub(crate) fn project_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "project_not_found", "Project not found", &"there is no such project")
    }

    /// What is asked for is a matter of files that are not this process's to write.
    pub(crate) fn projects_from_files() -> Self {
        let detail = "the projects are read from files, and are changed there: see `tailwater project`";
        Self::new(StatusCode::CONFLICT, "projects_from_files", "Projects from files", &detail)
    }

    /// The project's first key is a public one, or its keys are its issuer's.
    pub(crate) fn key_cannot_sign() -> Self {
        let detail = "the project has no secret that signs: whoever has the private key makes tokens";
        Self::new(StatusCode::CONFLICT, "key_cannot_sign", "Key cannot sign", &detail)
    }

    /// A token cannot be made as it was asked for.
    pub(crate) fn invalid_token_request(fault: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_token_request", "Malformed request", fault)
    }

    /// A token in the header and a ticket in the query: which of the two counts would be anyone's guess.
    pub(crate) fn two_credentials() -> Self {
        let detail = "the request has a token and a ticket; send one of them";
        Self::new(StatusCode::BAD_REQUEST, "two_credentials", "Two credentials", &detail)
    }

    /// A ticket cannot be issued as it was asked for.
    pub(crate) fn invalid_ticket_request(fault: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_ticket_request", "Malformed request", fault)
    }

    /// Nothing here could sign a ticket.
    pub(crate) fn ticket_secret_missing() -> Self {
        let detail = "the project's first key is a public one, so its tickets need --ticket-secret-file";
        Self::new(StatusCode::CONFLICT, "ticket_secret_missing", "No secret for tickets", &detail)
    }

    /// A profile does not take as long as that.
    pub(crate) fn invalid_seconds() -> Self {
        let detail = "`seconds` is a number from 1 to 60";
        Self::new(StatusCode::BAD_REQUEST, "invalid_seconds", "Malformed request", &detail)
    }

    /// There is one profile at a time.
    pub(crate) fn profile_under_way() -> Self {
        let detail = "another profile is being made";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "profile_under_way", "Profile under way", &detail).again_after(SOON)
    }

    /// The kernel does not say what a profile is made of.
    pub(crate) fn profile_failed(error: &io::Error) -> Self {
        tracing::error!(%error, "a profile could not be made");
        let detail = "the kernel does not say what is asked for";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "profile_failed", "Profile failed", &detail)
            .blamed_on(Fault::Gateway)
    }

    /// The store says nothing when it is asked whether it is there.
    pub(crate) fn store_silent() -> Self {
        let detail = "the store does not answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "Store unavailable", &detail)
            .blamed_on(Fault::Upstream)
            .again_after(SOON)
    }

    /// The store is not asked for something, because it did not answer that.
    pub(crate) fn store_left_alone(traffic: Traffic) -> Self {
        let detail = format!("the store does not answer {traffic}, and is left alone for a moment");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "Store unavailable", &detail)
            .blamed_on(Fault::Upstream)
            .member("suspended", traffic.label())
            .again_after(SOON)
    }

    /// A quota has no room for what is asked. `retry_after`, in seconds, is drawn for this one who asks.
    pub(crate) fn quota_exceeded(exceeded: &Exceeded, retry_after: u64) -> Self {
        let wait = Duration::from_secs(retry_after);
        Self::new(StatusCode::TOO_MANY_REQUESTS, QUOTA, "Quota exceeded", exceeded)
            .member("violated-policies", vec![exceeded.left.name()])
            .again_after(wait)
    }

    /// What projects share is nearly used up, and this one has more of it than others.
    pub(crate) fn over_fair_share(shared: Shared) -> Self {
        let detail = "the gateway is nearly full, and what is left is for projects that have less of it";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, OVER_SHARE, "Over capacity", &detail)
            .blamed_on(Fault::Gateway)
            .again_after(LESS_CROWDED);
        match shared {
            Shared::Requests | Shared::Streams | Shared::Bodies => problem,
            // The connection is what there are too many of.
            Shared::Connections => problem.with(header::CONNECTION, "close"),
        }
    }

    /// Says what is left of quotas.
    pub(crate) fn limited(mut self, fields: &Fields) -> Self {
        quota::tell(&mut self.headers, fields);
        self
    }

    /// In how long there is room again, where that is known of whoever asks.
    pub(crate) fn room_in(&self) -> Option<Duration> {
        let told = self.headers.get(header::RETRY_AFTER).filter(|_| self.code == QUOTA)?;
        told.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }

    /// The type that it is of (RFC 9457, section 3.1.1).
    fn kind(&self) -> String {
        match self.code {
            QUOTA => QUOTA_EXCEEDED.to_owned(),
            OVER_SHARE => REDUCED_CAPACITY.to_owned(),
            code => format!("urn:tailwater:problem:{code}"),
        }
    }

    /// Whether the connection is to end with the answer.
    pub(crate) fn ends_connection(&self) -> bool {
        self.headers.contains_key(header::CONNECTION)
    }

    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the same request may succeed in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.retryable
    }

    /// Whether it is the store that is away.
    pub(crate) fn is_of_the_store(&self) -> bool {
        self.fault == Fault::Upstream && self.retryable
    }

    fn with(mut self, name: impl Into<HeaderName>, value: &(impl ToString + ?Sized)) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.headers.insert(name.into(), value);
        }
        self
    }

    fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// How to come in (RFC 6750, section 3).
    fn challenge(self, attributes: &str) -> Self {
        self.with(header::WWW_AUTHENTICATE, &format!("Bearer realm=\"tailwater\"{attributes}"))
    }

    fn blamed_on(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn again_after(mut self, wait: Duration) -> Self {
        self.retryable = true;
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(header::RETRY_AFTER, &seconds.max(1))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = self.kind();
        let mut body = self.members;
        body.insert("type".to_owned(), kind.into());
        body.insert("title".to_owned(), self.title.into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("code".to_owned(), self.code.into());
        body.insert("detail".to_owned(), self.detail.into());
        let mut response = Response::new(Value::Object(body).to_string().into());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let fixed = response.headers_mut();
        fixed.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fixed.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(Counted { code: self.code, fault: self.fault });
        response
    }
}

impl From<BadRequest> for Problem {
    fn from(error: BadRequest) -> Self {
        // The protocol's own paths are known and not served, which is not the same as malformed (section 6).
        if error == BadRequest::ReservedName {
            return Self::new(StatusCode::NOT_IMPLEMENTED, error.code(), "Not implemented", &error);
        }
        Self::new(StatusCode::BAD_REQUEST, error.code(), "Malformed request", &error)
    }
}

impl From<Repeated> for Problem {
    fn from(error: Repeated) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "repeated_ticket", "Malformed request", &error)
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        let unauthorized = |code| Self::new(StatusCode::UNAUTHORIZED, code, "Unauthorized", &denial);
        let forbidden = |code| Self::new(StatusCode::FORBIDDEN, code, "Forbidden", &denial);
        match denial {
            Denial::NoToken => unauthorized("token_needed").challenge(""),
            Denial::Token(error) => unauthorized("token_refused")
                .member("reason", error.name())
                .challenge(&format!(", error=\"invalid_token\", error_description=\"{error}\"")),
            Denial::Ticket(error) => unauthorized("ticket_refused")
                .member("reason", error.name())
                .challenge(&format!(", error=\"invalid_token\", error_description=\"{error}\"")),
            Denial::Scope(scope) => forbidden("scope_needed")
                .member("scope", scope.as_str())
                .challenge(&format!(", error=\"insufficient_scope\", scope=\"{scope}\"")),
            Denial::Stream => forbidden("stream_not_allowed").challenge(", error=\"insufficient_scope\""),
            // Word for word what is said of a stream that is not there.
            Denial::Hidden => refused(&Refusal::NotFound),
        }
    }
}

impl From<NoGrant> for Problem {
    fn from(error: NoGrant) -> Self {
        match error {
            NoGrant::Token(error) => Denial::Token(error).into(),
            NoGrant::Away(away) => away.into(),
        }
    }
}

impl From<IssuerAway> for Problem {
    fn from(away: IssuerAway) -> Self {
        // Whether it counts is not known, so it is no `401`: its bearer would throw it away.
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "issuer_unavailable", "Issuer unavailable", &away)
            .blamed_on(Fault::Upstream)
            .again_after(away.again_after)
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        let named =
            |code, name| Self::new(StatusCode::BAD_REQUEST, code, "Malformed request", &error).member("field", name);
        match error {
            FieldError::Repeated { name } => named("repeated_header", name),
            FieldError::NotText { name } => named("unreadable_header", name),
            FieldError::Bad(bad) => bad.into(),
        }
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_host", "Malformed request", &error)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code, title) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
            BodyError::Encoded => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding_not_supported", "Encoding not supported")
            }
            BodyError::TimedOut => (StatusCode::REQUEST_TIMEOUT, "body_timeout", "Body too slow"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "broken_body", "Malformed request"),
            BodyError::OverFairShare => return Self::over_fair_share(Shared::Bodies),
            BodyError::OverBudget => return Limit::BodyBytes.into(),
        };
        Self::new(status, code, title, &error)
    }
}

impl From<Draining> for Problem {
    fn from(error: Draining) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "Shutting down", &error)
            .blamed_on(Fault::Gateway)
            .again_after(SOON)
    }
}

impl From<Limit> for Problem {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Connections | Limit::OperationsConnections | Limit::Descriptors => {
                let (code, title) = ("too_many_connections", "Too many connections");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, &limit).blamed_on(Fault::Gateway)
            }
            Limit::ConnectionsPerAddress => {
                let (code, title) = ("too_many_connections_from_address", "Too many connections");
                Self::new(StatusCode::TOO_MANY_REQUESTS, code, title, &limit)
            }
            Limit::Requests | Limit::BodyBytes => {
                let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "over_capacity", "Over capacity", &limit);
                return problem.blamed_on(Fault::Gateway).again_after(SOON);
            }
        }
        .again_after(LESS_CROWDED)
    }
}

impl From<OpError> for Problem {
    fn from(error: OpError) -> Self {
        let fault = error.fault();
        let unavailable =
            |code, title| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, &error).blamed_on(fault);
        match &error {
            OpError::Refused(refusal) => refused(refusal),
            OpError::Conflict { field } => conflict(*field),
            OpError::Misplaced(misplaced) => out_of_place(*misplaced),
            OpError::Fork(fork) => fork_refused(*fork),
            OpError::StreamBusy => unavailable("stream_busy", "Stream busy").again_after(SOON),
            OpError::TooManyReaders { .. } => unavailable("too_many_readers", "Too many readers").again_after(SOON),
            OpError::TooManyStreams => unavailable("over_capacity", "Over capacity").again_after(SOON),
            OpError::OverFairShare => Self::over_fair_share(Shared::Streams),
            OpError::TooManyProjects { .. } => unavailable("too_many_projects", "Too many projects").again_after(LATER),
            OpError::Draining => unavailable("draining", "Shutting down").again_after(SOON),
            OpError::Unavailable { retry_after, .. } => {
                log(&error);
                unavailable("store_unavailable", "Store unavailable").again_after(retry_after.unwrap_or(SOON))
            }
            OpError::OutcomeUnknown => {
                log(&error);
                unavailable("outcome_unknown", "Outcome unknown").again_after(SOON)
            }
            OpError::Unreadable { .. } => {
                log(&error);
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "stream_unreadable", "Stream unreadable", &error)
                    .blamed_on(fault)
            }
            OpError::StoreRefused { .. } => {
                log(&error);
                Self::new(StatusCode::BAD_GATEWAY, "store_refused", "Store refused", &error).blamed_on(fault)
            }
        }
    }
}

fn refused(refusal: &Refusal) -> Problem {
    let problem = |status, code, title| Problem::new(status, code, title, refusal);
    let conflict = |code, title| problem(StatusCode::CONFLICT, code, title);
    match refusal {
        Refusal::NotFound => problem(StatusCode::NOT_FOUND, "stream_not_found", "Stream not found"),
        Refusal::SoftDeleted => problem(StatusCode::GONE, "stream_deleted", "Stream deleted"),
        Refusal::Closed { tail } => conflict("stream_closed", "Stream closed")
            .with(HeaderName::from_static(headers::STREAM_CLOSED), "true")
            .with(HeaderName::from_static(headers::STREAM_NEXT_OFFSET), tail),
        Refusal::ContentType { .. } => conflict("content_type_mismatch", "Content type mismatch"),
        Refusal::StaleEpoch { current } => problem(StatusCode::FORBIDDEN, "stale_epoch", "Stale epoch")
            .with(HeaderName::from_static(headers::PRODUCER_EPOCH), current),
        Refusal::EpochStart => problem(StatusCode::BAD_REQUEST, "new_epoch_not_at_zero", "Malformed request"),
        Refusal::ProducerGap { expected, received } => conflict("producer_gap", "Producer sequence gap")
            .with(HeaderName::from_static(headers::PRODUCER_EXPECTED_SEQ), expected)
            .with(HeaderName::from_static(headers::PRODUCER_RECEIVED_SEQ), received),
        Refusal::TooManyProducers => {
            problem(StatusCode::TOO_MANY_REQUESTS, "too_many_producers", "Too many producers").again_after(LATER)
        }
        Refusal::StreamSeq => conflict("stream_seq_not_greater", "Sequence regression"),
        Refusal::Fenced => conflict("stream_fenced", "Stream fenced"),
        Refusal::TooManyForks => {
            problem(StatusCode::TOO_MANY_REQUESTS, "too_many_forks", "Too many forks").again_after(LATER)
        }
    }
}

fn conflict(field: ConfigField) -> Problem {
    let (code, detail) = match field {
        ConfigField::ContentType => ("content_type_conflict", "the stream exists with another content type"),
        ConfigField::Lifetime => ("lifetime_conflict", "the stream exists with another ttl or expiry"),
        ConfigField::Closed => ("closed_conflict", "the stream exists and is closed or open, unlike the request"),
        ConfigField::Visibility => ("visibility_conflict", "the stream exists with another visibility"),
        ConfigField::Fork => ("fork_conflict", "the stream exists and was forked elsewhere or not at all"),
        ConfigField::SoftDeleted => ("deleted_conflict", "the stream is deleted and kept for its forks"),
    };
    Problem::new(StatusCode::CONFLICT, code, "Stream exists", &detail)
}

fn out_of_place(misplaced: Misplaced) -> Problem {
    match misplaced {
        Misplaced::Beyond => {
            Problem::new(StatusCode::BAD_REQUEST, "offset_beyond_tail", "Offset beyond tail", &misplaced)
        }
        Misplaced::Gone { earliest } => Problem::new(StatusCode::GONE, "offset_gone", "Offset gone", &misplaced)
            .with(HeaderName::from_static(STREAM_EARLIEST_OFFSET), &earliest)
            .member("earliestOffset", earliest.to_string()),
    }
}

fn fork_refused(fork: ForkError) -> Problem {
    let (status, code, title) = match fork {
        ForkError::SourceNotFound => (StatusCode::NOT_FOUND, "fork_source_not_found", "Source not found"),
        ForkError::SourceDeleted => (StatusCode::CONFLICT, "fork_source_deleted", "Source deleted"),
        ForkError::OffsetBeyond => (StatusCode::BAD_REQUEST, "fork_offset_beyond_tail", "Fork offset beyond tail"),
        ForkError::OffsetGone => (StatusCode::GONE, "fork_offset_gone", "Fork offset gone"),
        ForkError::SubOffset => (StatusCode::BAD_REQUEST, "fork_sub_offset_beyond", "Fork sub-offset beyond data"),
        ForkError::TooDeep => (StatusCode::BAD_REQUEST, "fork_too_deep", "Forks nested too deep"),
    };
    Problem::new(status, code, title, &fork)
}

/// Once for each cause. What has none was logged where it was met first, or is the echo of a store that is left alone,
/// and there may be very many of these.
fn log(error: &OpError) {
    if error.source().is_none() && matches!(error, OpError::Unavailable { .. }) {
        return tracing::debug!(%error, "a request failed");
    }
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(found) = cause {
        causes.push(found.to_string());
        cause = found.source();
    }
    tracing::warn!(%error, causes = causes.join(": "), "a request failed");
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tailwater_auth::{
        TicketError,
        quota::{Holder, Left, Metered},
    };
    use tailwater_protocol::Offset;

    use super::*;

    const AT: Offset = Offset { birth: 7, seq: 9 };

    async fn shown(problem: impl Into<Problem>) -> (u16, Value, HeaderMap) {
        let response = problem.into().into_response();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), parts.headers)
    }

    fn all_op_errors() -> Vec<(OpError, u16)> {
        let mut all = vec![
            (Refusal::NotFound.into(), 404),
            (Refusal::SoftDeleted.into(), 410),
            (Refusal::Closed { tail: AT }.into(), 409),
            (Refusal::ContentType { actual: "text/plain".to_owned() }.into(), 409),
            (Refusal::StaleEpoch { current: 3 }.into(), 403),
            (Refusal::EpochStart.into(), 400),
            (Refusal::ProducerGap { expected: 1, received: 2 }.into(), 409),
            (Refusal::TooManyProducers.into(), 429),
            (Refusal::StreamSeq.into(), 409),
            (Refusal::Fenced.into(), 409),
            (Refusal::TooManyForks.into(), 429),
            (Misplaced::Beyond.into(), 400),
            (Misplaced::Gone { earliest: AT }.into(), 410),
            (ForkError::SourceNotFound.into(), 404),
            (ForkError::SourceDeleted.into(), 409),
            (ForkError::OffsetBeyond.into(), 400),
            (ForkError::OffsetGone.into(), 410),
            (ForkError::SubOffset.into(), 400),
            (ForkError::TooDeep.into(), 400),
            (OpError::StreamBusy, 503),
            (OpError::TooManyReaders { limit: 4 }, 503),
            (OpError::TooManyStreams, 503),
            (OpError::OverFairShare, 503),
            (OpError::TooManyProjects { limit: 4 }, 503),
            (OpError::Draining, 503),
            (OpError::Unavailable { retry_after: None, cause: Some("secret".into()) }, 503),
            (OpError::OutcomeUnknown, 503),
            (OpError::Unreadable { seq: 4 }, 500),
            (OpError::StoreRefused { cause: Some("secret".into()) }, 502),
        ];
        let fields = [
            ConfigField::ContentType,
            ConfigField::Lifetime,
            ConfigField::Closed,
            ConfigField::Visibility,
            ConfigField::Fork,
            ConfigField::SoftDeleted,
        ];
        all.extend(fields.map(|field| (OpError::Conflict { field }, 409)));
        all
    }

    #[tokio::test]
    async fn every_error_has_a_status_and_a_code_of_the_table_and_hides_its_cause() {
        let table = include_str!("problem.rs");
        for (error, expected) in all_op_errors() {
            let shown_error = error.to_string();
            let (status, body, headers) = shown(error).await;
            assert_eq!(status, expected, "{shown_error}");
            assert_eq!(body["status"], expected);
            let code = body["code"].as_str().unwrap();
            let row =
                |line: &str| line.starts_with(&format!("//! | {status} |")) && line.contains(&format!("`{code}`"));
            assert!(table.lines().any(row), "{status} {code} is not in the table");
            let own = format!("urn:tailwater:problem:{code}");
            assert_eq!(body["type"], if code == OVER_SHARE { REDUCED_CAPACITY } else { &own });
            assert!(!body.to_string().contains("secret"));
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["cache-control"], "no-store");
            let passing = status == 503 || status == 429;
            assert_eq!(headers.contains_key("retry-after"), passing, "{code}");
        }
    }

    #[tokio::test]
    async fn what_a_quota_has_no_room_for_is_of_a_registered_type_and_names_the_quota() {
        let left = Left { holder: Holder::Project, metered: Metered::Bytes, quota: 9, window: Some(9), available: 3 };
        let exceeded = Exceeded { left, wait: Some(Duration::from_millis(2_500)) };
        let fields = Fields::of(&[], Some(&exceeded)).unwrap();
        let problem = Problem::quota_exceeded(&exceeded, 7).limited(&fields);
        assert_eq!(problem.room_in(), Some(Duration::from_secs(7)));
        let (status, body, headers) = shown(problem).await;
        assert_eq!((status, &body["code"]), (429, &Value::from("quota_exceeded")));
        assert_eq!(
            (&body["type"], &body["violated-policies"]),
            (&QUOTA_EXCEEDED.into(), &vec!["project-bytes"].into())
        );
        assert_eq!(
            (&headers["retry-after"], &headers["ratelimit"]),
            (&"7".parse().unwrap(), &fields.limit.parse().unwrap())
        );
        assert_eq!(headers["ratelimit-policy"], fields.policy);
    }

    #[tokio::test]
    async fn who_has_more_than_a_share_is_told_so_and_leaves_the_connection_where_that_is_what_is_rare() {
        for (shared, ends) in
            [(Shared::Requests, false), (Shared::Connections, true), (Shared::Streams, false), (Shared::Bodies, false)]
        {
            let (status, body, headers) = shown(Problem::over_fair_share(shared)).await;
            assert_eq!(
                (status, &body["code"], &body["type"]),
                (503, &"over_fair_share".into(), &REDUCED_CAPACITY.into())
            );
            assert_eq!(headers["retry-after"], "5");
            assert_eq!(headers.get("connection").is_some_and(|value| value == "close"), ends);
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_ticket_has_a_code_of_the_table() {
        let late = Denial::from(TicketError::Late);
        let table: [(Problem, u16, &str, bool); 5] = [
            (Problem::two_credentials(), 400, "two_credentials", false),
            (Repeated.into(), 400, "repeated_ticket", false),
            (Problem::invalid_ticket_request(&"x"), 400, "invalid_ticket_request", false),
            (late.into(), 401, "ticket_refused", true),
            (Problem::ticket_secret_missing(), 409, "ticket_secret_missing", false),
        ];
        for (problem, expected, code, challenged) in table {
            let (status, body, headers) = shown(problem).await;
            assert_eq!((status, body["code"].as_str()), (expected, Some(code)));
            assert_eq!(headers.contains_key("www-authenticate"), challenged, "{code}");
            let row = |line: &str| line.starts_with(&format!("//! | {status} |")) && line.contains(code);
            assert!(include_str!("problem.rs").lines().any(row), "{code}");
        }
        assert_eq!(shown(late).await.1["reason"], "late");
    }

    #[tokio::test]
    async fn a_closed_stream_says_where_it_ends() {
        let (_, _, headers) = shown(OpError::from(Refusal::Closed { tail: AT })).await;
        assert_eq!(headers["stream-closed"], "true");
        assert_eq!(headers["stream-next-offset"], AT.to_string());
    }

    #[tokio::test]
    async fn a_producer_learns_what_would_have_been_right() {
        let (_, _, stale) = shown(OpError::from(Refusal::StaleEpoch { current: 3 })).await;
        assert_eq!(stale["producer-epoch"], "3");
        let (_, _, gap) = shown(OpError::from(Refusal::ProducerGap { expected: 1, received: 5 })).await;
        assert_eq!(gap["producer-expected-seq"], "1");
        assert_eq!(gap["producer-received-seq"], "5");
    }

    #[tokio::test]
    async fn a_reader_whose_offset_is_gone_learns_the_earliest() {
        let (_, body, headers) = shown(OpError::from(Misplaced::Gone { earliest: AT })).await;
        assert_eq!(headers["stream-earliest-offset"], AT.to_string());
        assert_eq!(body["earliestOffset"], AT.to_string());
    }

    #[tokio::test]
    async fn a_store_that_is_left_alone_is_named_by_what_it_does_not_answer() {
        let (status, body, headers) = shown(Problem::store_left_alone(Traffic::Appends)).await;
        assert_eq!((status, body["code"].as_str()), (503, Some("store_unavailable")));
        assert_eq!(body["suspended"], "appends");
        assert_eq!(headers["retry-after"], "1");
    }

    #[tokio::test]
    async fn a_token_of_which_nobody_knows_is_not_refused() {
        let (status, body, headers) = shown(IssuerAway { again_after: Duration::from_millis(6200) }).await;
        assert_eq!((status, body["code"].as_str()), (503, Some("issuer_unavailable")));
        assert_eq!(headers["retry-after"], "7");
        assert!(!headers.contains_key("www-authenticate"));
        let (status, body, _) = shown(NoGrant::Token(tailwater_auth::TokenError::Unverified)).await;
        assert_eq!((status, body["reason"].as_str()), (401, Some("unverified")));
    }

    #[tokio::test]
    async fn a_wait_is_rounded_up_to_whole_seconds() {
        for (wait, header) in [(None, "1"), (Some(0), "1"), (Some(1000), "1"), (Some(1001), "2"), (Some(30_000), "30")]
        {
            let retry_after = wait.map(Duration::from_millis);
            let (_, _, headers) = shown(OpError::Unavailable { retry_after, cause: None }).await;
            assert_eq!(headers["retry-after"], header);
        }
    }

    #[tokio::test]
    async fn a_malformed_request_has_the_code_of_its_field() {
        let (status, body, _) = shown(BadRequest::MissingOffset).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("missing_offset")));
        let (status, body, _) = shown(BadRequest::ReservedName).await;
        assert_eq!((status, body["code"].as_str()), (501, Some("reserved_name")));
        let (status, body, _) = shown(FieldError::Repeated { name: "stream-ttl" }).await;
        assert_eq!((status, body["field"].as_str()), (400, Some("stream-ttl")));
    }

    #[tokio::test]
    async fn a_body_that_is_not_taken_says_why() {
        let table = [
            (BodyError::TooLarge { max: 8 }, 413),
            (BodyError::Encoded, 415),
            (BodyError::TimedOut, 408),
            (BodyError::Broken, 400),
            (BodyError::OverBudget, 503),
            (BodyError::OverFairShare, 503),
        ];
        for (error, expected) in table {
            assert_eq!(shown(error).await.0, expected);
        }
    }
}
