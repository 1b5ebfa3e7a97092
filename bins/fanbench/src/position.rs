//! Where a reader stands in its stream, and whether what it gets is what comes next.
//!
//! What a reader has seen counts for a reconnect only once the server has named an offset behind it: a connection that
//! is cut between a message and its offset gives that message again, and rightly so. Within what an offset covers, each
//! message comes once and in order, across any number of connections.

use std::fmt;

/// Where a reader stands.
#[derive(Debug)]
pub(crate) struct Position {
    /// The number that must come next.
    next: u64,
    /// The same at the last offset that was given.
    committed: u64,
    /// The first number that was never seen.
    unseen: u64,
    /// The last offset that was given; empty before the first.
    offset: Vec<u8>,
}

/// A message in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It was not seen before.
    New,
    /// It was seen on a connection that ended before the server gave an offset behind it.
    Again,
}

/// A message out of its place: a gap or a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfPlace {
    pub(crate) expected: u64,
    pub(crate) got: u64,
}

impl fmt::Display for OutOfPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.got > self.expected { "gap" } else { "repeat" };
        write!(f, "{what}: expected message {}, got {}", self.expected, self.got)
    }
}

impl Position {
    /// A reader whose first message has this number.
    pub(crate) const fn at(first: u64) -> Self {
        Self { next: first, committed: first, unseen: first, offset: Vec::new() }
    }

    /// Takes the message with this number.
    pub(crate) fn accept(&mut self, number: u64) -> Result<Accepted, OutOfPlace> {
        if number != self.next {
            return Err(OutOfPlace { expected: self.next, got: number });
        }
        self.next = number + 1;
        if number < self.unseen {
            return Ok(Accepted::Again);
        }
        self.unseen = number + 1;
        Ok(Accepted::New)
    }

    /// The server has named the offset behind everything that was taken so far.
    pub(crate) fn commit(&mut self, offset: &[u8]) {
        self.offset.clear();
        self.offset.extend_from_slice(offset);
        self.committed = self.next;
    }

    /// The connection is gone; the next one goes on from the last offset.
    pub(crate) fn roll_back(&mut self) {
        self.next = self.committed;
    }

    /// What to ask the server to go on from; empty before the first offset.
    pub(crate) fn offset(&self) -> &[u8] {
        &self.offset
    }

    /// How many messages of the stream lie behind the reader, or below what it began with.
    pub(crate) fn seen(&self) -> u64 {
        self.unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unbroken_sequence_is_accepted_and_counted() {
        let mut position = Position::at(0);
        for number in 0..5 {
            assert_eq!(position.accept(number), Ok(Accepted::New));
        }
        assert_eq!(position.seen(), 5);
    }

    #[test]
    fn a_gap_and_a_repeat_are_refused_and_say_what_was_expected() {
        let mut position = Position::at(4);
        assert_eq!(position.accept(4), Ok(Accepted::New));
        let gap = position.accept(6).expect_err("5 is missing");
        assert_eq!(gap.to_string(), "gap: expected message 5, got 6");
        let repeat = position.accept(4).expect_err("4 was there");
        assert_eq!(repeat.to_string(), "repeat: expected message 5, got 4");
        assert_eq!(position.accept(5), Ok(Accepted::New));
    }

    #[test]
    fn the_first_message_of_a_reader_is_checked_too() {
        assert!(Position::at(0).accept(1).is_err());
        assert!(Position::at(3).accept(2).is_err());
    }

    #[test]
    fn a_reconnect_goes_on_at_the_offset_and_repeats_only_what_lies_behind_it() {
        let mut position = Position::at(0);
        assert_eq!(position.accept(0), Ok(Accepted::New));
        position.commit(b"one");
        assert_eq!(position.accept(1), Ok(Accepted::New));
        position.roll_back();
        assert_eq!(position.offset(), b"one");
        assert!(position.accept(0).is_err(), "0 lies before the offset");
        assert_eq!(position.accept(1), Ok(Accepted::Again));
        assert_eq!(position.accept(2), Ok(Accepted::New));
        position.commit(b"three");
        position.roll_back();
        assert!(position.accept(2).is_err(), "2 lies before the offset");
        assert_eq!(position.accept(3), Ok(Accepted::New));
    }
}
