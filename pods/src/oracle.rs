//! Judges what clients saw: a pure function, so that its tests can show it broken histories.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt};

use crate::{
    history::{Append, Fate, ReaderHistory, Start, StreamHistory, WriterHistory, WriterKind},
    message::Message,
};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// All pods tell the same bytes.
    Equal,
    /// What they tell are messages that somebody sent.
    Foreign,
    /// Every acknowledged message is there.
    Lost,
    /// Nothing is there twice.
    Repeated,
    /// Nothing is there that was refused.
    Refused,
    /// What was sent together is there together, or not at all.
    Torn,
    /// What one writer sent is there in its order: of a plain writer, what was acknowledged.
    Order,
    /// A reader misses nothing.
    Gap,
    /// A reader is given nothing twice.
    Repeat,
    /// A reader comes to the end.
    Unfinished,
    /// Nobody is given an answer or an event that the protocol does not have there.
    Told,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Equal,
        Self::Foreign,
        Self::Lost,
        Self::Repeated,
        Self::Refused,
        Self::Torn,
        Self::Order,
        Self::Gap,
        Self::Repeat,
        Self::Unfinished,
        Self::Told,
    ];

    /// What is counted where it is broken.
    #[must_use]
    pub fn counted(self) -> &'static str {
        match self {
            Self::Equal => "pods that tell something else in the end",
            Self::Foreign => "messages that nobody sent",
            Self::Lost => "acknowledged messages lost",
            Self::Repeated => "messages stored twice",
            Self::Refused => "refused messages stored",
            Self::Torn => "appends stored in part",
            Self::Order => "messages of a writer out of order",
            Self::Gap => "gaps for readers",
            Self::Repeat => "repeats for readers",
            Self::Unfinished => "readers that did not come to the end",
            Self::Told => "answers and events that should not have been",
        }
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.counted(), self.what)
    }
}

/// How much was judged, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages in the streams.
    pub stored: u64,
    /// Those that were acknowledged to plain writers.
    pub acked_plain: u64,
    /// Those that were acknowledged to producers.
    pub acked_producer: u64,
    /// Refused.
    pub refused: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// Those of unknown fate that are there.
    pub unknown_stored: u64,
    /// Given to readers.
    pub delivered: u64,
    /// Readers.
    pub readers: u64,
    /// How often readers went on from their offsets.
    pub resumes: u64,
    /// How often the one who did so least.
    pub least_resumes: u64,
}

/// What was judged, and what is wrong.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// How much was judged.
    pub counts: Counts,
    /// All that is wrong.
    pub breaches: Vec<Breach>,
}

impl Verdict {
    /// How often a rule was broken.
    #[must_use]
    pub fn breaches_of(&self, rule: Rule) -> usize {
        self.breaches.iter().filter(|breach| breach.rule == rule).count()
    }

    fn breach(&mut self, rule: Rule, what: String) {
        self.breaches.push(Breach { rule, what });
    }
}

/// Judges everything that happened.
#[must_use]
pub fn judge(streams: &[StreamHistory]) -> Verdict {
    let mut verdict = Verdict::default();
    let least = streams.iter().flat_map(|stream| &stream.readers).map(|reader| reader.resumes).min();
    verdict.counts.least_resumes = least.unwrap_or_default();
    for stream in streams {
        judge_stream(stream, &mut verdict);
    }
    verdict
}

fn judge_stream(stream: &StreamHistory, verdict: &mut Verdict) {
    let name = &stream.name;
    let told = stream.writers.iter().flat_map(|writer| &writer.breaches);
    for breach in told.chain(stream.readers.iter().flat_map(|reader| &reader.breaches)) {
        verdict.breach(Rule::Told, format!("{name}: {breach}"));
    }
    let Some((first, others)) = stream.ends.split_first() else {
        return verdict.breach(Rule::Equal, format!("{name}: nobody tells its end"));
    };
    for other in others.iter().filter(|other| (&other.bytes, &other.next) != (&first.bytes, &first.next)) {
        let at = first.bytes.iter().zip(&other.bytes).take_while(|(a, b)| a == b).count();
        let (one, two) = ((first.bytes.len(), &first.next), (other.bytes.len(), &other.next));
        let (by, too) = (&first.told_by, &other.told_by);
        verdict.breach(Rule::Equal, format!("{name}: {by} tells {one:?}, {too} {two:?}, the same up to {at}"));
    }
    match stream.content.decode(&first.bytes) {
        Ok(truth) => Trial::of(stream, &truth, verdict).run(),
        Err(malformed) => verdict.breach(Rule::Foreign, format!("{name}: {malformed}")),
    }
}

/// One stream, held against its truth.
struct Trial<'a> {
    stream: &'a StreamHistory,
    truth: &'a [Message],
    /// Where each message stands; of one that stands there twice, the first.
    places: HashMap<Message, usize>,
    verdict: &'a mut Verdict,
}

impl<'a> Trial<'a> {
    fn of(stream: &'a StreamHistory, truth: &'a [Message], verdict: &'a mut Verdict) -> Self {
        let mut places = HashMap::with_capacity(truth.len());
        for (place, message) in truth.iter().enumerate() {
            places.entry(*message).or_insert(place);
        }
        Self { stream, truth, places, verdict }
    }

    fn run(mut self) {
        self.judge_truth();
        for writer in &self.stream.writers {
            self.judge_writer(writer);
        }
        for reader in &self.stream.readers {
            self.judge_reader(reader);
        }
    }

    fn breach(&mut self, rule: Rule, what: &str) {
        self.verdict.breach(rule, format!("{}: {what}", self.stream.name));
    }

