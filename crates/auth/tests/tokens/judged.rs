//! What becomes of tokens and of what is asked with them.

use std::sync::LazyLock;

use tailwater_auth::{Act, File, Grant, Moment, Projects, Refusal, Ruling, decide, project::Writers};
use tailwater_protocol::ProjectId;

use crate::forge::{NOW, SKEW, document};

pub(crate) static PROJECTS: LazyLock<Projects> = LazyLock::new(|| projects(&document("")));

fn projects(document: &str) -> Projects {
    Projects::parse([File { name: "projects.toml", bytes: document.as_bytes() }]).unwrap()
}

pub(crate) fn moment(now: u64) -> Moment {
    Moment { now, skew: SKEW }
}

/// What becomes of a request for this: the status, and why.
pub(crate) fn asked(project: &str, token: &str, act: Act<'_>) -> (u16, String) {
    asked_at(NOW, project, token, act)
}

pub(crate) fn asked_at(now: u64, project: &str, token: &str, act: Act<'_>) -> (u16, String) {
    match granted(now, project, token) {
        Err(refusal) => (refusal.status(), named(refusal)),
        Ok(grant) => match decide(act, Some(&grant), Writers::WriteOnly) {
            Ruling::Allowed => (200, "allowed".to_owned()),
            Ruling::IfPublic(refusal) | Ruling::Refused(refusal) => (refusal.status(), named(refusal)),
        },
    }
}

pub(crate) fn granted(now: u64, project: &str, token: &str) -> Result<Grant, Refusal> {
    let project = ProjectId::parse(project).unwrap();
    let grant = PROJECTS.verify(&project, token, moment(now)).map_err(Refusal::Token)?;
    Ok((*grant).clone())
}

fn named(refusal: Refusal) -> String {
    match refusal {
        Refusal::Token(error) => error.name().to_owned(),
        Refusal::NoToken => "no_token".to_owned(),
        Refusal::Scope(scope) => format!("scope {scope}"),
        Refusal::Stream => "stream".to_owned(),
        Refusal::Hidden => "hidden".to_owned(),
        Refusal::Ticket(error) => format!("ticket {}", error.name()),
    }
}
