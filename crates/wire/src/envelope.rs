//! Records: a head, and the fields of a kind.
//!
//! ```text
//! ┌─────────┬──────┬───────┬────────┐
//! │ version │ kind │ flags │ fields │   flags: 1 = who does not know the kind may skip it;
//! │ 1 byte  │ 1    │ 1     │        │   further ones are for the crate whose records they are
//! └─────────┴──────┴───────┴────────┘
//! ```
//!
//! A reader takes its own version and the one after it, so that pods can be upgraded one by one: of the next version it
//! ignores what fields may have come at the end, and skips unknown kinds whose flag allows it. What else it does not
//! understand it refuses.

use crate::fields::{Reader, WireError, Writer};

/// The flag of a record that who does not know its kind may skip.
pub const FLAG_SKIPPABLE: u8 = 1;

/// What stands before the fields of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The version that it was written in.
    pub version: u8,
    /// The kind, which says what its fields are.
    pub kind: u8,
    /// [`FLAG_SKIPPABLE`], and those of the crate whose record it is.
    pub flags: u8,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Neither this version nor the one after it.
    #[error("a record of version {0}")]
    Version(u8),
    /// A kind that this version does not know and may not skip.
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    /// Fields that are not what the kind has.
    #[error("a record of kind {kind} is malformed")]
    Fields {
        /// The kind.
        kind: u8,
        /// What is wrong.
        #[source]
        source: WireError,
    },
    /// Fewer bytes than every head has.
    #[error("a record with a cut head")]
    Short,
}

impl Head {
    /// Begins a record.
    #[inline]
    pub fn write(self, w: &mut Writer) -> &mut Writer {
        w.byte(self.version).byte(self.kind).byte(self.flags)
    }
}

/// What a record says to a reader of this version; `None` for one of a kind that may be skipped. `read` takes its fields, or
/// says `None` of a kind that it does not know.
///
/// # Errors
/// [`RecordError`].
#[inline]
pub fn read_record<'b, T>(
    bytes: &'b [u8],
    version: u8,
    read: impl FnOnce(Head, &mut Reader<'b>) -> Result<Option<T>, WireError>,
) -> Result<Option<T>, RecordError> {
    let &[written_in, kind, flags, ref fields @ ..] = bytes else { return Err(RecordError::Short) };
    if written_in.checked_sub(version).is_none_or(|later| later > 1) {
        return Err(RecordError::Version(written_in));
    }
    let fault = |source| RecordError::Fields { kind, source };
    let mut r = Reader::new(fields);
    let Some(said) = read(Head { version: written_in, kind, flags }, &mut r).map_err(fault)? else {
        return if flags & FLAG_SKIPPABLE == 0 { Err(RecordError::Kind(kind)) } else { Ok(None) };
    };
    if written_in == version {
        r.finish().map_err(fault)?;
    }
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of version 7 have one kind, 1, with one number.
    fn read(bytes: &[u8]) -> Result<Option<u64>, RecordError> {
        read_record(bytes, 7, |head, r| match head.kind {
            1 => r.number().map(Some),
            _ => Ok(None),
        })
    }

    #[test]
    fn what_is_not_understood_is_refused_unless_it_says_that_it_may_be_skipped() {
        let malformed = |source| Err(RecordError::Fields { kind: 1, source });
        for (bytes, expected) in [
            (&[7, 1, 0, 5][..], Ok(Some(5))),
            (&[7, 1, FLAG_SKIPPABLE, 5], Ok(Some(5))),
            (&[7, 1, 0, 5, 9], malformed(WireError::Trailing)),
            (&[7, 1, 0], malformed(WireError::Short)),
            (&[8, 1, 0, 5, 9], Ok(Some(5))),
            (&[8, 1, 0], malformed(WireError::Short)),
            (&[7, 2, FLAG_SKIPPABLE, 9], Ok(None)),
            (&[8, 2, FLAG_SKIPPABLE], Ok(None)),
            (&[7, 2, 0], Err(RecordError::Kind(2))),
            (&[7, 2, !FLAG_SKIPPABLE], Err(RecordError::Kind(2))),
            (&[6, 1, 0, 5], Err(RecordError::Version(6))),
            (&[9, 2, FLAG_SKIPPABLE], Err(RecordError::Version(9))),
            (&[7, 1], Err(RecordError::Short)),
            (&[], Err(RecordError::Short)),
        ] {
            assert_eq!(read(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_that_is_written_is_read() {
        let mut w = Writer::default();
        let head = Head { version: 7, kind: 3, flags: 6 };
        head.write(&mut w).number(5);
        let read = read_record(&w.finish(), 7, |head, r| Ok(Some((head, r.number()?))));
        assert_eq!(read, Ok(Some((head, 5))));
    }
}
