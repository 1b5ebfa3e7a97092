//! Readers who may not go on: what they are told, when, and what they are not given any more.

use std::{sync::atomic::Ordering, time::Duration};

use tailwater_protocol::{ContentKind, sse::Lapse};

use super::{
    super::{Departure, End, Wake, Wants, review::PART},
    script::Socket,
    world::{Coming, Guest, World, read_all},
};

/// How exactly a deadline is kept.
const QUARTER: Duration = Duration::from_millis(250);

/// How the only one that has departed has ended.
fn ended(world: &mut World) -> (usize, End) {
    match &world.shard.departures()[..] {
        [Departure::Ended { luggage, reason, .. }] => (*luggage, *reason),
        other => panic!("{other:?}"),
    }
}

/// What a guest has been told of its right, with all that it has been given.
fn told(guest: &mut Guest) -> (Option<&str>, String) {
    guest.client.read();
    let data = guest.client.seen.iter().map(|seen| seen.data.as_str()).collect();
    (guest.client.unauthorized.as_deref(), data)
}

#[test]
fn who_may_not_go_on_is_told_so_and_given_nothing_of_what_comes_next() {
    for (lapse, reason) in [(Lapse::Revoked, "revoked"), (Lapse::Expired, "expired")] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        let mut guests = [(); 3].map(|()| world.arrive(&stream, 0));
        world.publish(&mut stream, &[b"a"]);
        world.withdraw(1, lapse);
        world.review();
        assert_eq!(ended(&mut world), (1, End::Lapsed(lapse)));
        world.publish(&mut stream, &[b"b"]);
        let [first, second, third] = &mut guests;
        assert_eq!((told(first), told(third)), ((None, "ab".to_owned()), (None, "ab".to_owned())));
        assert_eq!(told(second), (Some(reason), "a".to_owned()));
        assert!(second.client.has_ended, "the connection can be used for another request");
        assert_eq!(second.client.reconnection_time(), Some(Duration::from_millis(1000 + 123)));
        world.check();
    }
}

#[test]
fn a_response_ends_when_its_reader_may_not_go_on_even_if_it_may_last() {
    let table = [(5, Some(7), End::Rotated), (7, Some(5), End::Lapsed(Lapse::Expired)), (5, None, End::Rotated)];
    for (lasts, expires, end) in table {
        let mut world = World::new();
        let stream = world.stream(ContentKind::Text);
        let (lasts, expires) = (Duration::from_secs(lasts), expires.map(Duration::from_secs));
        let mut guest = world.arrive_as(&stream, 0, &Coming { lasts, expires, ..Coming::default() });
        world.pass(Duration::from_secs(5) - Duration::from_millis(31));
        assert_eq!(world.shard.readers(), 1);
        world.pass(QUARTER + Duration::from_millis(62));
        assert_eq!(ended(&mut world), (0, end));
        assert_eq!(told(&mut guest).0.is_some(), end != End::Rotated);
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn while_the_session_has_lost_its_connection_a_response_outlasts_its_time_but_not_its_readers_right() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let (lasts, expires) = (Duration::from_secs(3), Some(Duration::from_millis(20_400)));
    let mut guests = [(); 10].map(|()| world.arrive_as(&stream, 0, &Coming { lasts, expires, ..Coming::default() }));
    stream.feed.pulse().set_lost();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.shard.readers(), guests.len());
    world.pass(Duration::from_secs(1) + QUARTER);
    let departures = world.shard.departures();
    let expired =
        |departure: &Departure<_, _>| matches!(departure, Departure::Ended { reason: End::Lapsed(Lapse::Expired), .. });
    assert!(departures.len() == guests.len() && departures.iter().all(expired));
    assert!(guests.iter_mut().all(|guest| told(guest).0 == Some("expired")));
    world.assert_empty(&[&stream]);
}

#[test]
fn in_a_drain_a_response_ends_for_what_comes_first() {
    let table = [(1, 5, End::Drained), (5, 1, End::Lapsed(Lapse::Expired))];
    for (drain, expires, end) in table {
        let mut world = World::new();
        let stream = world.stream(ContentKind::Text);
        // The first slot has its turn at once, and the second one later.
        let _first = world.arrive(&stream, 0);
        let expires = Some(Duration::from_secs(expires));
        let _guest = world.arrive_as(&stream, 0, &Coming { expires, ..Coming::default() });
        world.shard.drain(Duration::from_secs(drain), world.now.at);
        world.pass(QUARTER);
        world.shard.departures();
        world.pass(Duration::from_secs(5));
        assert_eq!(ended(&mut world), (1, end));
    }
}

#[test]
fn who_is_in_the_middle_of_a_chunk_gets_the_rest_of_it_and_nothing_else() {
    for cut in 0..80 {
        for lapses_by_review in [true, false] {
            let mut world = World::new();
            let mut stream = world.stream(ContentKind::Text);
            let expires = (!lapses_by_review).then_some(Duration::from_secs(2));
            let coming = Coming { room: cut, expires, ..Coming::default() };
            let mut guest = world.arrive_as(&stream, 0, &coming);
            world.publish(&mut stream, &[b"first"]);
            assert!(super::world::rest(&world, &guest).is_some(), "{cut}");
            if lapses_by_review {
                world.withdraw(0, Lapse::Revoked);
                world.review();
            } else {
                world.jump(Duration::from_secs(2));
            }
            assert_eq!(world.shard.readers(), 1);
            world.publish(&mut stream, &[b"second"]);
            world.make_room(&mut guest, usize::MAX);
            let reason = if lapses_by_review { "revoked" } else { "expired" };
            assert_eq!(told(&mut guest), (Some(reason), "first".to_owned()), "{cut}");
            assert!(guest.client.has_ended);
            world.assert_empty(&[&stream]);
        }
    }
}

