//! Who appends, and in which order: idempotent producers (protocol, section 5.2.1) and `Stream-Seq` (section 5.2).

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::bad_request::{BadRequest, Excerpt};

/// The longest producer id, in bytes. Ids are part of a stream's state, so they are bounded.
pub const MAX_PRODUCER_ID: usize = 256;
/// The longest `Stream-Seq`, in bytes.
pub const MAX_STREAM_SEQ: usize = 256;
/// The largest epoch and sequence number: 2^53 - 1, the largest integer that JavaScript is sure of.
pub const MAX_PRODUCER_INTEGER: u64 = (1 << 53) - 1;

/// One append of an idempotent producer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Who appends.
    pub id: ProducerId,
    /// Which run of it; at most [`MAX_PRODUCER_INTEGER`].
    pub epoch: u64,
    /// Which append of that run, from 0; at most [`MAX_PRODUCER_INTEGER`].
    pub seq: u64,
}

/// The name of a producer, 1 to [`MAX_PRODUCER_ID`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Arc<str>);

/// A writer's own sequence, 0 to [`MAX_STREAM_SEQ`] bytes, ordered byte by byte: `"10"` comes before `"2"`. An empty
/// one is a value like any other, before all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSeq(Bytes);

impl Producer {
    /// Reads the three headers, which come together or not at all. The two numbers are digits only; leading zeros are
    /// allowed.
    ///
    /// # Errors
    /// [`BadRequest::IncompleteProducer`], [`BadRequest::ProducerId`], [`BadRequest::ProducerEpoch`] or
    /// [`BadRequest::ProducerSeq`].
    pub fn from_headers(id: Option<&str>, epoch: Option<&str>, seq: Option<&str>) -> Result<Option<Self>, BadRequest> {
        match (id, epoch, seq) {
            (None, None, None) => Ok(None),
            (Some(id), Some(epoch), Some(seq)) => Ok(Some(Self {
                id: ProducerId::new(id)?,
                epoch: integer(epoch).ok_or_else(|| BadRequest::ProducerEpoch { got: Excerpt::new(epoch) })?,
                seq: integer(seq).ok_or_else(|| BadRequest::ProducerSeq { got: Excerpt::new(seq) })?,
            })),
            (_, _, _) => Err(BadRequest::IncompleteProducer),
        }
    }
}

impl ProducerId {
    /// A producer's id.
    ///
    /// # Errors
    /// [`BadRequest::ProducerId`] when it is empty or longer than [`MAX_PRODUCER_ID`].
    pub fn new(id: &str) -> Result<Self, BadRequest> {
        if id.is_empty() || id.len() > MAX_PRODUCER_ID {
            return Err(BadRequest::ProducerId { length: id.len() });
        }
        Ok(Self(id.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StreamSeq {
    /// The value of a `Stream-Seq` header.
    ///
    /// # Errors
    /// [`BadRequest::StreamSeq`] when it is longer than [`MAX_STREAM_SEQ`].
    pub fn new(value: &[u8]) -> Result<Self, BadRequest> {
        if value.len() > MAX_STREAM_SEQ {
            return Err(BadRequest::StreamSeq { length: value.len() });
        }
        Ok(Self(Bytes::copy_from_slice(value)))
    }

    /// The value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn integer(text: &str) -> Option<u64> {
    crate::digits::lenient(text).filter(|number| *number <= MAX_PRODUCER_INTEGER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(id: &str, epoch: &str, seq: &str) -> Result<Option<Producer>, BadRequest> {
        Producer::from_headers(Some(id), Some(epoch), Some(seq))
    }

    #[test]
    fn a_producer_has_an_id_an_epoch_and_a_seq() {
        let long = "x".repeat(MAX_PRODUCER_ID);
        let table = [
            ("p", "0", "0", 0, 0),
            ("order service/1", "007", "00", 7, 0),
            (&long, "9007199254740991", "9007199254740991", MAX_PRODUCER_INTEGER, MAX_PRODUCER_INTEGER),
        ];
        for (id, epoch, seq, epoch_number, seq_number) in table {
            let id_parsed = ProducerId::new(id).unwrap();
            let producer = Producer { id: id_parsed, epoch: epoch_number, seq: seq_number };
            assert_eq!(parse(id, epoch, seq), Ok(Some(producer)));
        }
        assert_eq!(Producer::from_headers(None, None, None), Ok(None));
    }

    #[test]
    fn the_three_headers_come_together_or_not_at_all() {
        for present in 1..7_u8 {
            let header = |bit: u8| (present & bit != 0).then_some("1");
            let parsed = Producer::from_headers(header(1), header(2), header(4));
            assert_eq!(parsed, Err(BadRequest::IncompleteProducer), "{present:03b}");
        }
    }

    #[test]
    fn what_is_no_integer_for_javascript_is_refused() {
        let table = [
            "",
            "-1",
            "+1",
            "1abc",
            "0xyz",
            "0x1",
            "1e3",
            "1.0",
            " 1",
            "1 ",
            "9007199254740992",
            "18446744073709551616",
            "nan",
        ];
        for text in table {
            let got = Excerpt::new(text);
            assert_eq!(parse("p", text, "0"), Err(BadRequest::ProducerEpoch { got: got.clone() }), "{text:?}");
            assert_eq!(parse("p", "0", text), Err(BadRequest::ProducerSeq { got }), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_neither_empty_nor_long() {
        assert_eq!(parse("", "0", "0"), Err(BadRequest::ProducerId { length: 0 }));
        assert_eq!(parse(&"x".repeat(257), "0", "0"), Err(BadRequest::ProducerId { length: 257 }));
        assert_eq!(ProducerId::new(&"é".repeat(129)), Err(BadRequest::ProducerId { length: 258 }));
    }

    #[test]
    fn stream_seqs_are_compared_byte_by_byte() {
        let seq = |text: &str| StreamSeq::new(text.as_bytes()).unwrap();
        for (lower, higher) in [("", "0"), ("10", "2"), ("09", "10"), ("B", "a"), ("a", "aa"), ("z", "é")] {
            assert!(seq(lower) < seq(higher), "{lower:?} {higher:?}");
        }
        assert_eq!(seq("5").as_bytes(), b"5");
        assert_eq!(StreamSeq::new(&[b'0'; 256]).map(|s| s.as_bytes().len()), Ok(256));
        assert_eq!(StreamSeq::new(&[b'0'; 257]), Err(BadRequest::StreamSeq { length: 257 }));
    }

    proptest! {
        #[test]
        fn numbers_in_range_are_read_back(epoch in 0..=MAX_PRODUCER_INTEGER, seq in 0..=MAX_PRODUCER_INTEGER) {
            let id = ProducerId::new("p").unwrap();
            prop_assert_eq!(parse("p", &epoch.to_string(), &seq.to_string()), Ok(Some(Producer { id, epoch, seq })));
        }
    }
}
