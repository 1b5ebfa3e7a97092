//! What a seed means: a finite list of deeds for each actor, and of faults, each at its time.
//!
//! Nothing is drawn while a script is played but what the program under test draws for itself, and the length of the ways
//! to the store. So a script can be made smaller by leaving out deeds and faults, and still means something: that is how
//! a failing seed is [shrunk](crate::shrink).

mod draw;

use std::fmt;

use tailwater_upstream::StreamKey;

/// Everything that happens in one world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it was drawn from, and what the dice of the pods start from.
    pub seed: u64,
    /// What it is mostly about.
    pub theme: Theme,
    /// The longest way to the store, in milliseconds; each way takes its own time up to that.
    pub latency_ms: u64,
    /// Whether what is trimmed stays for a while, as in S2.
    pub late_trims: bool,
    /// The streams that are there at first, and those that may come to be.
    pub streams: Vec<StreamPlan>,
    /// The pods.
    pub pods: Vec<PodPlan>,
    /// Who does what.
    pub actors: Vec<Actor>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// What a script is mostly about; all of them have faults and readers of all kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theme {
    /// Writers with and without claims.
    Plain,
    /// Producers, long logs, many activations.
    Producers,
    /// Deletes and creates of one name.
    Lives,
    /// Forks, of forks too, and deletes of all of them.
    Forks,
    /// Streams with a lifetime.
    Expiry,
    /// Bodies larger than a batch.
    Large,
    /// Native writers, and trims of their own.
    Native,
    /// Pods of this version and of the next one.
    Upgrade,
    /// Who wants a turn gets one: a scenario of its own ([`liveness`](crate::liveness)).
    Liveness,
}

/// How a stream is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPlan {
    /// Whether it is there at the beginning.
    pub at_first: bool,
    /// Whether native writers begin it.
    pub native: bool,
    /// Its lifetime.
    pub lasts: Lasts,
}

/// A lifetime, in seconds from its creation or its last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// For ever.
    Forever,
    /// Since the last use.
    Ttl(u64),
    /// Since the first time that it is created.
    Until(u64),
}

/// How a pod is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPlan {
    /// The bytes of a ring, and of all of them.
    pub ring_bytes: usize,
    /// The bytes of a page.
    pub page_bytes: usize,
    /// The bytes of history that are kept.
    pub history_bytes: usize,
    /// How long a session outlives its last reader.
    pub linger_ms: u64,
    /// How long an actor outlives its last use.
    pub idle_ms: u64,
    /// How much the machine's clock is wrong.
    pub skew_ms: i64,
    /// Whether it writes the next version of the envelope.
    pub next_version: bool,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The stream that it is about.
    pub stream: usize,
    /// What it does, one after the other.
    pub steps: Vec<Step>,
}

/// A deed with its time and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long after the one before.
    pub wait_ms: u64,
    /// At which pod.
    pub pod: usize,
    /// What.
    pub deed: Deed,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A POST of so many messages of so many bytes; then a read at another pod, which must show it.
    Say {
        /// How many.
        count: usize,
        /// How large.
        size: usize,
        /// Where to look for it.
        look: Option<usize>,
    },
    /// The next claim of its producer, repeated until it is known what became of it.
    Claim {
        /// How many messages.
        count: usize,
        /// Another pod, which is sent the same at the same time.
        also: Option<usize>,
        /// Whether a new epoch begins.
        epoch: bool,
    },
    /// The claim that was answered last, once more.
    ClaimAgain,
    /// A POST with a `Stream-Seq`.
    Number,
    /// A POST that does not fit a batch, in KiB.
    Large {
        /// How large.
        kib: usize,
    },
    /// A POST that closes, with so many messages.
    Close {
        /// How many.
        count: usize,
    },
    /// A PUT.
    Create,
    /// A DELETE.
    Delete,
    /// A PUT that forks the actor's stream.
    Fork {
        /// The stream that comes to be.
        into: usize,
        /// How many messages before the tail, where it is not the tail.
        back: Option<u64>,
    },
    /// A native writer appends.
    Native {
        /// How many messages.
        count: usize,
    },
    /// A native writer trims a stream that no pod has opened: so many messages stay.
    NativeTrim {
        /// How many stay.
        keep: u64,
    },
    /// A pod of the next version leaves a mark that this one does not know and may skip.
    NextMark,
    /// A HEAD.
    Head,
    /// GETs from the start to the tail.
    Read,
    /// Follows the stream for a while, from its own offset on.
    Follow(Follow),
}

/// How a stream is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// In which way.
    pub way: Way,
    /// Where it starts if it has no offset yet.
    pub from_now: bool,
    /// After how many deliveries it goes.
    pub takes: usize,
    /// After how long without any it goes.
    pub patience_ms: u64,
    /// How long it takes nothing after each delivery.
    pub stall_ms: u64,
}

