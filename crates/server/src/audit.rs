//! The audit log: what was asked of the administration, by whom, and what became of it, as JSON messages of one stream.
//!
//! ```json
//! {"time": 1800000000000, "entry": "4be1…", "outcome": "intent", "act": "remove_key", "project": "chat",
//!  "who": {"token": "alice-1"}, "what": {"key": "2026-10"}, "request": "7f3a"}
//! ```
//!
//! | outcome | what it says |
//! |---|---|
//! | `intent` | it is about to be done; what cannot be written down is not done |
//! | `done` | it is done, and in force on the pod that was asked |
//! | `failed` | it was not done; `problem` is the code of the answer |
//! | `unknown` | whether it was done is not known |
//! | `refused` | it was not tried; `problem` is the code of the answer |
//!
//! Entries of one act have the same `entry`. An intent that nothing follows is of an act whose pod or client went away
//! before its end: it may have been done. Whoever is refused time and again does not fill the log: beyond
//! [`REFUSALS_A_MINUTE`] they are counted, and the next refusal that is written says how many were `omitted`.
//!
//! No entry holds a secret: not a token, a key, or a project's text. `request` is the client's `X-Request-Id`, if that is
//! a short one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tailwater_fanout::{Create, NewVisibility, OpError, Post};
use tailwater_log::Visibility;
use tailwater_protocol::{ContentType, ProjectId};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, timeout};

use crate::{app::App, metrics::Metrics, problem::Problem};

/// How many refusals a pod writes down in a minute.
const REFUSALS_A_MINUTE: u32 = 60;
/// The minute.
const MINUTE: Duration = Duration::from_secs(60);
/// How long an entry may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of a request's id that are written down.
const MAX_REQUEST_ID: usize = 64;

/// The audit log of a gateway, if it has one.
#[derive(Debug)]
pub(crate) struct AuditLog {
    stream: Option<StreamKey>,
    refusals: Mutex<Refusals>,
    metrics: Metrics,
}

/// The refusals of a minute.
#[derive(Debug)]
struct Refusals {
    since: Instant,
    written: u32,
    omitted: u64,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    MakeProject,
    PutProject,
    RemoveProject,
    AddKey,
    PromoteKey,
    RemoveKey,
    MakeToken,
    Revoke,
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Who runs the gateway.
    Operator,
    /// Who has a token, by its `jti`.
    Bearer(Option<String>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Intent,
    Done,
    Failed,
    Unknown,
    Refused,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    No,
    Omitted,
}

/// Somebody who is known tries to do something.
pub(crate) struct Attempt<'a> {
    app: &'a App,
    deed: Deed,
    project: Option<ProjectId>,
    who: Who,
    request: Option<String>,
    /// What all its entries are called.
    entry: String,
    what: Value,
    noted: Noted,
}

/// Whether it was written down that it is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    NotYet,
    Yes,
    Impossible,
}

impl AuditLog {
    pub(crate) fn new(stream: Option<StreamKey>, metrics: &Metrics) -> Self {
        let refusals = Mutex::new(Refusals { since: Instant::now(), written: 0, omitted: 0 });
        Self { stream, refusals, metrics: metrics.clone() }
    }

