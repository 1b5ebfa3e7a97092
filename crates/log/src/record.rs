//! Records as S2 stores them, before anything is made of them.
//!
//! A [`NewRecord`] is what a gateway appends, a [`Record`] is what it reads back: the same headers and body, with the
//! sequence number and the timestamp that S2 gave it.

use bytes::Bytes;

/// The largest metered size of one S2 record, and of one S2 batch, in bytes.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// The largest number of records in one S2 batch.
pub const MAX_BATCH_RECORDS: usize = 1000;

/// A header of an S2 record. An empty name marks one of S2's own command records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name; empty only in command records.
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
}

/// A record to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// The headers, in order.
    pub headers: Vec<Header>,
    /// The body.
    pub body: Bytes,
}

/// A record of the log, at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// S2's sequence number.
    pub seq: u64,
    /// S2's arrival timestamp, in milliseconds since the Unix epoch; never decreases along a log.
    pub timestamp: u64,
    /// The headers, in order.
    pub headers: Vec<Header>,
    /// The body.
    pub body: Bytes,
}

impl NewRecord {
    /// A record without headers: a plain message.
    #[must_use]
    pub fn message(body: Bytes) -> Self {
        Self { headers: Vec::new(), body }
    }

    /// S2's command that sets the fencing token.
    #[must_use]
    pub fn fence(token: &str) -> Self {
        Self::command(b"fence", Bytes::copy_from_slice(token.as_bytes()))
    }

    /// S2's command that trims all records before `before`.
    #[must_use]
    pub fn trim(before: u64) -> Self {
        Self::command(b"trim", Bytes::copy_from_slice(&before.to_be_bytes()))
    }

    /// Whether this is the command that sets the fencing token.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        matches!(self.headers.as_slice(), [header] if header.name.is_empty() && header.value.as_ref() == b"fence")
    }

    fn command(name: &'static [u8], body: Bytes) -> Self {
        let header = Header { name: Bytes::new(), value: Bytes::from_static(name) };
        Self { headers: vec![header], body }
    }

    /// What S2 counts this record as, in bytes (8, two a header, names, values, body).
    #[must_use]
    pub fn metered_bytes(&self) -> usize {
        metered(&self.headers, &self.body)
    }

    /// This record at a place in the log.
    #[must_use]
    pub fn at(self, seq: u64, timestamp: u64) -> Record {
        Record { seq, timestamp, headers: self.headers, body: self.body }
    }
}

impl Record {
    /// What S2 counts this record as, in bytes.
    #[must_use]
    pub fn metered_bytes(&self) -> usize {
        metered(&self.headers, &self.body)
    }

    /// The command that this record is, where it is one of S2's own.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        let [header] = self.headers.as_slice() else { return None };
        if !header.name.is_empty() {
            return None;
        }
        match header.value.as_ref() {
            b"fence" => Some(Command::Fence(String::from_utf8_lossy(&self.body).into_owned())),
            b"trim" => <[u8; 8]>::try_from(self.body.as_ref()).ok().map(|be| Command::Trim(u64::from_be_bytes(be))),
            _ => None,
        }
    }
}

/// One of S2's own command records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets the stream's fencing token.
    Fence(String),
    /// Removes the records before this sequence number; `u64::MAX` is S2's own deletion of the stream.
    Trim(u64),
}

fn metered(headers: &[Header], body: &Bytes) -> usize {
    8 + headers.iter().map(|h| 2 + h.name.len() + h.value.len()).sum::<usize>() + body.len()
}
