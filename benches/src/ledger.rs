//! What several writers had acknowledged, and whether the streams hold exactly that.
//!
//! A writer appends its messages one after the other, each once the one before is acknowledged, to one stream after the
//! other. So on each stream every writer's messages stand in their order, each once, up to the last one that was
//! acknowledged; how those of several writers lie among each other is open.

use bytes::Bytes;

/// The size of a message, in bytes.
pub const MESSAGE: usize = 100;

/// Who wrote a message, and which one of theirs it is, both from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The writer.
    pub writer: usize,
    /// The message, among all of the writer's.
    pub nth: usize,
}

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// How many streams there are.
    pub streams: usize,
    /// How many messages each writer had acknowledged.
    pub acked: Vec<usize>,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// No writer's message, or one that belongs to another stream.
    #[error("record {at} is no message of this stream")]
    Foreign {
        /// Where, counted from 0.
        at: usize,
    },
    /// A message that stands there before, or one that comes too late.
    #[error("message {} of writer {} comes again", .0.nth, .0.writer)]
    Repeated(Stamp),
    /// A message was acknowledged, and is not there, or not before those that came after it.
    #[error("message {} of writer {} is missing", .0.nth, .0.writer)]
    Missing(Stamp),
    /// A message that nobody acknowledged.
    #[error("message {} of writer {} was not acknowledged", .0.nth, .0.writer)]
    Unacknowledged(Stamp),
}

impl Stamp {
    /// The stream that the message goes to.
    #[must_use]
    pub fn stream(self, streams: usize) -> usize {
        (self.writer + self.nth) % streams
    }

    /// How many messages of the writer stand on that stream before it.
    #[must_use]
    pub fn earlier_there(self, streams: usize) -> usize {
        self.nth / streams
    }

