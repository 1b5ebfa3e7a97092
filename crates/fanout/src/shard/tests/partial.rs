//! Sockets that do not take all, or nothing, or fail.

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use tailwater_protocol::ContentKind;

use super::{
    super::{Departure, End, Loss, TURNS, WINDOW, slot::Place},
    world::{CURSOR, Coming, Guest, World, bytes_sent, read_all, rest},
};

#[test]
fn a_burst_that_is_cut_at_any_byte_is_finished_first_and_then_comes_what_came_meanwhile() {
    for (cursor, closes) in [(0, false), (CURSOR + 1, false), (0, true)] {
        let mut length = 1;
        let mut cut = 0;
        while cut < length {
            let mut world = World::new();
            let mut stream = world.stream(ContentKind::Text);
            let mut guest = world.arrive_as(&stream, 0, &Coming { cursor, room: cut, ..Coming::default() });
            let mut quick = world.arrive(&stream, 0);
            world.publish(&mut stream, &[b"one"]);
            guest.client.read();
            quick.client.read();
            length = quick.client.wire.borrow().written.len();
            assert_eq!((guest.client.is_mid_chunk(), guest.client.seen.len()), (cut > 0, 0), "{cut}");
            assert_eq!(world.shard.slots[guest.id.unwrap()].place, Place::Busy);
            world.publish(&mut stream, &[b"two"]);
            stream.marks(1);
            if closes {
                stream.close(&[b"three"]);
                stream.marks(1);
                stream.feed.ring();
                world.hear();
            }
            world.make_room(&mut guest, 5);
            world.make_room(&mut guest, usize::MAX);
            quick.client.read();
            assert_eq!((guest.client.at, guest.client.has_ended), (quick.client.at, closes), "{cut}");
            world.check();
            if !closes {
                world.publish(&mut stream, &[b"four"]);
                read_all(std::slice::from_mut(&mut guest));
                assert_eq!(guest.client.last().data, "four");
                assert_eq!(world.shard.slots[guest.id.unwrap()].place, Place::Current, "with the others again");
            }
            assert_eq!(world.metrics.bytes.get(), bytes_sent(&[&guest, &quick]));
            cut += 1;
        }
    }
}

#[test]
fn readers_share_what_they_were_not_given_yet() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let guests = [7, 7, 9].map(|room| world.arrive_as(&stream, 0, &Coming { room, ..Coming::default() }));
    world.publish(&mut stream, &[b"for all of them"]);
    let [first, second, third] = guests.each_ref().map(|guest| rest(&world, guest).unwrap());
    assert_eq!((first.as_ptr(), first.len()), (second.as_ptr(), second.len()));
    assert_eq!(first.slice(2..).as_ptr(), third.as_ptr());
    assert_eq!(world.metrics.partial.get(), 3);
}

#[test]
fn a_write_that_is_interrupted_is_tried_again() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive(&stream, 0);
    guest.client.wire.borrow_mut().interrupts = 3;
    world.publish(&mut stream, &[b"a"]);
    guest.client.read();
    assert_eq!((guest.client.at, guest.client.wire.borrow().interrupts), (1, 0));
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_one_that_takes_a_byte_now_and_then_is_not() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let nothing = Coming { room: 0, ..Coming::default() };
    let stalled = world.arrive_as(&stream, 0, &nothing);
    let mut slow = world.arrive_as(&stream, 0, &nothing);
    world.publish(&mut stream, &[b"a"]);
    for _ in 0..12 {
        world.pass(Duration::from_secs(10));
        world.make_room(&mut slow, 1);
    }
    let departures = world.shard.departures();
    assert!(matches!(&departures[..], [Departure::Lost { reason: Loss::Stalled, luggage: 0, .. }]));
    assert!(world.shard.socket(stalled.id.unwrap()).is_none() && world.shard.socket(slow.id.unwrap()).is_some());
    assert_eq!(slow.client.wire.borrow().written.len(), 12);
    world.pass(Duration::from_secs(29));
    assert_eq!(world.shard.readers(), 1, "its time begins anew with each byte");
    world.pass(Duration::from_millis(1300));
    assert!(matches!(world.shard.departures()[..], [Departure::Lost { reason: Loss::Stalled, .. }]));
    world.assert_empty(&[&stream]);
}

#[test]
fn a_client_that_goes_while_something_is_half_written_is_lost() {
    let deeds: [fn(&Guest); 3] = [
        |guest| guest.client.wire.borrow_mut().incoming.push_back(None),
        |guest| guest.client.wire.borrow_mut().broken = Some(ErrorKind::BrokenPipe),
        |guest| {
            guest.client.wire.borrow_mut().incoming.push_back(None);
            guest.client.wire.borrow_mut().room = 10;
        },
    ];
    for deed in deeds {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        let guest = world.arrive_as(&stream, 0, &Coming { room: 10, ..Coming::default() });
        world.publish(&mut stream, &[b"a"]);
        deed(&guest);
        world.shard.on_ready(guest.id.unwrap(), world.now);
        assert!(matches!(world.shard.departures()[..], [Departure::Lost { reason: Loss::Left, .. }]));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn those_who_fail_while_all_are_delivered_to_cost_the_others_nothing() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..1000).map(|_| world.arrive(&stream, 0)).collect();
    for guest in guests.iter().step_by(3) {
        guest.client.wire.borrow_mut().broken = Some(ErrorKind::ConnectionReset);
    }
    for guest in guests.iter().skip(1).step_by(3) {
        guest.client.wire.borrow_mut().room = 20;
    }
    world.publish(&mut stream, &[b"a"]);
    let mut lost: Vec<usize> = Vec::new();
    for departure in world.shard.departures() {
        let Departure::Lost { reason: Loss::Left, luggage, .. } = departure else { panic!("not lost") };
        lost.push(luggage);
    }
    lost.sort_unstable();
    assert_eq!(lost, (0..1000).step_by(3).collect::<Vec<_>>());
    world.check();
    world.publish(&mut stream, &[b"b"]);
    for guest in guests.iter_mut().skip(1).step_by(3) {
        world.make_room(guest, usize::MAX);
    }
    read_all(&mut guests);
    for (n, guest) in guests.iter().enumerate() {
        assert_eq!(guest.client.at, if n % 3 == 0 { 0 } else { 2 }, "{n}");
    }
    world.check();
    stream.close(&[b"c"]);
    stream.feed.ring();
    world.hear();
    read_all(&mut guests);
    assert!(guests.iter().enumerate().all(|(n, guest)| guest.client.has_ended == (n % 3 != 0)));
    world.shard.departures();
    world.assert_empty(&[&stream]);
}

