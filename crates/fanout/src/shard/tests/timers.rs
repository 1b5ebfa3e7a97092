//! Keep-alives, the ends of responses, and shutting down.

use std::time::Duration;

use tailwater_protocol::ContentKind;

use super::{
    super::{Departure, End, Loss, STAY, Wants, slot::Place},
    world::{Coming, Guest, Stream, World, read_all},
};

/// Something that happens to a stream.
type Deed = fn(&mut Stream);

/// How exactly a deadline is kept.
const QUARTER: Duration = Duration::from_millis(250);

/// Lets time pass until something was sent; how long it took.
fn silence(world: &mut World, guest: &mut Guest) -> Duration {
    let (began, seen) = (world.now.at, guest.client.seen.len());
    while guest.client.seen.len() == seen {
        world.pass(Duration::from_millis(31));
        assert!(world.now.at - began < Duration::from_secs(120), "nothing is ever sent");
        guest.client.read();
    }
    world.now.at - began
}

fn is_within(took: Duration, deadline: Duration) -> bool {
    took >= deadline && took <= deadline + QUARTER + Duration::from_millis(31)
}

#[test]
fn silence_is_broken_by_a_control_event_and_by_nothing_else() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..50).map(|_| world.arrive(&stream, 0)).collect();
    let keep_alive = world.shard.config.keep_alive;
    let took = silence(&mut world, &mut guests[31]);
    assert!(is_within(took, keep_alive), "{took:?}");
    assert!(guests[31].client.last().up_to_date);
    world.pass(QUARTER);
    read_all(&mut guests);
    assert!(guests.iter().all(|guest| guest.client.seen.len() == 1), "to each its own");

    world.pass(Duration::from_secs(10));
    world.publish(&mut stream, &[b"a"]);
    guests[31].client.read();
    let took = silence(&mut world, &mut guests[31]);
    assert!(is_within(took, keep_alive), "{took:?} since the message");
    assert_eq!((guests[31].client.at, guests[31].client.seen.len()), (1, 3));
}

#[test]
fn a_sweep_looks_at_nobody_for_whom_nothing_is_due() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let poll = Coming { wants: Some(Wants::Answer), lasts: Duration::from_secs(20), ..Coming::default() };
    let other = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..50).map(|_| world.arrive(&stream, 0)).collect();
    let parked = world.arrive_as(&other, 0, &poll);
    world.pass(QUARTER);
    let keep_alive = world.shard.config.keep_alive;
    let rings = |world: &World| {
        let now = world.shard.millis(world.now.at);
        guests.iter().chain([&parked]).filter(|guest| world.shard.alarms.rings(guest.id.unwrap(), now)).count()
    };
    assert_eq!(rings(&world), 0, "all have been looked at");
    world.pass(keep_alive - QUARTER * 4);
    world.publish(&mut stream, &[b"a"]);
    assert_eq!(rings(&world), 0, "not even a message is a reason");
    // As if nothing had come: who has had a message meanwhile is looked at once more, and sent nothing.
    world.jump(QUARTER * 4);
    assert_eq!(rings(&world), 50);
    world.pass(QUARTER);
    assert_eq!(rings(&world), 0);
    read_all(&mut guests);
    assert!(guests.iter().all(|guest| guest.client.seen.len() == 1));
}

#[test]
fn a_keep_alive_claims_to_be_all_only_while_the_session_lives_and_the_ring_holds_no_more() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive(&stream, 0);
    let deeds: [(Deed, bool); 5] = [
        (|_| {}, true),
        (|stream| stream.feed.pulse().set_alive(false), false),
        (|stream| stream.feed.pulse().set_alive(true), true),
        (|stream| stream.marks(2), true),
        (|stream| stream.push(&[b"a"]), false),
    ];
    for (n, (deed, all)) in deeds.into_iter().enumerate() {
        deed(&mut stream);
        silence(&mut world, &mut guest);
        assert_eq!((guest.client.last().up_to_date, guest.client.at), (all, 0), "{n}");
    }
}

#[test]
fn a_reader_that_waits_for_the_others_is_not_left_in_silence() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"a", b"b\xe2"]);
    let _first = world.arrive(&stream, 1);
    let mut waiting = world.arrive(&stream, 0);
    assert_eq!(world.shard.slots[waiting.id.unwrap()].place, Place::Waiting);
    let took = silence(&mut world, &mut waiting);
    assert!(is_within(took, world.shard.config.keep_alive), "{took:?}");
    assert_eq!((waiting.client.at, waiting.client.last().up_to_date), (0, false));
    world.check();
}

#[test]
fn nothing_is_said_while_something_is_half_written() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 7, ..Coming::default() });
    world.publish(&mut stream, &[b"a"]);
    world.pass(Duration::from_secs(29));
    world.make_room(&mut guest, usize::MAX);
    assert_eq!(guest.client.seen.len(), 1, "the message alone");
    let took = silence(&mut world, &mut guest);
    assert!(is_within(took, world.shard.config.keep_alive), "{took:?} since it was finished");
}