    /// The message: JSON of [`MESSAGE`] bytes that no other one has.
    #[must_use]
    pub fn message(self) -> Bytes {
        let head = format!(r#"{{"writer":{},"nth":{},"text":""#, self.writer, self.nth);
        let fill = MESSAGE.saturating_sub(head.len() + r#""}"#.len());
        format!(r#"{head}{:.>fill$}"}}"#, "").into()
    }

    /// Whose message this is.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        let json: serde_json::Value = serde_json::from_slice(message).ok()?;
        let number = |name: &str| usize::try_from(json.get(name)?.as_u64()?).ok();
        let stamp = Self { writer: number("writer")?, nth: number("nth")? };
        (stamp.message() == message).then_some(stamp)
    }
}

impl Ledger {
    /// Looks through all messages of a stream; the first thing that is wrong.
    ///
    /// # Errors
    /// Unless the stream holds exactly what was acknowledged.
    pub fn check<M: AsRef<[u8]>>(&self, stream: usize, messages: impl IntoIterator<Item = M>) -> Result<(), Breach> {
        let first = |writer: usize| (stream + self.streams - writer % self.streams) % self.streams;
        let mut next: Vec<usize> = (0..self.acked.len()).map(first).collect();
        for (at, message) in messages.into_iter().enumerate() {
            let stamp = Stamp::of(message.as_ref()).filter(|stamp| stamp.stream(self.streams) == stream);
            let stamp = stamp.ok_or(Breach::Foreign { at })?;
            let next = next.get_mut(stamp.writer).ok_or(Breach::Foreign { at })?;
            if stamp.nth < *next {
                return Err(Breach::Repeated(stamp));
            }
            if stamp.nth >= self.acked[stamp.writer] {
                return Err(Breach::Unacknowledged(stamp));
            }
            if stamp.nth > *next {
                return Err(Breach::Missing(Stamp { nth: *next, ..stamp }));
            }
            *next += self.streams;
        }
        let missing = next.iter().zip(&self.acked).position(|(next, acked)| next < acked);
        missing.map_or(Ok(()), |writer| Err(Breach::Missing(Stamp { writer, nth: next[writer] })))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a stream holds after all is well; the writers take turns.
    fn held(ledger: &Ledger, stream: usize) -> Vec<Bytes> {
        let most = ledger.acked.iter().copied().max().unwrap_or(0);
        let all = (0..most).flat_map(|nth| (0..ledger.acked.len()).map(move |writer| Stamp { writer, nth }));
        all.filter(|s| s.nth < ledger.acked[s.writer] && s.stream(ledger.streams) == stream)
            .map(Stamp::message)
            .collect()
    }

    #[test]
    fn a_message_is_as_long_as_it_says_and_tells_whose_it_is() {
        let stamp = Stamp { writer: 255, nth: 123_456 };
        assert_eq!(stamp.message().len(), MESSAGE);
        assert_eq!(Stamp::of(&stamp.message()), Some(stamp));
        assert_eq!(Stamp::of(br#"{"writer":255,"nth":123456}"#), None);
        assert_eq!(Stamp::of(b"no JSON"), None);
    }

    #[test]
    fn a_message_on_the_wrong_stream_or_of_nobody_is_foreign() {
        let ledger = Ledger { streams: 2, acked: vec![4, 4] };
        let other = Stamp { writer: 0, nth: 1 }.message();
        assert_eq!(ledger.check(0, [other]), Err(Breach::Foreign { at: 0 }));
        let nobody = Stamp { writer: 2, nth: 0 }.message();
        assert_eq!(ledger.check(0, [nobody]), Err(Breach::Foreign { at: 0 }));
    }

    #[test]
    fn a_message_that_was_not_acknowledged_is_told_apart_from_a_repeated_one() {
        let ledger = Ledger { streams: 1, acked: vec![2] };
        let stamp = |nth| Stamp { writer: 0, nth };
        let messages = |nths: &[usize]| nths.iter().map(|nth| stamp(*nth).message()).collect::<Vec<_>>();
        assert_eq!(ledger.check(0, messages(&[0, 1, 2])), Err(Breach::Unacknowledged(stamp(2))));
        assert_eq!(ledger.check(0, messages(&[0, 1, 1])), Err(Breach::Repeated(stamp(1))));
        assert_eq!(ledger.check(0, messages(&[1, 0])), Err(Breach::Missing(stamp(0))));
    }

    fn ledgers() -> impl Strategy<Value = Ledger> {
        (1_usize..5, prop::collection::vec(0_usize..20, 1..5)).prop_map(|(streams, acked)| Ledger { streams, acked })
    }

    proptest! {
        #[test]
        fn streams_that_hold_what_was_acknowledged_are_whole(ledger in ledgers()) {
            let mut all = 0;
            for stream in 0..ledger.streams {
                let messages = held(&ledger, stream);
                all += messages.len();
                prop_assert_eq!(ledger.check(stream, messages), Ok(()));
            }
            prop_assert_eq!(all, ledger.acked.iter().sum::<usize>());
        }

        #[test]
        fn one_message_less_or_twice_is_always_found(ledger in ledgers(), at in any::<prop::sample::Index>()) {
            for stream in 0..ledger.streams {
                let messages = held(&ledger, stream);
                if messages.is_empty() {
                    continue;
                }
                let at = at.index(messages.len());
                let mut less = messages.clone();
                let lost = Stamp::of(&less.remove(at)).unwrap();
                prop_assert_eq!(ledger.check(stream, less), Err(Breach::Missing(lost)));
                let mut twice = messages.clone();
                twice.insert(at, messages[at].clone());
                prop_assert_eq!(ledger.check(stream, twice), Err(Breach::Repeated(lost)));
            }
        }

        #[test]
        fn the_number_of_a_producer_counts_up_from_0_on_each_stream(writer in 0_usize..9, streams in 1_usize..6) {
            let mut there = vec![0; streams];
            for nth in 0..40 {
                let stamp = Stamp { writer, nth };
                let seen = &mut there[stamp.stream(streams)];
                prop_assert_eq!(stamp.earlier_there(streams), *seen);
                *seen += 1;
            }
        }
    }
}
