//! Where a reader stands: what it has up to the last offset that it was told, and what came behind it.

use crate::{
    history::{Begun, Start},
    message::Message,
};

/// A reader's place in a stream.
#[derive(Debug)]
pub(super) struct Place {
    from: Start,
    offset: Option<String>,
    begun: Option<Begun>,
    /// The cursor to send (protocol, section 10.1).
    pub(super) cursor: Option<u64>,
    seen: Vec<Message>,
    /// What came behind the offset.
    further: Vec<Message>,
}

/// An offset that does not fit what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the offset went from {from} to {to} over {messages} messages")]
pub(super) struct Misplaced {
    from: String,
    to: String,
    messages: usize,
}

impl Place {
    pub(super) fn new(from: Start) -> Self {
        Self { from, offset: None, begun: None, cursor: None, seen: Vec::new(), further: Vec::new() }
    }

    /// What to ask for.
    pub(super) fn offset(&self) -> &str {
        self.offset.as_deref().unwrap_or_else(|| self.first())
    }

    /// What it asked for at first.
    pub(super) fn first(&self) -> &'static str {
        match self.from {
            Start::Beginning => "-1",
            Start::Now => "now",
        }
    }

    /// The offset, once it was told one.
    pub(super) fn told(&self) -> Option<&str> {
        self.offset.as_deref()
    }

    /// How many messages lie before the offset.
    pub(super) fn seen(&self) -> usize {
        self.seen.len()
    }

    /// All that it has, and where that began.
    pub(super) fn into_seen(self) -> (Vec<Message>, Option<Begun>) {
        (self.seen, self.begun)
    }

    pub(super) fn take(&mut self, messages: Vec<Message>) {
        self.further.extend(messages);
    }

    /// The offset behind all that came. Messages move it forward, and nothing else moves it (section 8).
    pub(super) fn commit(&mut self, next: &str) -> Result<(), Misplaced> {
        let fits = match &self.offset {
            Some(from) if self.further.is_empty() => next == from,
            Some(from) => next > from.as_str(),
            None => true,
        };
        if !fits {
            let (from, to) = (self.offset().to_owned(), next.to_owned());
            return Err(Misplaced { from, to, messages: self.further.len() });
        }
        let messages = self.further.len();
        self.begun.get_or_insert_with(|| Begun { offset: next.to_owned(), messages });
        self.offset = Some(next.to_owned());
        self.seen.append(&mut self.further);
        Ok(())
    }

    /// The connection is gone, and what came behind the offset will come again.
    pub(super) fn roll_back(&mut self) {
        self.further.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(numbers: std::ops::Range<u32>) -> Vec<Message> {
        numbers.map(|number| Message { writer: 0, number }).collect()
    }

    #[test]
    fn what_came_behind_the_offset_is_forgotten_with_its_connection() {
        let mut place = Place::new(Start::Beginning);
        assert_eq!(place.offset(), "-1");
        place.take(messages(0..2));
        place.commit("0_2").unwrap();
        place.take(messages(2..5));
        place.roll_back();
        assert_eq!((place.offset(), place.seen()), ("0_2", 2));
        place.take(messages(2..3));
        place.commit("0_3").unwrap();
        assert_eq!(place.into_seen(), (messages(0..3), Some(Begun { offset: "0_2".to_owned(), messages: 2 })));
    }

    #[test]
    fn messages_move_the_offset_forward_and_nothing_else_moves_it() {
        let mut place = Place::new(Start::Now);
        assert_eq!((place.offset(), place.told()), ("now", None));
        place.commit("0_2").unwrap();
        place.commit("0_2").unwrap();
        assert!(place.commit("0_3").is_err(), "without a message");
        place.take(messages(0..1));
        assert!(place.commit("0_2").is_err(), "with one");
        assert!(place.commit("0_1").is_err());
        place.commit("0_3").unwrap();
        assert_eq!(place.told(), Some("0_3"));
    }
}
