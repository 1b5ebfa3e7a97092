//! What can be scripted to go wrong.
//!
//! Faults wait in a queue a kind of operation; each is met by one operation, the next that it is meant for. An
//! [`Outage`] concerns everything for as long as it lasts, and uses no queued fault up.

use std::{collections::VecDeque, fmt, time::Duration};

use tailwater_upstream::{Append, StreamKey};

use crate::{gate::Gate, upstream::ScriptedUpstream};

/// What holds an operation up.
#[derive(Debug, Clone)]
pub enum Pause {
    /// A span of tokio's time.
    For(Duration),
    /// A gate, until the test opens it.
    At(Gate),
}

/// What happens to an append.
#[derive(Debug, Clone)]
pub enum AppendFault {
    /// It arrives late: the pause comes first. Given up meanwhile, it never lands.
    PauseBefore(Pause),
    /// It lands at once, and its answer comes late. Given up meanwhile, it has landed.
    PauseAfter(Pause),
    /// It never reaches the store: not available, not appended.
    NotSent,
    /// It takes effect, as its conditions allow, and the answer is lost: not available, fate unknown.
    AnswerLost,
    /// The answer is lost as above, and the append is held back. It lands, if its conditions then hold, with
    /// [`release_held`](ScriptedUpstream::release_held).
    LandsLater,
    /// The store asks for patience.
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// The store is deleting a stream of this name.
    DeletionPending,
    /// The store refuses the request as such.
    Refused,
}

/// What happens to a unary read, a tail check or a listing.
#[derive(Debug, Clone)]
pub enum ReadFault {
    /// It arrives late: the answer tells of the time after the pause.
    PauseBefore(Pause),
    /// The answer comes late: it tells of the time before the pause.
    PauseAfter(Pause),
    /// The store is not available.
    Fails,
    /// The store asks for patience.
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// The store refuses the request as such.
    Refused,
}

/// What happens to a read session that is being opened.
#[derive(Debug, Clone)]
pub enum SessionFault {
    /// It opens late.
    PauseBefore(Pause),
    /// The store is not available.
    Fails,
    /// The store asks for patience.
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// The store refuses the request as such.
    Refused,
    /// It opens, and ends with an error at once.
    Cut,
    /// It opens, and yields nothing until [resumed](ScriptedUpstream::resume_sessions).
    Stall,
}

/// What concerns every operation on every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outage {
    /// None.
    #[default]
    Over,
    /// The store cannot be reached: operations fail at once without effect, sessions yield nothing and come back when
    /// the outage is over.
    Refusing,
    /// The store hangs: operations get no answer, and fail after [`ANSWER_WITHIN`]. Appends are held, and land when
    /// the outage is over, as far as their conditions then hold and whether or not somebody still waits. Sessions
    /// yield nothing meanwhile.
    Silent,
}

/// For how long an operation waits for a silent store.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where faults are put: for whatever stream comes next, or for one stream.
#[derive(Debug)]
pub struct Faults<'a> {
    upstream: &'a ScriptedUpstream,
    only: Option<StreamKey>,
}

/// Decides on the fault of an append; asked where the queue has none.
pub(crate) type AppendHook = Box<dyn FnMut(&StreamKey, &Append) -> Option<AppendFault> + Send>;

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) appends: Queue<AppendFault>,
    pub(crate) reads: Queue<ReadFault>,
    pub(crate) tails: Queue<ReadFault>,
    pub(crate) lists: Queue<ReadFault>,
    pub(crate) sessions: Queue<SessionFault>,
}

/// Faults in the order in which they are met, each with the stream that it is meant for.
pub(crate) struct Queue<F>(VecDeque<(Option<StreamKey>, F)>);

impl Pause {
    pub(crate) async fn pass(&self) {
        match self {
            Self::For(span) => tokio::time::sleep(*span).await,
            Self::At(gate) => gate.pass().await,
        }
    }
}

impl<'a> Faults<'a> {
    pub(crate) fn new(upstream: &'a ScriptedUpstream, only: Option<StreamKey>) -> Self {
        Self { upstream, only }
    }

    /// The next append meets `fault`.
    pub fn next_append(&self, fault: AppendFault) -> &Self {
        self.put(|script, only| script.appends.push(only, fault))
    }

    /// The next unary read meets `fault`.
    pub fn next_read(&self, fault: ReadFault) -> &Self {
        self.put(|script, only| script.reads.push(only, fault))
    }

    /// The next tail check meets `fault`.
    pub fn next_tail(&self, fault: ReadFault) -> &Self {
        self.put(|script, only| script.tails.push(only, fault))
    }

    /// The next listing meets `fault`. Faults of one stream are never met by a listing.
    pub fn next_list(&self, fault: ReadFault) -> &Self {
        self.put(|script, only| script.lists.push(only, fault))
    }

    /// The next session to be opened meets `fault`.
    pub fn next_session(&self, fault: SessionFault) -> &Self {
        self.put(|script, only| script.sessions.push(only, fault))
    }

    /// How many faults wait in all queues, for whatever stream; 0 when a script has been played to its end.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.upstream.with_script(|script| script.waiting())
    }

    fn put(&self, put: impl FnOnce(&mut Script, Option<StreamKey>)) -> &Self {
        self.upstream.with_script(|script| put(script, self.only.clone()));
        self
    }
}

impl Script {
    fn waiting(&self) -> usize {
        self.appends.0.len() + self.reads.0.len() + self.tails.0.len() + self.lists.0.len() + self.sessions.0.len()
    }
}

impl<F> Queue<F> {
    fn push(&mut self, only: Option<StreamKey>, fault: F) {
        self.0.push_back((only, fault));
    }

    /// The first fault that is meant for any stream, or for this one.
    pub(crate) fn take(&mut self, key: Option<&StreamKey>) -> Option<F> {
        let at = self.0.iter().position(|(only, _)| only.is_none() || only.as_ref() == key)?;
        self.0.remove(at).map(|(_, fault)| fault)
    }
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<F: fmt::Debug> fmt::Debug for Queue<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
