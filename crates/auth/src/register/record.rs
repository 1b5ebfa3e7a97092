//! Records of the register, to bytes and back.
//!
//! ```text
//! ┌─────────┬──────┬───────┬─────────────────────┐
//! │ version │ kind │ flags │ the kind's own      │   flags: 1 = who does not know the kind may skip it
//! │ 1 byte  │ 1    │ 1     │ fields              │
//! └─────────┴──────┴───────┴─────────────────────┘
//! ```
//!
//! What its fields are made of, and which versions and kinds a reader takes, is told by [`tailwater_wire`]. What it does not
//! take it refuses: it could be a revocation.

use tailwater_protocol::ProjectId;
use tailwater_wire::{FLAG_SKIPPABLE, Head, Reader, RecordError, WireError, Writer, read_record};
use zeroize::Zeroizing;

use crate::{
    document::{DocumentError, File, projects_of},
    key::SecretText,
    register::{MAX_DOCUMENT, snapshot::Snapshot},
    token::claims::MAX_TOKEN_ID,
};

/// The version that this program writes.
pub const VERSION: u8 = 1;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The token, or the ticket, of this id counts no more.
    RevokeToken {
        /// In this project.
        project: ProjectId,
        /// Its `jti`.
        id: String,
        /// When it expires, in seconds since the Unix epoch: no earlier than any token of this id. `None` is never.
        expires_at: Option<u64>,
    },
    /// No token counts that was issued before a time.
    RevokeOlder {
        /// In this project.
        project: ProjectId,
        /// The time, in seconds since the Unix epoch. One in the future counts as soon as it may.
        before: u64,
    },
    /// There is a project, and this is what it is from now on.
    PutProject {
        /// The project.
        project: ProjectId,
        /// The project as a file of projects would hold it, alone.
        document: SecretText,
    },
    /// There is no such project any more.
    RemoveProject {
        /// The project.
        project: ProjectId,
    },
    /// All that stands before it, so that this may go.
    Checkpoint(Box<Snapshot>),
}

/// Why a text is no document of one project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// It is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It holds none, or several.
    #[error("there are {found} projects where one belongs")]
    NotOne {
        /// How many.
        found: usize,
    },
    /// It is too long.
    #[error("a project's document has at most {MAX_DOCUMENT} bytes")]
    TooLong,
}

/// A kind's number.
mod number {
    pub(super) const REVOKE_TOKEN: u8 = 1;
    pub(super) const REVOKE_OLDER: u8 = 2;
    pub(super) const PUT_PROJECT: u8 = 3;
    pub(super) const REMOVE_PROJECT: u8 = 4;
    pub(super) const CHECKPOINT: u8 = 5;
}

impl Record {
    /// The record of a project that is to be from now on, as a file of projects would hold it, alone.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn put(document: Zeroizing<String>) -> Result<Self, PutError> {
        if document.len() > MAX_DOCUMENT {
            return Err(PutError::TooLong);
        }
        let projects = projects_of(File { name: "project", bytes: document.as_bytes() })?;
        let [project] = projects.as_slice() else { return Err(PutError::NotOne { found: projects.len() }) };
        Ok(Self::PutProject { project: project.id.clone(), document: SecretText(document) })
    }

    /// Its bytes. They hold what it holds, secrets included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::RevokeToken { project, id, expires_at } => {
                head(&mut w, number::REVOKE_TOKEN).text(project.as_str()).text(id).option(*expires_at, Writer::number)
            }
            Self::RevokeOlder { project, before } => {
                head(&mut w, number::REVOKE_OLDER).text(project.as_str()).number(*before)
            }
            Self::PutProject { project, document } => {
                head(&mut w, number::PUT_PROJECT).text(project.as_str()).text(&document.0)
            }
            Self::RemoveProject { project } => head(&mut w, number::REMOVE_PROJECT).text(project.as_str()),
            // Whoever folds from further back has no need of it.
            Self::Checkpoint(snapshot) => {
                let head = Head { version: VERSION, kind: number::CHECKPOINT, flags: FLAG_SKIPPABLE };
                snapshot.write(head.write(&mut w))
            }
        };
        w.finish()
    }

    /// The record of these bytes; `None` for one of a kind that may be skipped.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        read_record(bytes, VERSION, |head, r| fields_of(r, head.kind))
    }
}

fn head(w: &mut Writer, kind: u8) -> &mut Writer {
    Head { version: VERSION, kind, flags: 0 }.write(w)
}

fn fields_of(r: &mut Reader<'_>, kind: u8) -> Result<Option<Record>, WireError> {
    Ok(Some(match kind {
        number::REVOKE_TOKEN => {
            let project = project(r)?;
            let id = r.text()?;
            if id.is_empty() || id.len() > MAX_TOKEN_ID {
                return Err(WireError::Value);
            }
            Record::RevokeToken { project, id: id.to_owned(), expires_at: r.option(Reader::number)? }
        }
        number::REVOKE_OLDER => Record::RevokeOlder { project: project(r)?, before: r.number()? },
        number::PUT_PROJECT => Record::PutProject { project: project(r)?, document: document(r)? },
        number::REMOVE_PROJECT => Record::RemoveProject { project: project(r)? },
        number::CHECKPOINT => Record::Checkpoint(Box::new(Snapshot::read(r)?)),
        _ => return Ok(None),
    }))
}

pub(super) fn project(r: &mut Reader<'_>) -> Result<ProjectId, WireError> {
    ProjectId::parse(r.text()?).map_err(|_| WireError::Value)
}

pub(super) fn document(r: &mut Reader<'_>) -> Result<SecretText, WireError> {
    let text = r.text()?;
    if text.len() > MAX_DOCUMENT {
        return Err(WireError::Value);
    }
    Ok(SecretText(Zeroizing::new(text.to_owned())))
}
