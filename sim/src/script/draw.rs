//! From a seed to a script.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Actor, Deed, Fault, FaultKind, Follow, Lasts, PodPlan, Script, Step, StreamPlan, Theme, Way};

/// How long faults may begin after the beginning.
const SPAN_MS: u64 = 4_000;

struct Draw {
    rng: StdRng,
    theme: Theme,
    pods: usize,
    streams: usize,
}

pub(super) fn script(seed: u64) -> Script {
    let theme = Theme::ALL[usize::try_from(seed % Theme::ALL.len() as u64).unwrap_or(0)];
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let pods = rng.random_range(2..=3);
    let streams = match theme {
        Theme::Forks => 4,
        Theme::Plain | Theme::Producers | Theme::Lives | Theme::Expiry | Theme::Upgrade => rng.random_range(1..=2),
        Theme::Large | Theme::Native | Theme::Liveness => 1,
    };
    let mut draw = Draw { rng, theme, pods, streams };
    let mut script = Script {
        seed,
        theme,
        latency_ms: draw.one_of(&[0, 2, 15, 60]),
        late_trims: draw.one_in(3),
        streams: (0..streams).map(|n| draw.stream(n)).collect(),
        pods: (0..pods).map(|n| draw.pod(n)).collect(),
        actors: Vec::new(),
        faults: Vec::new(),
    };
    if theme != Theme::Liveness {
        script.actors = draw.actors();
        script.faults = draw.faults();
    }
    script
}

