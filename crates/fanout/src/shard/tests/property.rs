//! Whatever happens in whatever order: each reader is given every message from its own position on, once and in order, in
//! a body that is whole chunks of whole events, and nobody is told to be up to date who is not. The clients of
//! [`script`](super::script) check that with every byte; here is what happens to them. Some are long-polls, which come
//! again where they were told to, and for which the same holds from answer to answer.

use std::time::Duration;

use proptest::prelude::*;
use tailwater_protocol::{ContentKind, Offset, sse::Lapse};

use super::{
    super::{Departure, End, Wake, Wants},
    script::Socket,
    world::{CURSOR, Coming, Guest, Stream, World, read_all},
};
use crate::frame::{Burst, News, Says, Stand};

/// How long a response or a wait lasts.
const LASTS: Duration = Duration::from_secs(60);
/// What texts are made of, over and over; messages cut it anywhere.
const TEXT: &[u8] = "aé€😀 b😀😀€é".as_bytes();

#[derive(Debug, Clone)]
enum Step {
    /// A batch of messages of these sizes, with marks behind them.
    Push { stream: usize, sizes: Vec<usize>, marks: u64 },
    /// The stream's bell rings.
    Ring { stream: usize },
    /// The shard hears its bell.
    Hear,
    /// Readers have to look anew where they stand.
    Turn { stream: usize },
    /// The actor looks at its log anew, and the ring begins at its end.
    Restart { stream: usize },
    /// A reader, so many records before the end.
    Arrive { stream: usize, back: u64, cursor: u64, greet: bool, room: usize, per_call: usize, wants: Asks },
    /// A socket takes so much more.
    Room { reader: usize, room: usize },
    /// Time passes.
    Pass { millis: u64 },
    /// The shard was busy elsewhere.
    Jump { millis: u64 },
    /// Those who have departed come back.
    Return,
    /// The stream is closed behind a message.
    Close { stream: usize, sizes: Vec<usize> },
    /// A client goes.
    Leave { reader: usize },
    /// A reader may not go on.
    Withdraw { reader: usize },
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
enum Asks {
    /// Events, for so many milliseconds at most because it may not go on then, if ever.
    Events { expires: Option<u64> },
    /// An answer.
    Poll,
}

/// What became of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Here,
    Away,
    Ended,
    Lost,
}