    /// Whether a refusal may be written down, and how many were not before it.
    fn admits_refusal(&self) -> Option<u64> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.since.elapsed() >= MINUTE {
            (refusals.since, refusals.written) = (Instant::now(), 0);
        }
        if refusals.written >= REFUSALS_A_MINUTE {
            refusals.omitted += 1;
            return None;
        }
        refusals.written += 1;
        Some(std::mem::take(&mut refusals.omitted))
    }
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(app: &'a App, deed: Deed, project: Option<ProjectId>, who: Who, headers: &HeaderMap) -> Self {
        let (entry, request) = (app.ambient.id(), request_id(headers));
        Self { app, deed, project, who, request, entry, what: Value::Null, noted: Noted::NotYet }
    }

    /// Says which project it is about, where the path does not.
    pub(crate) fn concerns(&mut self, project: &ProjectId) {
        self.project = Some(project.clone());
    }

    /// Writes down what is about to be done; nothing is done where that fails.
    ///
    /// # Errors
    /// It cannot be written down.
    pub(crate) async fn intend(&mut self, what: Value) -> Result<(), Problem> {
        self.what = what;
        let written = self.write(Outcome::Intent, None, 0).await;
        self.noted = if written.is_ok() { Noted::Yes } else { Noted::Impossible };
        written.map_err(|()| Problem::audit_unavailable())
    }

    /// Writes down what has become of it. That it cannot be is logged.
    pub(crate) async fn finish(self, problem: Option<&Problem>) {
        let problem = problem.map(Problem::code);
        let outcome = match (self.noted, problem) {
            (Noted::Yes, None) => Outcome::Done,
            (Noted::Yes, Some("outcome_unknown")) => Outcome::Unknown,
            (Noted::Yes, Some(_)) => Outcome::Failed,
            (Noted::NotYet, Some(_)) => Outcome::Refused,
            (Noted::NotYet, None) | (Noted::Impossible, _) => return,
        };
        if outcome != Outcome::Refused {
            self.write(outcome, problem, 0).await.ok();
            return;
        }
        match self.app.audit.admits_refusal() {
            Some(omitted) => self.write(outcome, problem, omitted).await.unwrap_or_default(),
            None => self.app.audit.metrics.audited(Written::Omitted),
        }
    }

    async fn write(&self, outcome: Outcome, problem: Option<&'static str>, omitted: u64) -> Result<(), ()> {
        let Some(stream) = &self.app.audit.stream else { return Ok(()) };
        let message = self.message(outcome, problem, omitted).to_string();
        let written = timeout(WRITTEN_WITHIN, Box::pin(append(self.app, stream, message))).await;
        match written {
            Ok(Ok(())) => {
                self.app.audit.metrics.audited(Written::Yes);
                return Ok(());
            }
            Ok(Err(error)) => tracing::error!(%error, "the audit log was not written"),
            Err(_) => tracing::error!("the audit log was not written in time"),
        }
        self.app.audit.metrics.audited(Written::No);
        Err(())
    }

    fn message(&self, outcome: Outcome, problem: Option<&'static str>, omitted: u64) -> Value {
        let who = match &self.who {
            Who::Operator => json!("operator"),
            Who::Bearer(id) => json!({ "token": id }),
        };
        let mut message = json!({
            "time": self.app.ambient.now(),
            "entry": self.entry,
            "outcome": outcome.name(),
            "act": self.deed.name(),
            "project": self.project.as_ref().map(ProjectId::as_str),
            "who": who,
        });
        let further = [
            ("what", Some(self.what.clone()).filter(|what| !what.is_null())),
            ("problem", problem.map(Value::from)),
            ("omitted", Some(omitted).filter(|omitted| *omitted > 0).map(Value::from)),
            ("request", self.request.clone().map(Value::from)),
        ];
        for (name, value) in further {
            if let Some(value) = value {
                message[name] = value;
            }
        }
        message
    }
}

/// Appends to the stream, which is made if it is not there: of JSON, private, and for ever.
async fn append(app: &App, stream: &StreamKey, message: String) -> Result<(), OpError> {
    let content_type = ContentType::parse("application/json").ok();
    let create = Create {
        content_type: content_type.clone(),
        lifetime: None,
        visibility: NewVisibility::Declared(Visibility::Private),
        messages: Vec::new(),
        closed: false,
        fork: None,
    };
    app.gateway.create(stream, create).await?;
    let post = Post { messages: vec![message.into()], content_type, producer: None, stream_seq: None, close: false };
    app.gateway.append(stream, post).await.map(drop)
}

/// What the client calls its request, where that is short and plain.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id").map(HeaderValue::as_bytes)?;
    let plain = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    plain.then(|| String::from_utf8_lossy(id).into_owned())
}

impl Deed {
    /// Whether it takes whoever runs the gateway.
    pub(crate) const fn is_operators(self) -> bool {
        match self {
            Self::MakeProject | Self::PutProject | Self::RemoveProject => true,
            Self::AddKey | Self::PromoteKey | Self::RemoveKey | Self::MakeToken | Self::Revoke => false,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::MakeProject => "make_project",
            Self::PutProject => "put_project",
            Self::RemoveProject => "remove_project",
            Self::AddKey => "add_key",
            Self::PromoteKey => "promote_key",
            Self::RemoveKey => "remove_key",
            Self::MakeToken => "make_token",
            Self::Revoke => "revoke",
        }
    }
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }
}

impl Written {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Yes => "written",
            Self::No => "failed",
            Self::Omitted => "omitted",
        }
    }
}
