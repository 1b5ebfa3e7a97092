//! Errors of the administration, of the register, and of the audit log.

use std::error::Error as _;

use http::StatusCode;
use tailwater_auth::{
    KeysError, RekeyError, TokenError,
    register::{PutError, Unfit},
};
use tailwater_register::{AppendError, Standing};
use tailwater_upstream::{AppendError as StoreError, Fault};

use super::{LATER, LESS_CROWDED, Problem, SOON};

impl Problem {
    /// What was revoked, and which projects there are, was not read yet.
    pub(crate) fn register_not_known() -> Self {
        let detail = "what was revoked is not known yet, so nobody can be judged";
        unavailable("register_not_known", "Register not known", &detail, Fault::Upstream).again_after(SOON)
    }

    /// What was revoked of late is not known.
    pub(crate) fn register_behind() -> Self {
        let detail = "the store does not tell what was revoked of late; what was known before counts";
        unavailable("register_behind", "Register behind", &detail, Fault::Upstream).again_after(SOON)
    }

    /// What was revoked of late cannot be known.
    pub(crate) fn register_broken() -> Self {
        let detail = "the register cannot be read on, or has lost records; what was known before counts";
        unavailable("register_broken", "Register broken", &detail, Fault::Gateway).again_after(LATER)
    }

    /// What is wrong with a register that stands like this. One that is known well was not put in force yet.
    pub(crate) fn register_stands(standing: Standing) -> Self {
        match standing {
            Standing::Unread | Standing::Current => Self::register_not_known(),
            Standing::Behind => Self::register_behind(),
            Standing::Unreadable | Standing::Shortened => Self::register_broken(),
        }
    }

    /// It is done, and not in force on this pod yet.
    pub(crate) fn not_in_force_yet() -> Self {
        let detail = "it is in the register, and will be in force here in a moment";
        unavailable("outcome_unknown", "Outcome unknown", &detail, Fault::Gateway).again_after(SOON)
    }

    /// The act cannot be written down, so it is not done.
    pub(crate) fn audit_unavailable() -> Self {
        let detail = "the audit log cannot be written, and without it nothing is administered";
        unavailable("audit_unavailable", "Audit log unavailable", &detail, Fault::Gateway).again_after(SOON)
    }

    /// The stream is the gateway's alone to write.
    pub(crate) fn audit_stream() -> Self {
        let detail = "this stream is the audit log, which only the gateway writes";
        Self::new(StatusCode::FORBIDDEN, "audit_stream", "Forbidden", &detail)
            .challenge(", error=\"insufficient_scope\"")
    }

    /// It takes whoever runs the gateway.
    pub(crate) fn operator_needed() -> Self {
        let detail = "only the operator's credential makes, replaces and removes projects";
        Self::new(StatusCode::FORBIDDEN, "operator_needed", "Forbidden", &detail)
            .challenge(", error=\"insufficient_scope\"")
    }

    /// There is a project of this id.
    pub(crate) fn project_exists() -> Self {
        let detail = "there is a project of this id; `PUT` it to replace it";
        Self::new(StatusCode::CONFLICT, "project_exists", "Project exists", &detail)
    }

    /// A text is no document of one project that can be made.
    pub(crate) fn invalid_project(fault: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_project", "Malformed request", fault)
    }

    /// What a key is to be cannot be made out.
    pub(crate) fn invalid_key_request(fault: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_key_request", "Malformed request", fault)
    }

    /// What is to be revoked cannot be made out.
    pub(crate) fn invalid_revocation(fault: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_revocation", "Malformed request", fault)
    }

    /// The token that is to be revoked does not count, or not here.
    pub(crate) fn not_to_be_revoked(error: TokenError) -> Self {
        Self::invalid_revocation(&error).member("reason", error.name())
    }

    /// The project has no such key.
    pub(crate) fn key_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "key_not_found", "Key not found", &"the project has no such key")
    }
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        Self::invalid_project(&error)
    }
}

impl From<RekeyError> for Problem {
    fn from(error: RekeyError) -> Self {
        match &error {
            RekeyError::Keys(KeysError::Unknown { .. }) => Self::key_not_found(),
            RekeyError::NoProject(_) => Self::project_not_found(),
            RekeyError::Keys(KeysError::Last | KeysError::TooMany | KeysError::Repeated { .. })
            | RekeyError::Malformed
            | RekeyError::OtherForm => Self::new(StatusCode::CONFLICT, "keys_conflict", "Keys conflict", &error),
        }
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        let (code, title) = match unfit {
            Unfit::Malformed => ("unfit_record", "Unfit record"),
            Unfit::Tokens => ("too_many_revoked_tokens", "Too many revoked tokens"),
            Unfit::Rows => ("too_many_revoking_projects", "Too many projects"),
            Unfit::Projects => ("no_room_for_project", "No room for the project"),
        };
        Self::new(StatusCode::CONFLICT, code, title, &unfit)
    }
}