struct Play {
    world: World,
    streams: Vec<Stream>,
    guests: Vec<Guest>,
    of: Vec<usize>,
    fates: Vec<Fate>,
    /// Where a long-poll was told to go on.
    told: Vec<Option<Offset>>,
    away: Vec<Departure<Socket, usize>>,
    /// What was there when a reader was not to go on any more.
    withdrawn: Vec<Option<Offset>>,
    written: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = 0..3_usize;
    let sizes = || prop::collection::vec(prop_oneof![8 => 1..6_usize, 2 => 1..400_usize, 1 => 1..3000_usize], 0..4);
    let room = || prop_oneof![2 => Just(usize::MAX), 3 => 0..400_usize];
    let cursor = prop_oneof![
        3 => Just(0),
        2 => CURSOR - 1..CURSOR + 4,
        1 => Just(9_999_999),
        1 => Just(10_000_000),
    ];
    let per_call = prop_oneof![Just(usize::MAX), 1..200_usize];
    let polls = prop_oneof![
        4 => Just(Asks::Poll),
        5 => Just(Asks::Events { expires: None }),
        1 => (0..70_000_u64).prop_map(|millis| Asks::Events { expires: Some(millis) }),
    ];
    let arrive = (stream.clone(), 0..12_u64, cursor, any::<bool>(), room(), per_call, polls);
    let step = prop_oneof![
        12 => (stream.clone(), sizes(), 0..3_u64).prop_map(|(stream, sizes, marks)| Step::Push { stream, sizes, marks }),
        8 => stream.clone().prop_map(|stream| Step::Ring { stream }),
        10 => Just(Step::Hear),
        1 => stream.clone().prop_map(|stream| Step::Turn { stream }),
        1 => stream.clone().prop_map(|stream| Step::Restart { stream }),
        7 => arrive.prop_map(|(stream, back, cursor, greet, room, per_call, wants)| {
            Step::Arrive { stream, back, cursor, greet, room, per_call, wants }
        }),
        8 => (any::<usize>(), room()).prop_map(|(reader, room)| Step::Room { reader, room }),
        3 => (0..20_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (0..20_000_u64).prop_map(|millis| Step::Jump { millis }),
        4 => Just(Step::Return),
        1 => (stream, sizes()).prop_map(|(stream, sizes)| Step::Close { stream, sizes }),
        1 => any::<usize>().prop_map(|reader| Step::Leave { reader }),
        1 => any::<usize>().prop_map(|reader| Step::Withdraw { reader }),
    ];
    prop::collection::vec(step, 1..80)
}

impl Play {
    fn new() -> Self {
        let world = World::new();
        let kinds = [(ContentKind::Text, 1500), (ContentKind::Json, 2500), (ContentKind::Binary, 1500)];
        let streams = kinds.map(|(kind, ring)| world.stream_of(kind, ring)).into();
        Self {
            world,
            streams,
            guests: Vec::new(),
            of: Vec::new(),
            fates: Vec::new(),
            told: Vec::new(),
            away: Vec::new(),
            withdrawn: Vec::new(),
            written: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push { stream, sizes, marks } => self.push(stream, &sizes, marks, false),
            Step::Ring { stream } => self.streams[stream].feed.ring(),
            Step::Hear => self.world.hear(),
            Step::Turn { stream } => self.streams[stream].feed.turn(),
            Step::Restart { stream } => {
                let stream = &self.streams[stream];
                stream.feed.restart(stream.next, stream.closed);
                stream.feed.turn();
            }
            Step::Arrive { stream, back, cursor, greet, room, per_call, wants } => {
                let seq = self.streams[stream].next.saturating_sub(back);
                let (wants, expires) = match wants {
                    Asks::Poll => (Some(Wants::Answer), None),
                    Asks::Events { expires } => (None, expires.map(Duration::from_millis)),
                };
                let coming = Coming { cursor, greet, lasts: LASTS, expires, room, wants };
                self.told.push(wants.map(|_| self.streams[stream].offset_at(seq)));
                self.withdrawn.push(None);
                let guest = self.world.arrive_as(&self.streams[stream], seq, &coming);
                guest.client.wire.borrow_mut().per_call = per_call;
                self.guests.push(guest);
                self.of.push(stream);
                self.fates.push(Fate::Here);
            }
            Step::Room { reader, room } => self.with(reader, |world, guest| {
                guest.client.wire.borrow_mut().room = room;
                world.shard.on_ready(guest.id.unwrap(), world.now);
            }),
            Step::Pass { millis } => self.world.pass(Duration::from_millis(millis)),
            Step::Jump { millis } => self.world.jump(Duration::from_millis(millis)),
            Step::Return => self.come_back(),
            Step::Close { stream, sizes } => {
                self.push(stream, &sizes, 1, true);
                self.streams[stream].feed.ring();
            }
            Step::Leave { reader } => self.with(reader, |world, guest| {
                guest.client.wire.borrow_mut().incoming.push_back(None);
                world.shard.on_ready(guest.id.unwrap(), world.now);
            }),
            Step::Withdraw { reader } => self.withdraw(reader),
        }
        self.see_off();
        read_all(&mut self.guests);
        self.world.check();
    }

    /// One who reads events may not go on.
    fn withdraw(&mut self, reader: usize) {
        let reads: Vec<usize> = (0..self.guests.len()).filter(|n| self.told[*n].is_none()).collect();
        let Some(n) = reads.get(reader % reads.len().max(1)) else { return };
        let stream = &self.streams[self.of[*n]];
        self.withdrawn[*n] = self.withdrawn[*n].or_else(|| Some(stream.offset_at(stream.next)));
        self.world.withdraw(*n, Lapse::Revoked);
        self.world.review();
    }