#[test]
fn a_response_whose_end_is_on_its_way_ends_as_it_was_to() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 9, ..Coming::default() });
    stream.close(&[b"last"]);
    stream.feed.ring();
    world.hear();
    world.withdraw(0, Lapse::Revoked);
    world.review();
    world.make_room(&mut guest, usize::MAX);
    assert_eq!(told(&mut guest), (None, "last".to_owned()));
    assert_eq!(ended(&mut world), (0, End::Closed));
}

#[test]
fn last_words_that_the_socket_does_not_take_are_finished_when_it_does() {
    for cut in 0..60 {
        let mut world = World::new();
        let stream = world.stream(ContentKind::Text);
        let mut guest = world.arrive_as(&stream, 0, &Coming { room: cut, ..Coming::default() });
        world.withdraw(0, Lapse::Revoked);
        world.review();
        assert_eq!(world.shard.readers(), 1, "{cut}");
        // Asked again, it says nothing twice.
        world.review();
        world.make_room(&mut guest, usize::MAX);
        assert_eq!(told(&mut guest), (Some("revoked"), String::new()));
        assert_eq!(ended(&mut world), (0, End::Lapsed(Lapse::Revoked)));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn who_may_not_go_on_by_the_time_it_arrives_is_given_nothing_of_what_is_there() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"a"]);
    let _other = world.arrive(&stream, 0);
    stream.push(&[b"b"]);
    world.withdraw(1, Lapse::Revoked);
    let mut guest = world.arrive_as(&stream, 0, &Coming { greet: true, ..Coming::default() });
    assert_eq!(guest.id, None);
    assert_eq!(told(&mut guest), (Some("revoked"), String::new()));
    assert_eq!(ended(&mut world), (1, End::Lapsed(Lapse::Revoked)));
    world.check();
}

#[test]
fn who_waits_for_an_answer_is_woken_to_be_refused() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let polls = Coming { wants: Some(Wants::Answer), room: 0, ..Coming::default() };
    let _guests = [(); 3].map(|()| world.arrive_as(&stream, 0, &polls));
    // Who was woken, and whether with what has come.
    let woken = |departures: Vec<Departure<Socket, usize>>| -> Vec<(usize, bool)> {
        let of = |departure: Departure<Socket, usize>| {
            let Departure::Woken { wake, socket, luggage, .. } = departure else { panic!("{departure:?}") };
            assert_eq!(socket.0.borrow().writes, 0);
            (luggage, !matches!(wake, Wake::Moved))
        };
        let mut woken: Vec<_> = departures.into_iter().map(of).collect();
        woken.sort_unstable();
        woken
    };
    world.withdraw(1, Lapse::Revoked);
    world.review();
    assert_eq!(woken(world.shard.departures()), [(1, false)]);
    stream.push(&[b"a"]);
    world.withdraw(3, Lapse::Revoked);
    assert_eq!(world.arrive_as(&stream, 0, &polls).id, None);
    assert_eq!(woken(world.shard.departures()), [(0, true), (2, true), (3, false)]);
    world.assert_empty(&[&stream]);
}

#[test]
fn a_review_goes_over_all_in_parts_and_deliveries_go_on_meanwhile() {
    const READERS: usize = 2 * PART + 100;
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..READERS).map(|_| world.arrive(&stream, 0)).collect();
    for number in (0..READERS).step_by(2) {
        world.withdraw(number, Lapse::Revoked);
    }
    world.shard.review();
    let mut left = Vec::new();
    while world.shard.is_reviewing() {
        world.shard.review_part(world.now);
        left.push(world.shard.departures().len());
        world.publish(&mut stream, &[b"x"]);
    }
    assert_eq!(left[..3], [PART / 2, PART / 2, 50]);
    assert_eq!(left.iter().sum::<usize>(), READERS / 2);
    read_all(&mut guests);
    for (number, guest) in guests.iter().enumerate() {
        let given: usize = guest.client.seen.iter().map(|seen| seen.data.len()).sum();
        // Who is looked at later is given what comes before.
        let least = if number % 2 == 0 { number / PART } else { left.len() };
        assert_eq!((given, guest.client.has_ended), (least, number % 2 == 0), "{number}");
    }
    world.check();
}

#[test]
fn a_review_that_is_asked_for_during_another_one_is_not_lost() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let _guests: Vec<Guest> = (0..PART + 1).map(|_| world.arrive(&stream, 0)).collect();
    world.shard.review();
    world.shard.review_part(world.now);
    world.withdraw(0, Lapse::Revoked);
    world.shard.review();
    world.shard.review();
    while world.shard.is_reviewing() {
        world.shard.review_part(world.now);
    }
    assert_eq!(ended(&mut world), (0, End::Lapsed(Lapse::Revoked)));
}

#[test]
fn nobody_is_asked_for_a_message_or_a_keep_alive() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let _guests = [(); 5].map(|()| world.arrive(&stream, 0));
    for _ in 0..10 {
        world.publish(&mut stream, &[b"a"]);
        world.pass(Duration::from_secs(16));
    }
    assert_eq!(world.asked.load(Ordering::Relaxed), 5, "each when it arrived");
    world.review();
    assert_eq!(world.asked.load(Ordering::Relaxed), 10);
}
