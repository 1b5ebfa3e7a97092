//! Readers that have to look anew where they stand, and readers that the ring has left behind.

use std::time::Duration;

use tailwater_protocol::{ContentKind, Offset};

use super::{
    super::{Departure, slot::SlotId},
    script::Socket,
    world::{BIRTH, CURSOR, Coming, Guest, World, read_all},
};
use crate::frame::Stand;

/// Who has departed to catch up elsewhere, by number, and where they stand.
fn behind(departures: &[Departure<Socket, usize>]) -> Vec<(usize, Stand)> {
    let mut behind: Vec<_> = departures
        .iter()
        .map(|departure| match departure {
            Departure::Behind { stands, luggage, .. } => (*luggage, stands.stand),
            Departure::Ended { .. } | Departure::Lost { .. } | Departure::Woken { .. } => panic!("it is to come back"),
        })
        .collect();
    behind.sort_by_key(|(luggage, _)| *luggage);
    behind
}

fn stand(seq: u64) -> Stand {
    Stand { seq, at: Offset { birth: BIRTH, seq } }
}

fn come_back(world: &mut World, stream: &super::world::Stream, guests: &mut [Guest]) -> Vec<Option<SlotId>> {
    let mut ids = Vec::new();
    for departure in world.shard.departures() {
        let (luggage, id) = world.come_back(stream, departure);
        guests[luggage].id = id;
        ids.push(id);
    }
    ids
}

#[test]
fn a_turn_makes_all_depart_each_with_its_own_stand_and_the_half_written_once_they_are_through() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let slow = |room| Coming { room, ..Coming::default() };
    let mut guests = vec![
        world.arrive(&stream, 0),
        world.arrive_as(&stream, 0, &slow(5)),
        world.arrive_as(&stream, 0, &slow(5)),
        world.arrive(&stream, 0),
    ];
    world.publish(&mut stream, &[b"a"]);
    world.publish(&mut stream, &[b"b"]);
    stream.feed.turn();
    stream.push(&[b"c"]);
    stream.feed.ring();
    world.hear();
    assert_eq!(behind(&world.shard.departures()), [(0, stand(2)), (3, stand(2))]);
    world.make_room(&mut guests[1], 5);
    assert!(world.shard.departures().is_empty(), "a chunk is not left unfinished");

    let late = world.arrive(&stream, 1);
    assert_eq!((late.client.at, world.shard.lines.len()), (3, 2), "a line of its own");
    world.check();
    for guest in &mut guests[1..3] {
        world.make_room(guest, usize::MAX);
    }
    assert_eq!(behind(&world.shard.departures()), [(1, stand(1)), (2, stand(1))]);
    read_all(&mut guests);
    assert_eq!((world.shard.lines.len(), world.shard.by_feed.len(), stream.feed.listeners()), (1, 1, 1));
    world.publish(&mut stream, &[b"d"]);
    world.check();
    world.shard.close();
    world.assert_empty(&[&stream]);
}

#[test]
fn who_comes_back_goes_on_where_it_stood() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Json);
    let mut guests: Vec<Guest> = [0, 30, usize::MAX]
        .map(|room| world.arrive_as(&stream, 0, &Coming { room, cursor: CURSOR + 9, ..Coming::default() }))
        .into();
    for n in 0..20 {
        world.publish(&mut stream, &[n.to_string().as_bytes()]);
        if n % 5 == 4 {
            stream.feed.turn();
            stream.push(&[b"null"]);
            stream.feed.ring();
            world.hear();
        }
        for guest in &mut guests {
            world.make_room(guest, 60 + n);
        }
        come_back(&mut world, &stream, &mut guests);
        world.check();
    }
    for guest in &mut guests {
        world.make_room(guest, usize::MAX);
    }
    come_back(&mut world, &stream, &mut guests);
    read_all(&mut guests);
    for guest in &guests {
        assert_eq!((guest.client.at, guest.client.last().cursor), (24, Some(CURSOR + 9)));
    }
    world.check();
}

