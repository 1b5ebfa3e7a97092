//! What is changed by the register: projects of run time, their keys, and what was revoked.
//!
//! Each change is one record. It is judged on what the register says, appended only if it says no more than that, and
//! answered when it is in force on this pod. To say it again is harmless where its outcome is not known.

use axum::{extract::Request, response::Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tailwater_auth::{
    Algorithm, File, KeyId, Project, Rekeyed,
    document::projects_of,
    is_credential,
    json::given,
    key::SecretText,
    register::{CLOCKS_AHEAD, MAX_DOCUMENT, PutError, Record, Register},
    rekey,
    rekey::NewKey,
};
use tailwater_protocol::ProjectId;
use tailwater_register::RegisterLog;
use zeroize::Zeroizing;

use super::{Asked, MAX_BODY, ROOT, malformed, read, said};
use crate::{
    audit::{Attempt, Deed},
    issuers::NoGrant,
    problem::Problem,
};

/// A new key. Without a public one, a secret is made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WantedKey {
    id: String,
    /// PEM.
    #[serde(default, deserialize_with = "given")]
    public_key: Option<String>,
    /// Whether it signs from now on.
    #[serde(default)]
    first: bool,
}

/// What is to count no more, as it is asked for. Times are in seconds since the Unix epoch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WantedRevocation {
    /// The `jti` of a token, or the id of a ticket.
    #[serde(default, deserialize_with = "given")]
    id: Option<String>,
    /// When what has that id expires, at the latest.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<u64>,
    /// All that was issued before.
    #[serde(default, deserialize_with = "given")]
    before: Option<u64>,
    /// The token itself.
    #[serde(default, deserialize_with = "given")]
    token: Option<String>,
}