#[test]
fn a_keep_alive_that_is_cut_is_finished_first() {
    for cut in 0..40 {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        let mut guest = world.arrive_as(&stream, 0, &Coming { room: cut, ..Coming::default() });
        world.pass(Duration::from_secs(16));
        world.publish(&mut stream, &[b"a"]);
        world.make_room(&mut guest, usize::MAX);
        let said: Vec<_> = guest.client.seen.iter().map(|seen| (seen.data.as_str(), seen.next)).collect();
        assert_eq!(said, [("", Some(0)), ("a", Some(1))], "{cut}");
        world.check();
    }
}

#[test]
fn a_response_ends_in_time_with_a_time_to_come_back() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let lasts = Duration::from_secs(7);
    let mut guest = world.arrive_as(&stream, 0, &Coming { lasts, ..Coming::default() });
    let took = silence(&mut world, &mut guest);
    assert!(is_within(took, lasts), "{took:?}");
    assert!(guest.client.has_ended);
    assert_eq!(guest.client.reconnection_time(), Some(Duration::from_millis(50 + 123)));
    assert!(matches!(world.shard.departures()[..], [Departure::Ended { reason: End::Rotated, .. }]));
    world.assert_empty(&[&stream]);
}

#[test]
fn a_response_outlasts_its_time_while_the_session_has_lost_its_connection_but_not_a_drain() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let lasts = Duration::from_secs(7);
    let coming = Coming { lasts, ..Coming::default() };
    let guests = [(); 10].map(|()| world.arrive_as(&stream, 0, &coming));
    stream.feed.pulse().set_lost();
    world.pass(Duration::from_secs(30));
    assert_eq!(world.shard.readers(), guests.len());
    stream.feed.pulse().set_alive(true);
    world.pass(STAY.1 + QUARTER);
    assert_eq!(world.shard.readers(), 0);
    let departures = world.shard.departures();
    assert!(departures.iter().all(|departure| matches!(departure, Departure::Ended { reason: End::Rotated, .. })));

    let _guest = world.arrive_as(&stream, 0, &coming);
    stream.feed.pulse().set_lost();
    world.shard.drain(Duration::from_secs(1), world.now.at);
    world.pass(Duration::from_secs(1) + QUARTER);
    assert!(matches!(world.shard.departures()[..], [Departure::Ended { reason: End::Drained, .. }]));
    world.assert_empty(&[&stream]);
}

#[test]
fn a_drain_ends_all_within_its_window_and_spreads_them_over_it() {
    const READERS: usize = 2000;
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..READERS).map(|_| world.arrive(&stream, 0)).collect();
    world.shard.drain(Duration::from_secs(10), world.now.at);
    let mut ended = Vec::new();
    for _ in 0..11 {
        world.pass(Duration::from_secs(1));
        ended.push(world.shard.departures().len());
    }
    assert_eq!(ended.iter().sum::<usize>(), READERS);
    let share = READERS / 10;
    assert!(ended[1..10].iter().all(|count| count.abs_diff(share) < share / 4), "{ended:?}");
    read_all(&mut guests);
    for guest in &guests {
        assert!(guest.client.has_ended);
        assert_eq!(guest.client.reconnection_time(), Some(Duration::from_millis(1000 + 123)));
    }
    world.assert_empty(&[&stream]);
}

#[test]
fn a_drain_takes_in_those_who_arrive_during_it_and_can_be_hurried() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let _guests: Vec<Guest> = (0..100).map(|_| world.arrive(&stream, 0)).collect();
    world.shard.drain(Duration::from_secs(10), world.now.at);
    world.pass(Duration::from_secs(1));
    let _late = world.arrive(&stream, 0);
    world.pass(Duration::from_secs(3));
    assert!((50..80).contains(&world.shard.readers()), "{}", world.shard.readers());
    world.shard.drain(Duration::ZERO, world.now.at);
    world.pass(QUARTER);
    let departures = world.shard.departures();
    assert!(departures.iter().all(|departure| matches!(departure, Departure::Ended { reason: End::Drained, .. })));
    assert_eq!(departures.len(), 101);
    world.assert_empty(&[&stream]);
}

#[test]
fn a_later_drain_does_not_put_off_an_end_that_is_due() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let lasts = Duration::from_secs(2);
    let _guests: Vec<Guest> =
        (0..50).map(|_| world.arrive_as(&stream, 0, &Coming { lasts, ..Coming::default() })).collect();
    world.shard.drain(Duration::from_secs(3600), world.now.at);
    world.pass(lasts + QUARTER);
    assert_eq!(world.shard.readers(), 0);
}

#[test]
fn a_shard_that_closes_gives_all_up_and_leaves_nothing_behind() {
    let mut world = World::new();
    let mut streams = [world.stream(ContentKind::Text), world.stream(ContentKind::Json)];
    for n in 0..10 {
        world.arrive_as(&streams[n % 2], 0, &Coming { room: 10 * (n % 3), ..Coming::default() });
    }
    let [text, _] = &mut streams;
    world.publish(text, &[b"1"]);
    world.shard.close();
    let departures = world.shard.departures();
    assert!(departures.iter().all(|departure| matches!(departure, Departure::Lost { reason: Loss::Closed, .. })));
    assert_eq!(departures.len(), 10);
    world.assert_empty(&streams.each_ref());
}