/// In microseconds: how long the response lasts, when its reader may not go on, and what of it the departure must not forget.
#[test]
fn who_departs_ends_elsewhere_no_earlier_than_its_reader_may_not_go_on() {
    let table = [(9_000_900, Some(5_000_700), 5_000_700), (5_000_900, Some(5_000_700), 5_000_700)];
    let without = [(5_000_700, Some(9_000_000), 5_000_000), (5_000_700, None, 5_000_000)];
    for (lasts, expires, ends) in table.into_iter().chain(without) {
        let mut world = World::new();
        let stream = world.stream(ContentKind::Text);
        let (began, lasts) = (world.now.at, Duration::from_micros(lasts));
        let coming = Coming { lasts, expires: expires.map(Duration::from_micros), ..Coming::default() };
        let _guest = world.arrive_as(&stream, 0, &coming);
        stream.feed.turn();
        stream.feed.ring();
        world.hear();
        let departures = world.shard.departures();
        let [Departure::Behind { ends_at, .. }] = &departures[..] else { panic!("it is to come back") };
        let ends = Duration::from_micros(ends);
        let elsewhere = ends_at.saturating_duration_since(began);
        assert!((ends..=ends + Duration::from_millis(1)).contains(&elsewhere), "{ends:?}: {elsewhere:?}");
    }
}

#[test]
fn who_joined_before_a_turn_and_arrives_after_it_departs_at_once() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"a"]);
    let arrival = |world: &World, turn| {
        let wire = super::script::Wire::new(&stream.log);
        super::super::Arrival {
            socket: Socket(wire),
            seat: stream.seat(stand(0), turn, &world.live),
            cursor: 0,
            ends_at: world.now.at,
            expires_at: None,
            wants: crate::Wants::Events { greet: true },
            unread: bytes::Bytes::new(),
            luggage: 0,
        }
    };
    let before = arrival(&world, stream.feed.turns());
    stream.feed.turn();
    assert!(world.shard.arrive(before, world.now).is_none());
    assert_eq!(behind(&world.shard.departures()), [(0, stand(0))]);
    world.assert_empty(&[&stream]);
}

#[test]
fn who_has_fallen_behind_the_ring_departs_and_the_others_stay() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Binary, 2000);
    let mut slow = world.arrive_as(&stream, 0, &Coming { room: 5, ..Coming::default() });
    let mut quick = world.arrive(&stream, 0);
    for _ in 0..10 {
        world.publish(&mut stream, &[&[b'x'; 500]]);
    }
    world.make_room(&mut slow, usize::MAX);
    quick.client.read();
    assert_eq!((slow.client.at, quick.client.at), (1, 10));
    assert_eq!(behind(&world.shard.departures()), [(0, stand(1))]);
    assert_eq!(world.metrics.fell_behind.get(), 1);
    world.check();
}

#[test]
fn a_line_that_the_ring_has_left_behind_does_not_hold_up_those_who_arrive() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Binary, 2000);
    let mut slow = world.arrive_as(&stream, 0, &Coming { room: 5, ..Coming::default() });
    let quick = world.arrive(&stream, 0);
    world.publish(&mut stream, &[b"a"]);
    // The bell is heard so late that the ring has nothing of what the line has had.
    for _ in 0..10 {
        stream.push(&[&[b'x'; 500]]);
    }
    let mut early = world.arrive(&stream, stream.next - 1);
    assert_eq!(early.client.at, stream.next, "it stands within the ring");
    stream.feed.ring();
    world.hear();
    assert_eq!(behind(&world.shard.departures()), [(quick.id.unwrap(), stand(1))]);
    let mut late = world.arrive(&stream, stream.next);
    world.publish(&mut stream, &[b"b"]);
    early.client.read();
    late.client.read();
    assert_eq!((early.client.at, late.client.at), (stream.next, stream.next));
    assert!(world.shard.departures().is_empty());
    world.make_room(&mut slow, usize::MAX);
    assert_eq!(behind(&world.shard.departures()), [(0, stand(1))]);
    world.check();
    world.shard.close();
    world.assert_empty(&[&stream]);
}

#[test]
fn a_text_that_is_held_back_until_the_ring_has_lost_it_is_read_elsewhere() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Text, 1000);
    let mut guest = world.arrive(&stream, 0);
    world.publish(&mut stream, &[b"a\xe2"]);
    world.publish(&mut stream, &[&[vec![b'b'; 2000], vec![0xe2]].concat()]);
    guest.client.read();
    assert!(guest.client.seen.is_empty());
    assert_eq!(behind(&world.shard.departures()), [(0, stand(0))]);
    world.assert_empty(&[&stream]);
}

#[test]
fn the_line_goes_with_its_last_reader_and_the_next_one_gets_a_new_one() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    for _ in 0..3 {
        let guest = world.arrive(&stream, stream.next);
        assert_eq!(stream.feed.listeners(), 1);
        world.shard.give_up(guest.id.unwrap());
        world.assert_empty(&[&stream]);
        stream.push(&[b"unseen"]);
        stream.feed.ring();
        assert!(world.shard.rung().is_empty(), "nobody listens");
    }
}