impl From<AppendError<Self>> for Problem {
    fn from(error: AppendError<Self>) -> Self {
        match error {
            AppendError::Declined(problem) => problem,
            AppendError::Unfit(unfit) => unfit.into(),
            AppendError::NotFollowed(standing) => Self::register_stands(standing),
            AppendError::Contended => {
                unavailable("register_contended", "Register contended", &error, Fault::Gateway).again_after(SOON)
            }
            AppendError::Store(StoreError::Refused { .. }) => {
                log(&error);
                Self::new(StatusCode::BAD_GATEWAY, "store_refused", "Store refused", &error).blamed_on(Fault::Gateway)
            }
            AppendError::Store(StoreError::TooManyProjects { .. }) => {
                unavailable("too_many_projects", "Too many projects", &error, Fault::Gateway).again_after(LESS_CROWDED)
            }
            AppendError::Store(_) => {
                log(&error);
                unavailable("store_unavailable", "Store unavailable", &error, Fault::Upstream).again_after(SOON)
            }
            AppendError::Unknown(_) => {
                log(&error);
                unavailable("outcome_unknown", "Outcome unknown", &error, Fault::Upstream).again_after(SOON)
            }
            AppendError::Unfolded => {
                unavailable("outcome_unknown", "Outcome unknown", &error, Fault::Upstream).again_after(SOON)
            }
        }
    }
}

fn log(error: &AppendError<Problem>) {
    let cause = error.source().map(ToString::to_string);
    tracing::warn!(%error, cause, "the register was not changed for sure");
}

fn unavailable(code: &'static str, title: &'static str, detail: &impl ToString, fault: Fault) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).blamed_on(fault)
}

#[cfg(test)]
mod tests {
    use http::header;
    use tailwater_auth::KeyId;
    use tailwater_upstream::Fate;

    use super::*;

    fn all() -> Vec<(Problem, u16)> {
        let busy = || StoreError::Busy { retry_after: None };
        let refused = || StoreError::Refused { cause: "secret".into() };
        let unknown = || StoreError::Unavailable { fate: Fate::Unknown, cause: "secret".into() };
        let key = || KeyId::parse("k").unwrap();
        vec![
            (Problem::register_not_known(), 503),
            (Problem::register_behind(), 503),
            (Problem::register_broken(), 503),
            (Problem::audit_unavailable(), 503),
            (Problem::audit_stream(), 403),
            (Problem::operator_needed(), 403),
            (Problem::project_exists(), 409),
            (Problem::key_not_found(), 404),
            (Problem::invalid_key_request(&"x"), 400),
            (PutError::TooLong.into(), 400),
            (Problem::not_to_be_revoked(TokenError::Unverified), 400),
            (RekeyError::Malformed.into(), 409),
            (RekeyError::Keys(KeysError::Last).into(), 409),
            (RekeyError::Keys(KeysError::Unknown { id: key() }).into(), 404),
            (Unfit::Malformed.into(), 409),
            (Unfit::Tokens.into(), 409),
            (Unfit::Rows.into(), 409),
            (Unfit::Projects.into(), 409),
            (AppendError::NotFollowed(Standing::Unread).into(), 503),
            (AppendError::NotFollowed(Standing::Behind).into(), 503),
            (AppendError::NotFollowed(Standing::Unreadable).into(), 503),
            (AppendError::NotFollowed(Standing::Shortened).into(), 503),
            (AppendError::Contended.into(), 503),
            (AppendError::Store(busy()).into(), 503),
            (AppendError::Store(refused()).into(), 502),
            (AppendError::Store(StoreError::TooManyProjects { limit: 1 }).into(), 503),
            (AppendError::Unknown(Some(unknown())).into(), 503),
            (AppendError::Unfolded.into(), 503),
        ]
    }

    #[test]
    fn every_error_has_a_status_and_a_code_of_the_table_and_hides_its_cause() {
        let table = include_str!("../problem.rs");
        for (problem, status) in all() {
            let code = problem.code();
            assert_eq!(problem.status().as_u16(), status, "{code}");
            let row =
                |line: &str| line.starts_with(&format!("//! | {status} |")) && line.contains(&format!("`{code}`"));
            assert!(table.lines().any(row), "{status} {code} is not in the table");
            assert_eq!(problem.headers.contains_key(header::RETRY_AFTER), status == 503, "{code}");
            assert_eq!(problem.headers.contains_key(header::WWW_AUTHENTICATE), status == 403, "{code}");
            assert!(!problem.detail.contains("secret"), "{code}");
        }
    }
}
