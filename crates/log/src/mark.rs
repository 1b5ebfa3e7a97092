//! What a record can be: the kinds of design section 2, as types.
//!
//! | kind | what it is | visible |
//! |---|---|---|
//! | message | the body is one message; the header only where there is something to say | yes |
//! | piece | part of a body that is larger than one S2 batch | no |
//! | commit | names the pieces of such a body, and is the message | yes |
//! | open, close, gone | a stream's life | no |
//! | touch | renews a sliding TTL | no |
//! | ref, unref | a fork needs this stream's data, or no longer | no |
//! | checkpoint | the folded state, so that nobody has to fold from the start | no |
//! | sub, unsub, delivery | reserved for pub/sub; nothing writes them yet | delivery |

use std::sync::Arc;

use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, StreamSeq};

/// What a record is, and what its batch says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// On the last record of a gateway's batch.
    pub stamp: Option<Stamp>,
    /// What the record is.
    pub kind: Kind,
}

/// What the last record of a gateway's batch carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Who wrote the batch. By it an append of unknown fate is found again.
    pub batch: BatchId,
    /// Up to where the newest checkpoint that the writer knew was folded (its `as of`). Activation starts here.
    pub checkpoint: Option<u64>,
}

/// The identity of a batch: no two batches share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// A random number of the actor that wrote it.
    pub writer: u64,
    /// Counts that actor's batches.
    pub counter: u64,
}

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The body is one message.
    Message(Message),
    /// Part of a large body.
    Piece(Piece),
    /// A large body, and a message.
    Commit(Commit),
    /// A stream begins.
    Open(Box<Open>),
    /// It takes no more appends.
    Close(Close),
    /// It is deleted.
    Gone(Gone),
    /// It is in use.
    Touch,
    /// A fork needs this stream's data.
    Ref(Reference),
    /// A fork needs it no longer.
    Unref(Reference),
    /// The body is the folded state.
    Checkpoint(Checkpoint),
    /// Reserved for pub/sub: a session subscribes to a source.
    Sub(Subscription),
    /// Reserved for pub/sub: it does so no longer.
    Unsub {
        /// The subscription that ends.
        subscription: u64,
    },
    /// Reserved for pub/sub: a message that a source delivered.
    Delivery(Delivery),
    /// S2's fence.
    Fence(String),
    /// S2's trim: the records before this one go.
    Trim(u64),
    /// A kind that this version does not know and may skip.
    Skipped,
}

/// What a message's header says; a message without a header says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The producer's claim, on the last message of its request.
    pub producer: Option<Producer>,
    /// The writer's sequence, on the last message of its request.
    pub stream_seq: Option<StreamSeq>,
}

/// Part of a body that is larger than one S2 batch. Pieces stand anywhere before their commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// A random number that the body's pieces and its commit share.
    pub body: u64,
    /// Counts the body's pieces from 0.
    pub index: u64,
}

/// The message whose bytes stand in pieces. In a JSON stream the bytes are one or more values joined by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The body that is committed.
    pub body: u64,
    /// The sequence numbers of its pieces, in order.
    pub pieces: Vec<u64>,
    /// The bytes of all pieces together.
    pub bytes: u64,
    /// What a message's header would say.
    pub message: Message,
}

/// A stream begins: its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// A random number that no other life of this name has.
    pub incarnation: u64,
    /// What PUT declared, or the project's default.
    pub content_type: ContentType,
    /// When it expires.
    pub lifetime: Lifetime,
    /// Who may cache and see it; `None` where nobody has said, which is for those to decide who serve it.
    pub visibility: Option<Visibility>,
    /// How many milliseconds of messages are kept; `None` keeps all.
    pub retention_ms: Option<u64>,
    /// Whether the records that stand before belong to the stream, because native writers had begun it.
    pub adopts_native: bool,
    /// Where the stream was forked from.
    pub fork: Option<Fork>,
}

/// Who may see a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Shared caches may hold what was read.
    #[default]
    Public,
    /// They may not.
    Private,
}

/// Where a fork comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The source's project and stream.
    pub source: StreamName,
    /// The source's incarnation, whose log holds this fork's `ref`.
    pub incarnation: u64,
    /// The fork offset: what the source holds before it is inherited.
    pub at: Offset,
    /// How much was inherited past the fork offset (protocol section 4.2).
    pub sub_offset: u64,
    /// All that is inherited, oldest first.
    pub chain: Vec<Segment>,
}

/// The name of a stream, as marks spell it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamName {
    /// The project.
    pub project: Arc<str>,
    /// The stream within it.
    pub stream: Arc<str>,
}

/// A stretch of some log that a stream serves as its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The birth that offsets into this stretch carry.
    pub birth: u64,
    /// Whose log it is; `None` is the stream's own.
    pub source: Option<StreamName>,
    /// The first sequence number of the stretch.
    pub from: u64,
    /// The sequence number before which it ends.
    pub to: u64,
}

/// The stream takes no more appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The producer that closed it: the same claim again is a retry.
    pub by: Option<Producer>,
}

/// The stream is deleted. Its data stays while forks need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Why.
    pub reason: GoneReason,
}

/// Why a stream went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    /// A client deleted it.
    Deleted,
    /// Its lifetime passed.
    Expired,
}

/// A fork that needs, or needed, this stream's data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The fork's incarnation.
    pub incarnation: u64,
    /// The fork's name, so that a reference left behind by a crash can be looked after.
    pub fork: StreamName,
}

/// The folded state, in the record's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// All records before this sequence number are folded into it, and none after.
    pub as_of: u64,
    /// The metered bytes of those records since the stream's beginning.
    pub weight: u64,
}

/// Reserved for pub/sub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The subscription.
    pub subscription: u64,
    /// What it is subscribed to.
    pub source: StreamName,
    /// The source's incarnation.
    pub incarnation: u64,
    /// The source's sequence number from which on it delivers.
    pub from: u64,
}

/// Reserved for pub/sub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The subscription that it answers.
    pub subscription: u64,
    /// The source's incarnation.
    pub incarnation: u64,
    /// The message's sequence number in the source.
    pub source_seq: u64,
}

impl Kind {
    /// Whether readers of the stream see this record as a message.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        matches!(self, Self::Message(_) | Self::Commit(_) | Self::Delivery(_))
    }
}
