//! Other keys in a file of projects: text to text, with everything else, comments included, as it stood.
//!
//! The rules are those of [`Keys`](crate::keys::Keys): the first key signs, all verify, the last one stays where there is no
//! issuer that has others. Whether what comes out is a file of projects is for whoever writes it to see, by [parsing](crate::Projects::parse) it.

use tailwater_protocol::ProjectId;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use crate::{
    key::{Algorithm, Key, KeyId},
    keys::{KeysError, MAX_KEYS},
};

/// What is to become of a project's keys.
#[derive(Debug)]
pub enum Rekeyed {
    /// One more verifies; at the front it signs, too.
    Added {
        /// What tokens call it.
        id: KeyId,
        /// What it is.
        key: NewKey,
        /// Whether it signs from now on.
        signs: bool,
    },
    /// Another one signs.
    Promoted(KeyId),
    /// One verifies no more.
    Removed(KeyId),
}

/// A key, as a file holds it.
pub enum NewKey {
    /// A secret for HS256.
    Secret(Zeroizing<String>),
    /// A public key in PEM, and what it is for.
    Public(Algorithm, String),
}

/// A secret is made of what wipes itself, and of nothing else.
const _: fn(Zeroizing<String>) -> NewKey = NewKey::Secret;

/// Why keys are not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// It is not TOML. What stands there is not repeated.
    #[error("not toml")]
    Malformed,
    /// The project is not in this file.
    #[error("there is no project `{0}`")]
    NoProject(ProjectId),
    /// The keys are not written as `[[project.key]]`.
    #[error("the keys of the project are not written as [[project.key]], and have to be changed by hand")]
    OtherForm,
    /// The keys that would be left break a rule.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Whether a text has a project of this id.
#[must_use]
pub fn holds(text: &str, project: &ProjectId) -> bool {
    text.parse::<DocumentMut>().is_ok_and(|mut document| keys_of(&mut document, project).is_ok())
}

/// The text with other keys of one of its projects.
///
/// # Errors
/// [`RekeyError`].
pub fn rekey(text: &str, project: &ProjectId, change: &Rekeyed) -> Result<Zeroizing<String>, RekeyError> {
    let mut document: DocumentMut = text.parse().map_err(|_| RekeyError::Malformed)?;
    let Own { keys, has_issuers } = keys_of(&mut document, project)?;
    let mut tables: Vec<Table> = keys.iter().cloned().collect();
    let mut places: Vec<_> = tables.iter().map(Table::position).collect();
    match change {
        Rekeyed::Added { id, key, signs } => {
            if tables.len() == MAX_KEYS {
                return Err(KeysError::TooMany.into());
            }
            if position(&tables, id).is_ok() {
                return Err(KeysError::Repeated { id: id.clone() }.into());
            }
            let at = if *signs { 0 } else { tables.len() };
            tables.insert(at, table(id, key));
            // Behind the last one; tables in the same place keep their order.
            places.push(places.last().copied().flatten());
        }
        Rekeyed::Promoted(id) => {
            let at = position(&tables, id)?;
            tables[..=at].rotate_right(1);
        }
        Rekeyed::Removed(id) => {
            let at = position(&tables, id)?;
            if tables.len() == 1 && !has_issuers {
                return Err(KeysError::Last.into());
            }
            tables.remove(at);
            places.remove(at);
        }
    }
    let mut changed = ArrayOfTables::new();
    for (mut table, place) in tables.into_iter().zip(places) {
        table.set_position(place);
        changed.push(table);
    }
    *keys = changed;
    Ok(Zeroizing::new(document.to_string()))
}

/// The keys that a project has itself.
struct Own<'d> {
    keys: &'d mut ArrayOfTables,
    /// Whether those of an issuer count beside them.
    has_issuers: bool,
}

fn keys_of<'d>(document: &'d mut DocumentMut, project: &ProjectId) -> Result<Own<'d>, RekeyError> {
    let missing = || RekeyError::NoProject(project.clone());
    let projects = document.get_mut("project").ok_or_else(missing)?;
    let projects = projects.as_array_of_tables_mut().ok_or(RekeyError::OtherForm)?;
    let is_meant = |table: &&mut Table| table.get("id").and_then(Item::as_str) == Some(project.as_str());
    let table = projects.iter_mut().find(is_meant).ok_or_else(missing)?;
    let has_issuers = table.contains_key("jwks");
    if has_issuers && !table.contains_key("key") {
        table.insert("key", Item::ArrayOfTables(ArrayOfTables::new()));
    }
    let keys = table.get_mut("key").and_then(Item::as_array_of_tables_mut).ok_or(RekeyError::OtherForm)?;
    Ok(Own { keys, has_issuers })
}

fn position(tables: &[Table], id: &KeyId) -> Result<usize, KeysError> {
    let is_meant = |table: &Table| table.get("id").and_then(Item::as_str) == Some(id.as_str());
    tables.iter().position(is_meant).ok_or_else(|| KeysError::Unknown { id: id.clone() })
}

fn table(id: &KeyId, key: &NewKey) -> Table {
    let mut table = Table::new();
    table.insert("id", value(id.as_str()));
    match key {
        NewKey::Secret(secret) => {
            table.insert("algorithm", value(Algorithm::Hs256.as_str()));
            table.insert("secret", value(secret.as_str()));
        }
        NewKey::Public(algorithm, pem) => {
            table.insert("algorithm", value(algorithm.as_str()));
            table.insert("public-key", value(pem.as_str()));
        }
    }
    table.decor_mut().set_prefix("\n");
    table
}

impl NewKey {
    /// A public key in PEM, of whatever algorithm it is for; nothing, where it is for none.
    #[must_use]
    pub fn public(pem: &str) -> Option<Self> {
        let is_for = |algorithm: &Algorithm| Key::public(None, *algorithm, pem).is_ok();
        Algorithm::ALL.into_iter().find(is_for).map(|algorithm| Self::Public(algorithm, pem.to_owned()))
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewKey(…)")
    }
}

#[cfg(test)]
mod tests;