/// The ways to follow a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A task of its own.
    Task,
    /// A socket at a delivery shard.
    Seat,
    /// A long-poll that waits at a shard.
    Poll,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When, from the beginning.
    pub at_ms: u64,
    /// Which pod it concerns, where it concerns one.
    pub pod: usize,
    /// Which stream it concerns, where it concerns one.
    pub stream: usize,
    /// How long it takes, where it takes time.
    pub ms: u64,
    /// What.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The sessions of a stream end.
    SessionCut,
    /// They hang for a while, and come back.
    SessionStall,
    /// The next one cannot be opened.
    SessionRefused,
    /// An append lands, and its answer is lost.
    AckLost,
    /// An append lands, and its answer comes late, maybe after nobody waits any more.
    AckLate,
    /// An append arrives late, if it is still wanted.
    AppendLate,
    /// An append seems lost, and arrives later, on whatever is there then.
    AppendLaterStill,
    /// An append of which at most one can land lands, and arrives once more later.
    AppendTwice,
    /// An append never gets there.
    AppendNotSent,
    /// The store asks for patience.
    Busy,
    /// The store is deleting a stream of this name.
    DeletionPending,
    /// A read fails.
    ReadFails,
    /// A tail check's answer comes late.
    TailLate,
    /// A tail check fails.
    TailFails,
    /// A listing fails.
    ListFails,
    /// The store refuses everything for a while.
    OutageRefusing,
    /// The store hangs for a while.
    OutageSilent,
    /// The store's clock jumps ahead.
    ClockJump,
    /// What was trimmed goes, where that is not at once.
    TrimsSettle,
    /// A stream that is empty is removed.
    Reap,
    /// A pod is asked to end, as at an upgrade.
    Drain,
    /// A pod is killed.
    Kill,
    /// A pod is killed where it has referred to a fork's source and not opened the fork.
    KillBeforeForkOpen,
    /// A pod is killed where it has listed a stream with a lifetime and not opened it.
    KillBeforeListedOpen,
    /// A pod is killed where a fork is gone and its source still refers to it.
    KillBeforeUnref,
    /// A pod is killed where a stream is gone and not trimmed.
    KillBeforeTrim,
    /// A pod is killed where a large body's pieces are there and its commit is not.
    KillBeforeCommit,
    /// A pod is killed where it has moved the token to settle an append, and not looked.
    KillAfterTurn,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::SessionCut,
        Self::SessionStall,
        Self::SessionRefused,
        Self::AckLost,
        Self::AckLate,
        Self::AppendLate,
        Self::AppendLaterStill,
        Self::AppendTwice,
        Self::AppendNotSent,
        Self::Busy,
        Self::DeletionPending,
        Self::ReadFails,
        Self::TailLate,
        Self::TailFails,
        Self::ListFails,
        Self::OutageRefusing,
        Self::OutageSilent,
        Self::ClockJump,
        Self::TrimsSettle,
        Self::Reap,
        Self::Drain,
        Self::Kill,
        Self::KillBeforeForkOpen,
        Self::KillBeforeListedOpen,
        Self::KillBeforeUnref,
        Self::KillBeforeTrim,
        Self::KillBeforeCommit,
        Self::KillAfterTurn,
    ];
}

impl Theme {
    /// All of them, in the order in which seeds take them.
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::Producers,
        Self::Lives,
        Self::Forks,
        Self::Expiry,
        Self::Large,
        Self::Native,
        Self::Upgrade,
        Self::Liveness,
    ];
}

/// The name of a script's stream.
#[must_use]
pub fn key_of(stream: usize) -> StreamKey {
    StreamKey::new("p", &format!("s{stream}"))
}

impl Script {
    /// What a seed means.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        draw::script(seed)
    }

    /// How many deeds and faults there are to leave out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faults.len() + self.actors.iter().map(|actor| actor.steps.len()).sum::<usize>()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same without those deeds and faults that `keeps` says no to; it is asked with their numbers, the faults first.
    #[must_use]
    pub fn only(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let mut number = 0;
        let mut kept = || {
            number += 1;
            keeps(number - 1)
        };
        let mut script = self.clone();
        script.faults.retain(|_| kept());
        for actor in &mut script.actors {
            actor.steps.retain(|_| kept());
        }
        script
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, theme, latency_ms, late_trims, .. } = self;
        writeln!(f, "seed {seed}: {theme:?}, ways of up to {latency_ms} ms, late trims: {late_trims}")?;
        for (n, stream) in self.streams.iter().enumerate() {
            writeln!(f, "  s{n}: {stream:?}")?;
        }
        for (n, pod) in self.pods.iter().enumerate() {
            writeln!(f, "  pod {n}: {pod:?}")?;
        }
        for (n, actor) in self.actors.iter().enumerate().filter(|(_, actor)| !actor.steps.is_empty()) {
            writeln!(f, "  actor {n}, of s{}:", actor.stream)?;
            for Step { wait_ms, pod, deed } in &actor.steps {
                writeln!(f, "    {wait_ms:>5} ms later, at pod {pod}: {deed:?}")?;
            }
        }
        for Fault { at_ms, pod, stream, ms, kind } in &self.faults {
            writeln!(f, "  at {at_ms:>5} ms: {kind:?} (s{stream}, pod {pod}, {ms} ms)")?;
        }
        Ok(())
    }
}