    fn judge_truth(&mut self) {
        self.verdict.counts.stored += self.truth.len() as u64;
        let writers = self.stream.writers.iter();
        let sent: HashMap<u32, u32> = writers.map(|writer| (writer.writer, sent_by(writer))).collect();
        for (place, message) in self.truth.iter().enumerate() {
            if sent.get(&message.writer).is_none_or(|sent| message.number >= *sent) {
                self.breach(Rule::Foreign, &format!("{message:?} at {place}"));
            }
            let first = self.places[message];
            if first != place {
                self.breach(Rule::Repeated, &format!("{message:?} at {first} and at {place}"));
            }
        }
    }

    fn judge_writer(&mut self, writer: &WriterHistory) {
        let mut newest: Option<usize> = None;
        for append in &writer.appends {
            let sent = messages(writer, append);
            let places: Vec<usize> = sent.filter_map(|message| self.places.get(&message).copied()).collect();
            self.count(writer.kind, append, places.len());
            let what = format!("{append:?} of {:?} {}", writer.kind, writer.writer);
            match append.fate {
                Fate::Acked if places.len() < append.count as usize => {
                    self.breach(Rule::Lost, &format!("{what}: {} of them are there", places.len()));
                }
                Fate::Refused if !places.is_empty() => self.breach(Rule::Refused, &format!("{what}: at {places:?}")),
                Fate::Acked | Fate::Refused | Fate::Unknown => {}
            }
            let whole = places.len() == append.count as usize;
            if !places.is_empty() && (!whole || places.windows(2).any(|pair| pair[1] != pair[0] + 1)) {
                self.breach(Rule::Torn, &format!("{what}: at {places:?}"));
            }
            let ordered = writer.kind == WriterKind::Producer || append.fate == Fate::Acked;
            if let (true, Some(first)) = (ordered, places.first()) {
                if newest.is_some_and(|newest| newest > *first) {
                    self.breach(Rule::Order, &format!("{what}: at {first}, behind which an earlier one stands"));
                }
                newest = newest.max(places.last().copied());
            }
        }
    }

    fn count(&mut self, kind: WriterKind, append: &Append, stored: usize) {
        let (counts, sent) = (&mut self.verdict.counts, u64::from(append.count));
        match (append.fate, kind) {
            (Fate::Acked, WriterKind::Plain) => counts.acked_plain += sent,
            (Fate::Acked, WriterKind::Producer) => counts.acked_producer += sent,
            (Fate::Refused, WriterKind::Plain | WriterKind::Producer) => counts.refused += sent,
            (Fate::Unknown, WriterKind::Plain | WriterKind::Producer) => {
                counts.unknown += sent;
                counts.unknown_stored += stored as u64;
            }
        }
    }

    /// The place of the first message that a reader has to have.
    fn begin(&mut self, reader: &ReaderHistory) -> Option<usize> {
        let begun = match (reader.from, &reader.begun) {
            (Start::Beginning, _) => return Some(0),
            // Whoever was never told where it is has nothing either.
            (Start::Now, None) => return Some(self.truth.len()),
            (Start::Now, Some(begun)) => begun,
        };
        let behind = reader.behind.as_deref().map(|behind| self.stream.content.decode(behind));
        let Some(Ok(behind)) = behind else {
            self.breach(Rule::Foreign, &format!("behind {}: {behind:?}", begun.offset));
            return None;
        };
        if !self.truth.ends_with(&behind) {
            let what = format!("behind {}: {} messages, which are not its last", begun.offset, behind.len());
            self.breach(Rule::Equal, &what);
            return None;
        }
        let at = self.truth.len() - behind.len();
        if begun.messages > at {
            let what = format!(
                "{} was given {} messages before {}, and there are {at}",
                reader.name, begun.messages, begun.offset
            );
            self.breach(Rule::Repeat, &what);
        }
        at.checked_sub(begun.messages)
    }

    fn judge_reader(&mut self, reader: &ReaderHistory) {
        self.verdict.counts.readers += 1;
        self.verdict.counts.delivered += reader.seen.len() as u64;
        self.verdict.counts.resumes += reader.resumes;
        if !reader.finished {
            self.breach(Rule::Unfinished, &format!("{} after {} messages", reader.name, reader.seen.len()));
        }
        let Some(begin) = self.begin(reader) else { return };
        let expected = &self.truth[begin..];
        let right = expected.iter().zip(&reader.seen).take_while(|(wanted, got)| wanted == got).count();
        let (wanted, got) = (expected.get(right), reader.seen.get(right));
        let what = format!("{} after {right} messages: {got:?} instead of {wanted:?}", reader.name);
        match got.map(|got| self.places.get(got).copied()) {
            // The end came too early; for one that did not come to the end, that is said already.
            None if wanted.is_some() && reader.finished => self.breach(Rule::Gap, &what),
            None => {}
            Some(None) => self.breach(Rule::Foreign, &what),
            Some(Some(place)) if place < begin + right => self.breach(Rule::Repeat, &what),
            Some(Some(_)) => self.breach(Rule::Gap, &what),
        }
    }
}

/// One more than the number of the last message that a writer has sent.
fn sent_by(writer: &WriterHistory) -> u32 {
    writer.appends.iter().map(|append| append.first + append.count).max().unwrap_or_default()
}

fn messages(writer: &WriterHistory, append: &Append) -> impl Iterator<Item = Message> + use<> {
    let writer = writer.writer;
    (append.first..append.first + append.count).map(move |number| Message { writer, number })
}
