//! What clients did and were told, as it is judged.

use crate::message::{Content, Message};

/// Everything that happened to one stream.
#[derive(Debug, Clone)]
pub struct StreamHistory {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: Content,
    /// Who wrote.
    pub writers: Vec<WriterHistory>,
    /// Who read.
    pub readers: Vec<ReaderHistory>,
    /// What each pod told of the whole stream in the end.
    pub ends: Vec<End>,
}

/// What one writer did, in its order.
#[derive(Debug, Clone)]
pub struct WriterHistory {
    /// Its number.
    pub writer: u32,
    /// What it can expect.
    pub kind: WriterKind,
    /// Its appends. It began one after it had given up the one before, or had been answered.
    pub appends: Vec<Append>,
    /// Appends of a producer that were not acknowledged at the first attempt.
    pub retried: u64,
    /// Those that were not at the second either.
    pub failed_twice: u64,
    /// Answers that it should not have been given.
    pub breaches: Vec<String>,
}

/// What a writer can expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterKind {
    /// No producer headers: what it did not hear of may land, at some time.
    Plain,
    /// Producer headers (protocol, section 5.2.1): it sends again what it did not hear of, and everything in its order.
    Producer,
}

/// Messages that were sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// The number of the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// What became of them, as far as the writer knows.
    pub fate: Fate,
}

/// What a writer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged.
    Acked,
    /// It was refused, or could not be sent: it must not be there, now or later.
    Refused,
    /// Nobody said, or somebody said that he does not know: it may be there.
    Unknown,
}

/// What one reader saw, over all its connections.
#[derive(Debug, Clone)]
pub struct ReaderHistory {
    /// What it is called in findings.
    pub name: String,
    /// Where it began.
    pub from: Start,
    /// The first offset that it was told; none where it was never told one.
    pub begun: Option<Begun>,
    /// What stands behind that in the end, as a pod tells it, of a reader that did not begin at the beginning.
    pub behind: Option<Vec<u8>>,
    /// All messages up to the last offset that it was told, in their order.
    pub seen: Vec<Message>,
    /// How often it went on from its offset on another connection.
    pub resumes: u64,
    /// Whether it was told the end of the stream.
    pub finished: bool,
    /// Answers and events that it should not have been given.
    pub breaches: Vec<String>,
}

/// The first offset that a reader was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The offset.
    pub offset: String,
    /// How many messages came before it.
    pub messages: usize,
}

/// Where a reader began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first message.
    Beginning,
    /// At the tail of that time.
    Now,
}

/// The whole stream, as one pod tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Who told it, and when.
    pub told_by: String,
    /// All its pages as one.
    pub bytes: Vec<u8>,
    /// The offset behind it.
    pub next: String,
}
