//! What waits to be written, and how it comes into the queue.

use bytes::Bytes;
use tailwater_log::{AppendRequest, Content, CreateRequest, DeclaredConfig, Reference};

use super::upload::LargeBody;
use crate::{
    actor::{Actor, Reply, answer},
    metrics::Limit,
    ops::{Appended, Created, OpError, Post},
};

/// A stream to be created: what to compare an existing one with, and what to append where there is none.
pub(crate) struct NewStream {
    pub(crate) declared: DeclaredConfig,
    pub(crate) request: CreateRequest,
    /// Whether nothing is to be created: where no stream is, the answer says so.
    pub(crate) compare_only: bool,
}

/// A write that waits.
pub(in crate::actor) struct Write {
    pub(super) kind: WriteKind,
    /// Whether the state was checked after it arrived.
    pub(super) fresh: bool,
    pub(super) tries: u32,
}

pub(super) enum WriteKind {
    Append(Box<AppendWrite>),
    Create(Box<CreateWrite>),
    Mark(Mark),
}

/// A write that is one mark, or one command, in a batch of its own.
pub(super) enum Mark {
    Delete(Reply<()>),
    Refer {
        reference: Reference,
        /// The life that the fork was decided on; `None` is a native stream.
        life: Option<u64>,
        reply: Reply<()>,
    },
    Release {
        reference: Reference,
        reply: Reply<()>,
    },
    Expire,
    Touch,
    Checkpoint,
    Trim,
    /// Moves the token, for a turn without others.
    Turn,
}

pub(super) struct AppendWrite {
    pub(super) request: AppendRequest,
    /// A large body, once its pieces are in the log.
    pub(super) uploaded: Option<LargeBody>,
    pub(super) reply: Reply<Appended>,
}

pub(super) struct CreateWrite {
    pub(super) stream: Box<NewStream>,
    /// The messages as they came: a create that is decided again appends its pieces again.
    pub(super) messages: Content,
    pub(super) whole: Option<Bytes>,
    pub(super) reply: Reply<Created>,
}

impl Write {
    pub(super) fn new(kind: WriteKind, fresh: bool) -> Self {
        Self { kind, fresh, tries: 0 }
    }

    /// Whether it is an append whose batch may be under way beside others.
    pub(super) fn is_plain(&self) -> bool {
        matches!(&self.kind, WriteKind::Append(append) if append.uploaded.is_none() && append.request.is_plain())
    }

    /// Whether somebody waits to be told what became of it. Nobody says so of a mark that is the actor's own, but what is
    /// asked next may depend on it.
    pub(super) fn is_awaited(&self) -> bool {
        match &self.kind {
            WriteKind::Append(write) => !write.reply.is_closed(),
            WriteKind::Create(write) => !write.reply.is_closed(),
            WriteKind::Mark(Mark::Delete(reply) | Mark::Refer { reply, .. } | Mark::Release { reply, .. }) => {
                !reply.is_closed()
            }
            WriteKind::Mark(Mark::Expire | Mark::Touch | Mark::Checkpoint | Mark::Trim | Mark::Turn) => true,
        }
    }

    pub(super) fn fail(self, error: &OpError) {
        match self.kind {
            WriteKind::Append(write) => answer(write.reply, Err(error.again())),
            WriteKind::Create(write) => answer(write.reply, Err(error.again())),
            WriteKind::Mark(mark) => mark.fail(error),
        }
    }
}

impl Mark {
    pub(super) fn fail(self, error: &OpError) {
        match self {
            Self::Delete(reply) | Self::Refer { reply, .. } | Self::Release { reply, .. } => {
                answer(reply, Err(error.again()));
            }
            Self::Expire | Self::Touch | Self::Checkpoint | Self::Trim | Self::Turn => {}
        }
    }
}

impl Actor {
    pub(in crate::actor) fn queue_append(&mut self, post: Post, reply: Reply<Appended>, fresh: bool) {
        let Post { messages, content_type, producer, stream_seq, close } = post;
        let content = Content::Messages(messages);
        let request = AppendRequest { content, content_type, producer, stream_seq, close };
        self.queue(WriteKind::Append(Box::new(AppendWrite { request, uploaded: None, reply })), fresh);
    }

    pub(in crate::actor) fn queue_create(&mut self, stream: Box<NewStream>, reply: Reply<Created>, fresh: bool) {
        let messages = stream.request.content.clone();
        self.queue(WriteKind::Create(Box::new(CreateWrite { stream, messages, whole: None, reply })), fresh);
    }

    pub(in crate::actor) fn queue_delete(&mut self, reply: Reply<()>, fresh: bool) {
        self.queue(WriteKind::Mark(Mark::Delete(reply)), fresh);
    }

    pub(in crate::actor) fn queue_refer(
        &mut self,
        reference: Reference,
        life: Option<u64>,
        reply: Reply<()>,
        fresh: bool,
    ) {
        self.queue(WriteKind::Mark(Mark::Refer { reference, life, reply }), fresh);
    }

    pub(in crate::actor) fn queue_release(&mut self, reference: Reference, reply: Reply<()>, fresh: bool) {
        self.queue(WriteKind::Mark(Mark::Release { reference, reply }), fresh);
    }

    pub(in crate::actor) fn queue_expire(&mut self) {
        self.queue_mark(Mark::Expire);
    }

    pub(in crate::actor) fn queue_touch(&mut self) {
        self.queue_mark(Mark::Touch);
    }

    pub(in crate::actor) fn queue_checkpoint(&mut self) {
        self.queue_mark(Mark::Checkpoint);
    }

    pub(in crate::actor) fn queue_trim(&mut self) {
        self.queue_mark(Mark::Trim);
    }

    fn queue(&mut self, kind: WriteKind, fresh: bool) {
        let write = Write::new(kind, fresh || self.seed.upstream.single_owner());
        if self.writes.queue.len() >= self.seed.config.max_waiting {
            self.seed.metrics.refused(Limit::WaitingWrites);
            return write.fail(&OpError::StreamBusy);
        }
        self.writes.queue.push_back(write);
    }

    /// A mark goes first: what waits may depend on it. One of a kind is enough.
    fn queue_mark(&mut self, mark: Mark) {
        let same = |queued: &Mark| std::mem::discriminant(queued) == std::mem::discriminant(&mark);
        if !self.writes.queue.iter().any(|write| matches!(&write.kind, WriteKind::Mark(queued) if same(queued))) {
            self.writes.queue.push_front(Write::new(WriteKind::Mark(mark), true));
        }
    }
}