    fn with(&mut self, reader: usize, deed: impl FnOnce(&mut World, &mut Guest)) {
        let here: Vec<usize> = (0..self.guests.len()).filter(|n| self.fates[*n] == Fate::Here).collect();
        if !here.is_empty() {
            deed(&mut self.world, &mut self.guests[here[reader % here.len()]]);
        }
    }

    fn push(&mut self, stream: usize, sizes: &[usize], marks: u64, closes: bool) {
        let stream = &mut self.streams[stream];
        if stream.closed {
            return stream.marks(marks);
        }
        let mut messages = Vec::new();
        for size in sizes {
            let text = TEXT.iter().cycle().skip(self.written % TEXT.len()).take(*size).copied();
            messages.push(match stream.kind {
                ContentKind::Json => format!("{:01$}", 1, size).replace('0', "1").into_bytes(),
                ContentKind::Text | ContentKind::Binary => text.collect(),
            });
            if stream.kind == ContentKind::Text {
                self.written += size;
            }
        }
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        stream.add(&messages, marks, closes);
    }

    fn see_off(&mut self) {
        for departure in self.world.shard.departures() {
            let (number, fate) = match &departure {
                Departure::Behind { stands, luggage, .. } => {
                    self.guests[*luggage].client.read();
                    assert_eq!(stands.stand.at.seq, self.guests[*luggage].client.at, "it is told where it stands");
                    (*luggage, Fate::Away)
                }
                Departure::Ended { luggage, reason, .. } => {
                    let client = &mut self.guests[*luggage].client;
                    client.read();
                    let lapsed = matches!(reason, End::Lapsed(_));
                    assert_eq!(client.unauthorized.is_some(), lapsed);
                    assert!(client.has_ended && (*reason == End::Rotated || lapsed || client.last().closed));
                    (*luggage, Fate::Ended)
                }
                Departure::Lost { luggage, .. } => (*luggage, Fate::Lost),
                Departure::Woken { wake, stands, luggage, .. } => {
                    (*luggage, self.answer(*luggage, wake, stands.stand.at))
                }
            };
            assert_eq!(std::mem::replace(&mut self.fates[number], fate), Fate::Here, "it departs once");
            if fate == Fate::Away {
                self.away.push(departure);
            }
        }
    }

    /// A long-poll is answered, and its client checks it.
    fn answer(&mut self, number: usize, wake: &Wake, stands: Offset) -> Fate {
        let stream = &self.streams[self.of[number]];
        let at = self.told[number].as_mut().expect("only who waits for an answer is woken");
        assert_eq!(stands, *at, "it stands where it was told to go on");
        let log = stream.log.borrow();
        let is_all = |next: Offset| log.last().is_none_or(|(newest, _)| *newest < next.seq);
        match wake {
            Wake::News(delivery) => {
                let between = log.iter().filter(|(seq, _)| (at.seq..delivery.next.seq).contains(seq));
                assert!(delivery.messages.iter().eq(between.map(|(_, body)| body)), "{at} to {}", delivery.next);
                assert!(delivery.closed || !delivery.messages.is_empty(), "woken by nothing");
                assert!(!delivery.up_to_date || is_all(delivery.next));
                assert!(!delivery.closed || stream.closed && is_all(delivery.next));
                *at = delivery.next;
                if delivery.closed { Fate::Ended } else { Fate::Away }
            }
            Wake::TimedOut { is_fresh } => {
                assert!(*is_fresh && is_all(*at), "nothing came, and {at} is not the end");
                Fate::Away
            }
            Wake::Moved => Fate::Away,
        }
    }

    /// Those who have departed come back.
    fn come_back(&mut self) {
        for departure in std::mem::take(&mut self.away) {
            match departure {
                Departure::Woken { wake, socket, stands, luggage, .. } => {
                    self.poll_again(luggage, &wake, socket, stands.stand);
                }
                behind @ Departure::Behind { .. } => self.catch_up(behind),
                Departure::Ended { .. } | Departure::Lost { .. } => unreachable!("it is not away"),
            }
        }
    }

