//! Clients that follow a stream: each in its way, from its own offset on, now here, now there.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use tailwater_fanout::{Delivery, Departure, End as Ended, Event, Reader, Seat, Stands, Wake, Wants};
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    desk::{Client, Departed},
    history::{End, Followed, Given, What, Why},
    oracle::Rule,
    script::{Follow, Way, key_of},
    world::{Asked, Pod, World},
    writers::Memory,
};

/// Follows for one stretch, and remembers where it ended; how it ended.
pub async fn follow(world: &World, who: usize, memory: &mut Memory, pod: usize, how: Follow) -> End {
    world.did(match how.way {
        Way::Task => "stretches by a task",
        Way::Seat => "stretches at a shard",
        Way::Poll => "stretches of long-polls",
    });
    if how.stall_ms > 0 {
        world.did("stretches with stalls");
    }
    let before = memory.followed_at.replace(pod % world.pods());
    if memory.offset.is_some() && before.is_some() && before != memory.followed_at {
        world.did("stretches resumed at another pod");
    }
    let key = key_of(memory.stream);
    let asked = match memory.offset {
        Some(offset) => ReadOffset::At(offset),
        None if how.from_now => ReadOffset::Now,
        None => ReadOffset::Start,
    };
    let from = world.store.landed();
    let mut stretch = Stretch {
        world,
        who,
        pod: world.pod(pod),
        key: key.clone(),
        how,
        followed: Followed { asked, start: None, given: Vec::new(), end: End::Left },
    };
    let joined = world.ask(pod, async |gateway| gateway.follow(&key, asked).await).await;
    stretch.followed.end = match joined {
        Asked::Cut => End::Cut,
        Asked::Answer(Err(error)) => Why::of(&error).map_or(End::Cut, End::Refused),
        Asked::Answer(Ok(reader)) => {
            stretch.followed.start = Some(reader.position());
            let pod = Rc::clone(&stretch.pod);
            tokio::select! {
                biased;
                () = pod.killed() => End::Cut,
                end = stretch.go(reader) => end,
            }
        }
    };
    let followed = stretch.followed;
    let end = followed.end.clone();
    memory.offset = match end {
        End::Gone | End::Reset(_) | End::Refused(Why::NotFound | Why::Misplaced | Why::SoftDeleted) => None,
        End::Left | End::Cut | End::Closed | End::Refused(_) => {
            followed.given.last().map(|given| given.next).or(followed.start).or(memory.offset)
        }
    };
    world.tell(who, &key, from, What::Followed(followed));
    end
}

/// A stretch that is under way.
struct Stretch<'a> {
    world: &'a World,
    who: usize,
    pod: Rc<Pod>,
    key: StreamKey,
    how: Follow,
    followed: Followed,
}