impl Draw {
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.random_range(0..all.len())]
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.rng.random_range(0..many) == 0
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..=most)
    }

    fn some_pod(&mut self) -> usize {
        self.rng.random_range(0..self.pods)
    }

    fn stream(&mut self, n: usize) -> StreamPlan {
        let theme = self.theme;
        let lasts = match theme {
            Theme::Expiry if self.one_in(4) => Lasts::Until(1 + self.up_to(4)),
            Theme::Expiry => Lasts::Ttl(1 + self.up_to(1)),
            Theme::Forks if n > 0 && self.one_in(4) => Lasts::Ttl(2),
            Theme::Plain
            | Theme::Producers
            | Theme::Lives
            | Theme::Forks
            | Theme::Large
            | Theme::Native
            | Theme::Upgrade
            | Theme::Liveness => Lasts::Forever,
        };
        StreamPlan { at_first: self.theme != Theme::Forks || n == 0, native: self.theme == Theme::Native, lasts }
    }

    fn pod(&mut self, n: usize) -> PodPlan {
        PodPlan {
            ring_bytes: self.one_of(&[1, 600, 4_000, 100_000]),
            page_bytes: self.one_of(&[1, 40, 2_000, 100_000]),
            history_bytes: self.one_of(&[0, 2_000, 1_000_000]),
            linger_ms: self.up_to(1_500),
            idle_ms: 1 + self.up_to(1_500),
            skew_ms: self.one_of(&[0, -5_000, 90_000, -7_200_000, 7_200_000]),
            next_version: self.theme == Theme::Upgrade && n == 0,
        }
    }

    fn actors(&mut self) -> Vec<Actor> {
        let mut actors = Vec::new();
        for stream in 0..self.streams {
            let (writers, readers) = match self.theme {
                Theme::Forks => (1, 1),
                Theme::Large => (2, 2),
                Theme::Plain
                | Theme::Producers
                | Theme::Lives
                | Theme::Expiry
                | Theme::Native
                | Theme::Upgrade
                | Theme::Liveness => (self.rng.random_range(2..=3), self.rng.random_range(2..=3)),
            };
            for _ in 0..writers {
                let steps = 4 + self.up_to(8);
                let steps = (0..steps).map(|_| self.write(stream)).collect();
                actors.push(Actor { stream, steps });
            }
            for _ in 0..readers {
                let way = self.one_of(&[Way::Task, Way::Seat, Way::Poll]);
                let steps = 2 + self.up_to(5);
                let steps = (0..steps).map(|_| self.follow(way)).collect();
                actors.push(Actor { stream, steps });
            }
        }
        if self.one_in(2) {
            let stream = self.rng.random_range(0..self.streams);
            let steps = (0..6).map(|_| self.look()).collect();
            actors.push(Actor { stream, steps });
        }
        actors
    }

    fn step(&mut self, most_ms: u64, deed: Deed) -> Step {
        Step { wait_ms: self.up_to(most_ms), pod: self.some_pod(), deed }
    }

    fn follow(&mut self, way: Way) -> Step {
        let follow = Follow {
            way,
            from_now: self.one_in(6),
            takes: self.rng.random_range(1..12),
            patience_ms: 1 + self.up_to(900),
            stall_ms: if self.one_in(2) { self.up_to(600) } else { 0 },
        };
        self.step(200, Deed::Follow(follow))
    }

    fn look(&mut self) -> Step {
        let deed = if self.one_in(2) { Deed::Head } else { Deed::Read };
        self.step(500, deed)
    }

    fn say(&mut self) -> Deed {
        let look = if self.one_in(3) { Some(self.some_pod()) } else { None };
        let many = self.theme == Theme::Producers;
        let count = if many { self.rng.random_range(1..60) } else { self.rng.random_range(1..4) };
        Deed::Say { count, size: self.one_of(&[0, 0, 30, 300]), look }
    }

    fn claim(&mut self) -> Deed {
        if self.one_in(4) {
            return Deed::ClaimAgain;
        }
        let also = if self.one_in(4) { Some(self.some_pod()) } else { None };
        Deed::Claim { count: self.rng.random_range(1..4), also, epoch: self.one_in(8) }
    }

    fn write(&mut self, stream: usize) -> Step {
        let dice = self.rng.random_range(0..20);
        let deed = match (self.theme, dice) {
            (Theme::Lives, 0..3) => Deed::Delete,
            (Theme::Lives, 3..7) | (Theme::Expiry, 0..3) => Deed::Create,
            (Theme::Forks, 0..5) => {
                let back = if self.one_in(2) { Some(self.up_to(3)) } else { None };
                Deed::Fork { into: (stream + 1 + self.rng.random_range(0..self.streams - 1)) % self.streams, back }
            }
            (Theme::Forks, 5..7) | (Theme::Expiry, 3) => Deed::Delete,
            (Theme::Forks, 7) => Deed::Create,
            (Theme::Large, 0..6) => Deed::Large { kib: self.one_of(&[1_100, 1_100, 2_100]) },
            (Theme::Native, 0..12) => Deed::Native { count: self.rng.random_range(1..6) },
            (Theme::Native, 12..15) => Deed::NativeTrim { keep: self.up_to(6) },
            // An append opens a native stream for good: not in all of them.
            (Theme::Native, 15..19) => Deed::Read,
            (Theme::Upgrade, 0..2) => Deed::NextMark,
            (Theme::Producers, 0..10) => self.claim(),
            (Theme::Plain | Theme::Expiry | Theme::Upgrade, 19) => Deed::Close { count: self.rng.random_range(0..3) },
            (_, 10..12) => Deed::Number,
            (_, 12..17) => self.claim(),
            _ => self.say(),
        };
        let most = if self.theme == Theme::Expiry { 1_200 } else { 250 };
        self.step(most, deed)
    }

    fn faults(&mut self) -> Vec<Fault> {
        let count = self.rng.random_range(0..24);
        let mut faults: Vec<Fault> = (0..count).map(|_| self.fault()).collect();
        faults.sort_by_key(|fault| fault.at_ms);
        faults
    }

    fn fault(&mut self) -> Fault {
        let own: &[FaultKind] = match self.theme {
            Theme::Forks => &[FaultKind::KillBeforeForkOpen, FaultKind::KillBeforeUnref, FaultKind::KillBeforeTrim],
            Theme::Lives => &[FaultKind::KillBeforeTrim, FaultKind::Reap, FaultKind::TrimsSettle],
            Theme::Expiry => &[FaultKind::ClockJump, FaultKind::KillBeforeListedOpen, FaultKind::TrimsSettle],
            Theme::Large => &[FaultKind::KillBeforeCommit],
            Theme::Producers => &[FaultKind::Drain, FaultKind::KillAfterTurn],
            Theme::Plain | Theme::Native | Theme::Upgrade | Theme::Liveness => &[FaultKind::KillAfterTurn],
        };
        let kind = if self.one_in(5) { self.one_of(own) } else { self.one_of(&FaultKind::ALL) };
        let ms = match kind {
            // Some answers come after whoever asked has given up.
            FaultKind::AckLate | FaultKind::AppendLate if self.one_in(4) => 7_000,
            FaultKind::OutageSilent if self.one_in(4) => 11_000,
            FaultKind::AppendLaterStill => self.up_to(9_000),
            FaultKind::ClockJump => self.up_to(2_500),
            FaultKind::SessionCut
            | FaultKind::SessionStall
            | FaultKind::SessionRefused
            | FaultKind::AckLost
            | FaultKind::AckLate
            | FaultKind::AppendLate
            | FaultKind::AppendTwice
            | FaultKind::AppendNotSent
            | FaultKind::Busy
            | FaultKind::DeletionPending
            | FaultKind::ReadFails
            | FaultKind::TailLate
            | FaultKind::TailFails
            | FaultKind::ListFails
            | FaultKind::OutageRefusing
            | FaultKind::OutageSilent
            | FaultKind::TrimsSettle
            | FaultKind::Reap
            | FaultKind::Drain
            | FaultKind::Kill
            | FaultKind::KillBeforeForkOpen
            | FaultKind::KillBeforeListedOpen
            | FaultKind::KillBeforeUnref
            | FaultKind::KillBeforeTrim
            | FaultKind::KillBeforeCommit
            | FaultKind::KillAfterTurn => self.up_to(900),
        };
        Fault {
            at_ms: self.up_to(SPAN_MS),
            pod: self.some_pod(),
            stream: self.rng.random_range(0..self.streams),
            ms,
            kind,
        }
    }
}
