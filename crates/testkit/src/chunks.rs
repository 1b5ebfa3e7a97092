//! A body in chunks, read strictly (RFC 9112, section 7.1).
//!
//! What recipients forgive is not forgiven here: a size is in lower case and without leading zeros, there are no chunk
//! extensions and no trailers, and nothing follows the last chunk.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// An incremental reader of one body.
#[derive(Debug, Default)]
pub struct Chunks {
    unread: BytesMut,
    at: usize,
    ended: bool,
}

/// A part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A chunk, and where in the body its head starts.
    Chunk {
        /// What it holds.
        bytes: Bytes,
        /// Where it starts.
        at: usize,
    },
    /// The end of the body.
    End,
}

/// What is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no chunk at {at}: {found:?}")]
pub struct Malformed {
    /// Where in the body.
    pub at: usize,
    /// What stands there.
    pub found: String,
}

/// The longest head: sixteen digits and the line end.
const LONGEST_HEAD: usize = 18;

impl Chunks {
    /// Takes bytes of the body as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next chunk that has arrived whole; the end comes once.
    ///
    /// # Errors
    /// Where the body is not in chunks. The reader stays there.
    pub fn pop(&mut self) -> Result<Option<Piece>, Malformed> {
        if self.ended {
            return if self.unread.is_empty() { Ok(None) } else { Err(self.malformed()) };
        }
        let Some(head) = self.unread.windows(2).position(|pair| pair == b"\r\n") else {
            return if self.unread.len() < LONGEST_HEAD { Ok(None) } else { Err(self.malformed()) };
        };
        let size = std::str::from_utf8(&self.unread[..head]).ok().and_then(|head| {
            let size = usize::from_str_radix(head, 16).ok()?;
            (format!("{size:x}") == head).then_some(size)
        });
        let Some(size) = size else { return Err(self.malformed()) };
        let whole = head + 2 + size + 2;
        if self.unread.len() < whole {
            return Ok(None);
        }
        if !self.unread[..whole].ends_with(b"\r\n") {
            return Err(self.malformed());
        }
        let mut chunk = self.unread.split_to(whole);
        let at = self.at;
        self.at += whole;
        self.ended = size == 0;
        Ok(Some(if self.ended {
            Piece::End
        } else {
            Piece::Chunk { bytes: chunk.split_off(head + 2).freeze().slice(..size), at }
        }))
    }

    /// Whether the body has ended in good order.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended && self.unread.is_empty()
    }

    /// Whether a chunk has arrived in part.
    #[must_use]
    pub fn is_mid_chunk(&self) -> bool {
        !self.unread.is_empty()
    }

    fn malformed(&self) -> Malformed {
        let shown = &self.unread[..self.unread.len().min(80)];
        Malformed { at: self.at, found: String::from_utf8_lossy(shown).into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], step: usize) -> Result<Vec<Piece>, Malformed> {
        let mut chunks = Chunks::default();
        let mut pieces = Vec::new();
        for part in body.chunks(step) {
            chunks.push(part);
            while let Some(piece) = chunks.pop()? {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    #[test]
    fn chunks_do_not_depend_on_how_bytes_are_split() {
        let long = format!("1a\r\n{}\r\n", "x".repeat(26));
        let body = format!("3\r\na\r\n\r\n{long}0\r\n\r\n");
        let expected = vec![
            Piece::Chunk { bytes: Bytes::from_static(b"a\r\n"), at: 0 },
            Piece::Chunk { bytes: Bytes::from("x".repeat(26)), at: 8 },
            Piece::End,
        ];
        for step in 1..body.len() {
            assert_eq!(read(body.as_bytes(), step), Ok(expected.clone()), "{step}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_not_forgiven() {
        let table = [
            "03\r\nabc\r\n",
            "A\r\n0123456789\r\n",
            "3;x\r\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\nabc\nxxxxxxxxxxxxxxxxx",
            "+3\r\nabc\r\n",
            "\r\n",
            "0\r\n\r\n0\r\n\r\n",
            "0\r\na: b\r\n\r\n",
        ];
        for body in table {
            assert!(read(body.as_bytes(), body.len()).is_err(), "{body:?}");
        }
    }
}