impl Stretch<'_> {
    async fn go(&mut self, reader: Reader) -> End {
        match self.how.way {
            Way::Task => self.by_task(reader).await,
            Way::Seat => self.at_a_shard(reader).await,
            Way::Poll => self.by_polls(reader).await,
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.how.patience_ms)
    }

    fn has_enough(&self) -> bool {
        self.followed.given.len() >= self.how.takes
    }

    /// Takes nothing for a while.
    async fn stall(&self) {
        if self.how.stall_ms > 0 {
            sleep(Duration::from_millis(self.how.stall_ms)).await;
        }
    }

    fn give(&mut self, given: Given) {
        self.followed.given.push(given);
    }

    /// Takes a delivery; whether the stream ends with it.
    fn take(&mut self, delivery: &Delivery) -> bool {
        self.give(Given {
            bytes: Bytes::from(delivery.messages.concat()),
            count: Some(delivery.messages.len()),
            next: delivery.next,
            closed: delivery.closed,
        });
        delivery.closed
    }

    /// What an event means for a reader: it ends, or goes on.
    fn on(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Messages(delivery) => self.take(&delivery).then_some(End::Closed),
            Event::Gone => Some(End::Gone),
            Event::Reset { earliest } => Some(End::Reset(earliest)),
            Event::Failed(error) => Some(Why::of(&error).map_or(End::Cut, End::Refused)),
        }
    }

    async fn by_task(&mut self, mut reader: Reader) -> End {
        while !self.has_enough() {
            if reader.is_closed() {
                return End::Closed;
            }
            match timeout(self.patience(), reader.next()).await {
                Err(_) => return End::Left,
                Ok(event) => {
                    if let Some(end) = self.on(event) {
                        return end;
                    }
                }
            }
            self.stall().await;
        }
        End::Left
    }

    /// As the escort of a response: whatever the shard cannot give is given here, and then the shard goes on.
    async fn at_a_shard(&mut self, mut reader: Reader) -> End {
        let mut client = Client::new(reader.position());
        loop {
            if reader.is_closed() {
                return End::Closed;
            }
            if self.has_enough() {
                return End::Left;
            }
            match timeout(self.patience(), reader.next_unless_live()).await {
                Err(_) => return End::Left,
                Ok(Some(event)) => {
                    if let Some(end) = self.on(event) {
                        return end;
                    }
                    self.stall().await;
                }
                Ok(None) => {
                    let Ok(seat) = reader.into_seat() else { unreachable!("a live reader has a seat") };
                    match self.sit(&mut client, seat).await {
                        Err(end) => return end,
                        Ok(stands) => reader = Reader::resume(self.pod.gateway.clone(), &stands),
                    }
                }
            }
        }
    }

    /// Sits at the shard until the response ends, or the reader has to catch up elsewhere.
    async fn sit(&mut self, client: &mut Client, seat: Seat) -> Result<Stands, End> {
        let pod = Rc::clone(&self.pod);
        let (number, slot) = pod.desk.arrive(client, seat, Wants::Events { greet: true });
        let mut leaves_at = Instant::now() + self.patience();
        loop {
            let given = client.receive().map_err(|what| {
                self.world.breach(Rule::Reader, what.clone());
                End::Refused(Why::Other(what))
            })?;
            for given in given {
                let closed = given.closed;
                // A control event that brings nothing is no delivery.
                if !given.bytes.is_empty() || closed {
                    leaves_at = Instant::now() + self.patience();
                }
                self.give(given);
                if closed {
                    return Err(End::Closed);
                }
            }
            if let Some(departed) = pod.desk.departed(number) {
                self.note_departure(&departed);
                return match departed {
                    Departure::Behind { stands, .. } => {
                        self.check_place(&stands);
                        Ok(stands)
                    }
                    Departure::Ended { reason: Ended::Closed, .. } => Err(End::Closed),
                    Departure::Ended { reason: Ended::Rotated | Ended::Drained | Ended::Lapsed(_), .. } => {
                        Err(End::Left)
                    }
                    Departure::Lost { .. } | Departure::Woken { .. } => Err(End::Cut),
                };
            }
            let Some(slot) = slot else { return Err(End::Cut) };
            if self.has_enough() || Instant::now() >= leaves_at {
                client.leave();
                pod.desk.ready(slot);
                return Err(End::Left);
            }
            pod.desk.turn(leaves_at).await;
            if self.how.stall_ms > 0 {
                self.stall_at_the_shard(client, number, slot).await;
            }
        }
    }

    fn note_departure(&self, departed: &Departed) {
        let how = match departed {
            Departure::Behind { stands, .. } => format!("is behind, at {}", stands.position()),
            Departure::Woken { wake, stands, .. } => format!("is woken by {wake:?}, at {}", stands.position()),
            Departure::Ended { reason, .. } => format!("is ended: {reason:?}"),
            Departure::Lost { reason, .. } => format!("is lost: {reason:?}"),
        };
        self.world.trace.note(format_args!("client {}", self.who), how.chars().take(200).collect::<String>());
    }

    /// Where the shard says that a reader stands, all that it was sent has come to its client.
    fn check_place(&self, stands: &Stands) {
        let told = self.followed.given.last().map(|given| given.next).or(self.followed.start);
        if told.is_some_and(|told| told > stands.position()) {
            self.world.breach(Rule::Reader, format!("it was told {told:?} and stands at {}", stands.position()));
        }
    }

    async fn stall_at_the_shard(&self, client: &Client, number: usize, slot: usize) {
        client.takes(false);
        let until = Instant::now() + Duration::from_millis(self.how.stall_ms);
        while Instant::now() < until {
            self.pod.desk.turn(until).await;
        }
        client.takes(true);
        if !self.pod.desk.has_departed(number) {
            self.pod.desk.ready(slot);
        }
    }

    /// One long-poll after the other, each from where the one before was told to go on.
    async fn by_polls(&mut self, mut reader: Reader) -> End {
        let key = self.key.clone();
        let mut leaves_at = Instant::now() + self.patience();
        while !self.has_enough() && Instant::now() < leaves_at {
            if reader.is_closed() {
                return End::Closed;
            }
            let at = if reader.is_caught_up() {
                match self.park(reader, leaves_at).await {
                    Err(end) => return end,
                    Ok(at) => at,
                }
            } else {
                match timeout(self.patience(), reader.next()).await {
                    Err(_) => return End::Left,
                    Ok(event) => {
                        if let Some(end) = self.on(event) {
                            return end;
                        }
                    }
                }
                self.followed.given.last().map_or_else(|| reader.position(), |given| given.next)
            };
            if self.followed.given.last().is_some_and(|given| given.next == at) {
                leaves_at = leaves_at.max(Instant::now() + self.patience() / 2);
            }
            self.stall().await;
            reader = match self.pod.gateway.follow(&key, ReadOffset::At(at)).await {
                Ok(reader) => reader,
                Err(error) => return Why::of(&error).map_or(End::Cut, End::Refused),
            };
        }
        End::Left
    }

    /// Waits at the shard for the first thing that comes; where to go on.
    async fn park(&mut self, reader: Reader, leaves_at: Instant) -> Result<Offset, End> {
        let (client, at) = (Client::new(reader.position()), reader.position());
        let Ok(seat) = reader.into_seat() else { return Ok(at) };
        let pod = Rc::clone(&self.pod);
        let (number, slot) = pod.desk.arrive(&client, seat, Wants::Answer);
        loop {
            if let Some(departed) = pod.desk.departed(number) {
                self.note_departure(&departed);
                return self.on_departed_poll(departed, at);
            }
            if Instant::now() >= leaves_at {
                client.leave();
                if let Some(slot) = slot {
                    pod.desk.ready(slot);
                }
                return Err(End::Left);
            }
            pod.desk.turn(leaves_at).await;
        }
    }

    fn on_departed_poll(&mut self, departed: Departed, at: Offset) -> Result<Offset, End> {
        match departed {
            Departure::Woken { wake: Wake::News(delivery), .. } => {
                if self.take(&delivery) {
                    Err(End::Closed)
                } else {
                    Ok(delivery.next)
                }
            }
            Departure::Woken { wake: Wake::TimedOut { .. } | Wake::Moved, .. } => Ok(at),
            Departure::Behind { stands, .. } => Ok(stands.position()),
            Departure::Ended { .. } => Err(End::Left),
            Departure::Lost { .. } => Err(End::Cut),
        }
    }
}
