//! All that a register holds, as one record.

use std::collections::BTreeMap;

use tailwater_protocol::ProjectId;
use tailwater_wire::{Reader, WireError, Writer};

use crate::{
    key::SecretText,
    register::{
        MAX_LISTED, MAX_PROJECTS, MAX_ROWS, record,
        revocations::{FOREVER, Revocations, TokenPrint},
    },
};

/// What a register holds, without where it stands in its log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The position that it was taken at, which is where it must stand: it holds all that stands before.
    pub(super) as_of: u64,
    /// The time of the newest record, in seconds since the Unix epoch.
    pub(super) now: u64,
    pub(super) projects: BTreeMap<ProjectId, SecretText>,
    pub(super) revocations: BTreeMap<ProjectId, Revocations>,
    /// Of projects without revocations of their own: no token counts that was issued before this.
    pub(super) others_before: u64,
    /// Of projects that are put anew: no token counts that was issued before this.
    pub(super) removed_before: u64,
}

impl Snapshot {
    pub(super) fn write<'w>(&self, w: &'w mut Writer) -> &'w mut Writer {
        w.number(self.as_of).number(self.now).number(self.others_before).number(self.removed_before);
        w.list(self.projects.iter(), |w, (id, document)| w.text(id.as_str()).text(&document.0));
        w.list(self.revocations.iter(), |w, (id, revoked)| {
            w.text(id.as_str()).flag(revoked.is_removed).number(revoked.before);
            w.list(revoked.tokens.iter(), |w, (token, until)| {
                // For ever is the one end that is written often and would be long.
                w.fixed(&token.0).number(if *until == FOREVER { 0 } else { *until })
            })
        })
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (as_of, now, others_before, removed_before) = (r.number()?, r.number()?, r.number()?, r.number()?);
        let projects = r.list(MAX_PROJECTS, |r| Ok((record::project(r)?, record::document(r)?)))?;
        let revocations = r.list(MAX_ROWS, |r| {
            let (project, is_removed, before) = (record::project(r)?, r.flag()?, r.number()?);
            let tokens = r.list(MAX_LISTED, |r| {
                let (token, until) = (TokenPrint(r.fixed()?), r.number()?);
                Ok((token, if until == 0 { FOREVER } else { until }))
            })?;
            Ok((project, Revocations { before, tokens: unique(tokens)?, is_removed }))
        })?;
        let (projects, revocations) = (unique(projects)?, unique(revocations)?);
        Ok(Self { as_of, now, projects, revocations, others_before, removed_before })
    }
}

/// A map of these, none of which may stand there twice.
fn unique<K: Ord, V>(items: Vec<(K, V)>) -> Result<BTreeMap<K, V>, WireError> {
    let count = items.len();
    let map: BTreeMap<_, _> = items.into_iter().collect();
    if map.len() == count { Ok(map) } else { Err(WireError::Value) }
}