#[test]
fn what_is_half_written_is_finished_before_the_response_ends() {
    for (drains, reason) in [(false, End::Rotated), (true, End::Drained)] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        let lasts = Duration::from_secs(5);
        let mut guest = world.arrive_as(&stream, 0, &Coming { room: 10, lasts, ..Coming::default() });
        world.publish(&mut stream, &[b"a"]);
        if drains {
            world.shard.drain(Duration::ZERO, world.now.at);
        }
        world.pass(Duration::from_secs(10));
        assert!(world.shard.departures().is_empty());
        world.publish(&mut stream, &[b"b"]);
        world.make_room(&mut guest, usize::MAX);
        world.pass(Duration::from_millis(300));
        guest.client.read();
        assert_eq!((guest.client.at, guest.client.has_ended), (2, true));
        assert!(guest.client.reconnection_time().is_some());
        let departures = world.shard.departures();
        assert!(matches!(departures[..], [Departure::Ended { reason: why, .. }] if why == reason));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn an_end_that_is_half_written_is_an_end_all_the_same() {
    for cut in 0..20 {
        let mut world = World::new();
        let stream = world.stream(ContentKind::Text);
        let mut guest = world.arrive_as(&stream, 0, &Coming { room: cut, lasts: Duration::ZERO, ..Coming::default() });
        world.pass(Duration::from_millis(300));
        assert!(world.shard.departures().is_empty(), "{cut}");
        stream.feed.turn();
        world.hear();
        world.make_room(&mut guest, usize::MAX);
        assert!(guest.client.has_ended);
        assert!(matches!(world.shard.departures()[..], [Departure::Ended { reason: End::Rotated, .. }]));
        assert_eq!(world.metrics.bytes.get(), bytes_sent(&[&guest]));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn who_is_far_behind_is_given_windows_and_others_have_their_turn_between() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Binary, 1 << 23);
    let body = vec![b'x'; WINDOW / 3];
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 1, ..Coming::default() });
    world.publish(&mut stream, &[b"first"]);
    for _ in 0..3 * 3 * TURNS {
        world.publish(&mut stream, &[&body]);
    }
    world.make_room(&mut guest, usize::MAX);
    let writes = guest.client.wire.borrow().writes;
    assert_eq!(writes, 2 + TURNS, "what was cut, and as many windows as it has turns");
    assert_eq!(world.shard.slots[guest.id.unwrap()].place, Place::Waiting);
    assert!(guest.client.at < stream.next && !guest.client.last().up_to_date);
    world.pass(Duration::from_secs(1));
    guest.client.read();
    assert_eq!((guest.client.at, guest.client.last().up_to_date), (stream.next, true));
    assert_eq!(world.shard.slots[guest.id.unwrap()].place, Place::Current);
}

#[test]
fn a_slow_reader_of_a_closed_stream_is_told_its_end_whatever_marks_come_behind_it() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 3, ..Coming::default() });
    world.publish(&mut stream, &[b"a"]);
    stream.close(&[]);
    stream.feed.ring();
    world.hear();
    stream.marks(1);
    world.make_room(&mut guest, usize::MAX);
    assert!(guest.client.has_ended && guest.client.last().closed);
    assert!(matches!(world.shard.departures()[..], [Departure::Ended { reason: End::Closed, .. }]));
}

#[test]
fn a_reader_that_catches_up_is_not_told_that_this_is_all_while_the_bell_is_on_its_way() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 3, ..Coming::default() });
    world.publish(&mut stream, &[b"a"]);
    world.publish(&mut stream, &[b"b"]);
    stream.push(&[b"c"]);
    world.make_room(&mut guest, usize::MAX);
    assert_eq!((guest.client.at, guest.client.last().up_to_date), (2, false));
    stream.feed.ring();
    world.hear();
    guest.client.read();
    assert_eq!((guest.client.at, guest.client.last().up_to_date), (3, true));
}

#[test]
fn what_a_client_sent_while_it_was_written_to_goes_with_it() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive_as(&stream, 0, &Coming { room: 3, ..Coming::default() });
    stream.close(&[b"a"]);
    stream.feed.ring();
    world.hear();
    guest.client.wire.borrow_mut().incoming.push_back(Some(Bytes::from_static(b"GET /")));
    world.make_room(&mut guest, 3);
    world.make_room(&mut guest, usize::MAX);
    let departures = world.shard.departures();
    assert!(matches!(&departures[..], [Departure::Ended { unread, .. }] if unread == "GET /"));
}