    /// Where a long-poll had to look anew, the ordinary path gives it what is there; then it asks where it was told to.
    fn poll_again(&mut self, number: usize, wake: &Wake, socket: Socket, stood: Stand) {
        let stream = &self.streams[self.of[number]];
        let told = self.told[number].as_mut().expect("it was answered");
        let stand = match wake {
            Wake::News(_) => Stand { seq: told.seq, at: *told },
            Wake::TimedOut { .. } => stood,
            Wake::Moved => {
                *told = stream.offset_at(stream.next);
                Stand { seq: stream.next, at: *told }
            }
        };
        if matches!(wake, Wake::Moved) && stream.closed {
            self.fates[number] = Fate::Ended;
            return;
        }
        self.fates[number] = Fate::Here;
        self.guests[number].id = self.world.poll_again(stream, socket, stand, LASTS, number);
    }

    /// What the ordinary path does for one who is behind: it gives it what is there, and hands it over again.
    fn catch_up(&mut self, mut departure: Departure<Socket, usize>) {
        let Departure::Behind { stands, cursor, luggage, .. } = &mut departure else { unreachable!() };
        let number = *luggage;
        if self.withdrawn[number].is_some() {
            // The ordinary path asks first, too.
            self.fates[number] = Fate::Lost;
            return;
        }
        let stream = &self.streams[self.of[number]];
        let first = stream.history.partition_point(|batch| batch.next <= stands.stand.seq);
        let says = if stream.closed { Says::End } else { Says::All };
        let news = News { kind: stream.kind, batches: &stream.history[first..], next: stream.next, says };
        let burst = Burst::of(stands.stand, news, *cursor, usize::MAX);
        if !burst.is_empty() {
            self.guests[number].client.wire.borrow_mut().put(burst.bytes());
        }
        if burst.ends {
            self.fates[number] = Fate::Ended;
            return;
        }
        stands.stand = burst.until;
        self.fates[number] = Fate::Here;
        self.guests[number].id = self.world.come_back(stream, departure).1;
    }

    /// All sockets take everything, and all streams end.
    fn settle(mut self) {
        for n in 0..self.streams.len() {
            if !self.streams[n].closed {
                self.take(Step::Close { stream: n, sizes: vec![2] });
            }
        }
        for guest in &self.guests {
            let mut wire = guest.client.wire.borrow_mut();
            (wire.room, wire.per_call) = (usize::MAX, wire.per_call.max(50));
        }
        for _ in 0..2000 {
            self.take(Step::Hear);
            self.take(Step::Return);
            for n in 0..self.guests.len() {
                if self.fates[n] == Fate::Here {
                    self.world.shard.on_ready(self.guests[n].id.unwrap(), self.world.now);
                    self.see_off();
                }
            }
            if self.world.shard.readers() == 0 && self.away.is_empty() {
                break;
            }
        }
        read_all(&mut self.guests);
        for (n, guest) in self.guests.iter().enumerate() {
            let stream = &self.streams[self.of[n]];
            let most = self.withdrawn[n].map_or(u64::MAX, |there| there.seq);
            assert!(guest.client.at <= most, "{n} was given what came when it was not to go on");
            let complete = guest.client.has_ended && !guest.client.is_mid_chunk();
            if let Some(told) = self.told[n] {
                assert_eq!(guest.client.wire.borrow().writes, 0, "a long-poll is written to by others");
                assert!(matches!(self.fates[n], Fate::Ended | Fate::Lost), "{n} is never told of the end");
                assert!(self.fates[n] == Fate::Lost || told == stream.offset_at(stream.next));
                continue;
            }
            match self.fates[n] {
                Fate::Lost => {}
                Fate::Ended if !guest.client.last().closed => assert!(complete),
                Fate::Ended => assert!(complete && guest.client.at == stream.offset_at(stream.next).seq),
                Fate::Here | Fate::Away => panic!("{n} never ended"),
            }
        }
        let streams: Vec<&Stream> = self.streams.iter().collect();
        self.world.assert_empty(&streams);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_reader_is_given_every_message_once_and_in_order_whatever_happens(steps in steps()) {
        let mut play = Play::new();
        for step in steps {
            play.take(step);
        }
        play.settle();
    }
}