impl Asked<'_> {
    /// A new project.
    pub(super) async fn makes(
        &self,
        log: &RegisterLog,
        request: Request,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        let (record, id) = self.document(request).await?;
        attempt.concerns(&id);
        if self.guard.is_of_files(&id) {
            return Err(Problem::project_exists());
        }
        self.can_be(&id)?;
        let is_new = |register: &Register| match document_of(register, &id) {
            Some(_) => Err(Problem::project_exists()),
            None => Ok(record.clone()),
        };
        self.append(log, is_new, Value::Null, attempt).await?;
        Ok(said(StatusCode::CREATED, &json!({ "id": id.as_str() })))
    }

    /// A project, new or other than it was.
    pub(super) async fn puts(
        &self,
        log: &RegisterLog,
        id: ProjectId,
        request: Request,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        if self.guard.is_of_files(&id) {
            return Err(Problem::projects_from_files());
        }
        let (record, named) = self.document(request).await?;
        if named != id {
            return Err(Problem::invalid_project(&"the project's `id` is not that of the path"));
        }
        self.can_be(&id)?;
        self.append(log, |_| Ok(record.clone()), Value::Null, attempt).await?;
        Ok(said(StatusCode::OK, &json!({ "id": id.as_str() })))
    }

    /// A project goes.
    pub(super) async fn removes(
        &self,
        log: &RegisterLog,
        id: ProjectId,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        let is_there =
            |register: &Register| self.own(register, &id).map(|_| Record::RemoveProject { project: id.clone() });
        self.append(log, is_there, Value::Null, attempt).await?;
        Ok(said(StatusCode::OK, &json!({ "removed": id.as_str() })))
    }

    /// A key of a project comes, signs, or goes.
    pub(super) async fn rekeys(
        &self,
        log: &RegisterLog,
        deed: Deed,
        id: ProjectId,
        request: Request,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        // Before any body is taken in: who may change files does not ask here.
        self.own(log.view().register(), &id)?;
        let named = request.uri().path().strip_prefix(ROOT).and_then(|rest| rest.split('/').nth(3));
        let named = named.and_then(|name| KeyId::parse(name).ok()).ok_or_else(Problem::key_not_found);
        let (change, status, mut told) = if deed == Deed::AddKey {
            let (change, told) = self.new_key(&self.body(MAX_BODY, request).await?)?;
            (change, StatusCode::CREATED, told)
        } else {
            let change = if deed == Deed::RemoveKey { Rekeyed::Removed(named?) } else { Rekeyed::Promoted(named?) };
            (change, StatusCode::OK, json!({}))
        };
        let (Rekeyed::Added { id: key, .. } | Rekeyed::Promoted(key) | Rekeyed::Removed(key)) = &change;
        told["id"] = key.as_str().into();
        let rekeyed = |register: &Register| {
            let document = self.own(register, &id)?;
            Ok(Record::put(rekey(document.reveal(), &id, &change)?)?)
        };
        self.append(log, rekeyed, json!({ "key": key.as_str() }), attempt).await?;
        Ok(said(status, &told))
    }

    /// A key as it is asked for, and what is told of it: the secret, if one was made, this once.
    fn new_key(&self, body: &[u8]) -> Result<(Rekeyed, Value), Problem> {
        let form = "`id` and perhaps `publicKey` and `first`";
        let wanted: WantedKey = read(form, body).map_err(|fault| Problem::invalid_key_request(&fault))?;
        let id = KeyId::parse(&wanted.id).map_err(|error| Problem::invalid_key_request(&error))?;
        let (key, told) = match &wanted.public_key {
            Some(pem) => {
                let fault = "`publicKey` is no public key, in PEM, of an algorithm that is served";
                let key = NewKey::public(pem).ok_or_else(|| Problem::invalid_key_request(&fault))?;
                (key, json!({ "first": wanted.first }))
            }
            None => {
                let secret = self.new_secret();
                let told = json!({ "first": wanted.first, "secret": secret.as_str() });
                (NewKey::Secret(secret), told)
            }
        };
        let algorithm = match &key {
            NewKey::Secret(_) => Algorithm::Hs256,
            NewKey::Public(algorithm, _) => *algorithm,
        };
        let mut told = told;
        told["algorithm"] = algorithm.as_str().into();
        Ok((Rekeyed::Added { id, key, signs: wanted.first }, told))
    }

    /// 256 random bits, as text.
    fn new_secret(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 32]);
        (self.app.ambient.secret)(bytes.as_mut());
        let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("four bits are a hexadecimal digit");
        Zeroizing::new(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    /// What counts no more.
    pub(super) async fn revokes(
        &self,
        log: &RegisterLog,
        project: &Project,
        request: Request,
        attempt: &mut Attempt<'_>,
    ) -> Result<Response, Problem> {
        let body = self.body(MAX_BODY, request).await?;
        let record = self.revocation(project, &body).await?;
        let what = match &record {
            Record::RevokeToken { id, expires_at, .. } => json!({ "id": id, "expiresAt": expires_at }),
            Record::RevokeOlder { before, .. } => json!({ "before": before }),
            Record::PutProject { .. } | Record::RemoveProject { .. } | Record::Checkpoint(_) => Value::Null,
        };
        self.append(log, |_| Ok(record.clone()), what.clone(), attempt).await?;
        Ok(said(StatusCode::OK, &json!({ "project": project.id.as_str(), "revoked": what })))
    }

    async fn revocation(&self, project: &Project, body: &[u8]) -> Result<Record, Problem> {
        let form = "either `id` and perhaps `expiresAt`, or `before`, or `token`";
        let wanted: WantedRevocation = read(form, body).map_err(|fault| Problem::invalid_revocation(&fault))?;
        let project_id = project.id.clone();
        let WantedRevocation { id, expires_at, before, token } = wanted;
        let now = self.app.ambient.now() / 1000;
        // Both would be answered as done, and do something else.
        if expires_at.is_some_and(|at| at.saturating_add(self.guard.skew()) <= now) {
            let past = "what expires at `expiresAt` has expired; it is a time, in seconds since the Unix epoch";
            return Err(Problem::invalid_revocation(&past));
        }
        if before.is_some_and(|before| before > now.saturating_add(CLOCKS_AHEAD)) {
            let ahead = "`before` is in the future; it is a time, in seconds since the Unix epoch";
            return Err(Problem::invalid_revocation(&ahead));
        }
        match (id, expires_at, before, token) {
            // It is told and kept, which neither may be. No `jti` that a token is given here is either.
            (Some(id), _, None, None) if is_credential(&id) => {
                let fault = "`id` is a token or a ticket, and not what it is called: its `jti`, or its `id`";
                Err(Problem::invalid_revocation(&fault))
            }
            (Some(id), expires_at, None, None) => Ok(Record::RevokeToken { project: project_id, id, expires_at }),
            (None, None, Some(before), None) => Ok(Record::RevokeOlder { project: project_id, before }),
            (None, None, None, Some(token)) => {
                let moment = self.guard.moment(self.app.ambient.now());
                // One that is revoked already is taken again: whoever asks may not have been told.
                let projects = self.guard.projects();
                let granted = self.guard.issuers().grant(&projects, &project.id, token.trim(), moment).await;
                let grant = granted.map_err(|error| match error {
                    NoGrant::Token(error) => Problem::not_to_be_revoked(error),
                    NoGrant::Away(away) => away.into(),
                })?;
                let nameless = "the token has no `jti`: revoke all that were issued before a time";
                let id = grant.id.clone().ok_or_else(|| Problem::invalid_revocation(&nameless))?;
                Ok(Record::RevokeToken { project: project_id, id, expires_at: Some(grant.expires_at) })
            }
            _ => Err(Problem::invalid_revocation(&malformed(form, "there is more of it, or less"))),
        }
    }

    /// Writes down that it is intended, appends it, and waits until it is in force here.
    async fn append(
        &self,
        log: &RegisterLog,
        make: impl Fn(&Register) -> Result<Record, Problem> + Send + Sync,
        what: Value,
        attempt: &mut Attempt<'_>,
    ) -> Result<(), Problem> {
        // Whoever was revoked by a record that this one lost a race to changes nothing any more.
        let make = |register: &Register| self.still_in(register).and_then(|()| make(register));
        // What is refused as things stand is not intended.
        let first = make(log.view().register())?;
        log.with(|view| view.register().check(&first))?;
        attempt.intend(what).await?;
        let position = log.append(make).await?;
        if self.guard.has_in_force(position).await { Ok(()) } else { Err(Problem::not_in_force_yet()) }
    }

    /// A text that is to be a project, as the record that says so.
    async fn document(&self, request: Request) -> Result<(Record, ProjectId), Problem> {
        let body = self.body(MAX_DOCUMENT, request).await?;
        let text = str::from_utf8(&body).map_err(|_| Problem::invalid_project(&"not utf-8"))?;
        let record = Record::put(Zeroizing::new(text.to_owned()))?;
        let projects = projects_of(File { name: "project", bytes: text.as_bytes() }).map_err(PutError::from)?;
        // Where keys are fetched from is for who runs the gateway to say, also of what is put in force here.
        self.guard.issuers().check(&projects).map_err(|fault| Problem::invalid_project(&fault))?;
        let placed = "`basin` is for projects of files: where streams are is settled when the program starts";
        match projects.as_slice() {
            [project] if project.basin.is_none() => Ok((record, project.id.clone())),
            _ => Err(Problem::invalid_project(&placed)),
        }
    }

    /// The text of a project that is changed here. One that a file hides is not: what is revoked with it goes by its id, so
    /// that would be done to the file's, by whom the file trusts.
    fn own<'r>(&self, register: &'r Register, id: &ProjectId) -> Result<&'r SecretText, Problem> {
        if self.guard.is_of_files(id) {
            return Err(Problem::projects_from_files());
        }
        document_of(register, id).ok_or_else(Problem::project_not_found)
    }

    /// Whether a project of this id can be in force here.
    fn can_be(&self, id: &ProjectId) -> Result<(), Problem> {
        let settled =
            "a file gave a project of this `id` a basin when this gateway started: restart it, or take another";
        if self.guard.has_settled(id) { Err(Problem::invalid_project(&settled)) } else { Ok(()) }
    }
}

fn document_of<'r>(register: &'r Register, id: &ProjectId) -> Option<&'r SecretText> {
    register.documents().find(|(known, _)| *known == id).map(|(_, document)| document)
}
