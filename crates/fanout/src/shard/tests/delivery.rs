//! What readers with willing sockets are sent.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tailwater_protocol::{ContentKind, cursor::INTERVAL_MS, text::MAX_HELD};

use super::{
    super::{Departure, End, Loss, MAX_UNREAD},
    script::Seen,
    world::{CURSOR, Coming, Guest, World, bytes_sent, read_all},
};

fn seen(data: &str, next: u64) -> Seen {
    Seen { data: data.to_owned(), next: Some(next), cursor: Some(CURSOR), up_to_date: true, closed: false }
}

fn greeted() -> Coming {
    Coming { greet: true, ..Coming::default() }
}

#[test]
fn a_live_message_is_one_write_and_says_that_it_is_all() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guests: Vec<Guest> = (0..3).map(|_| world.arrive(&stream, 0)).collect();
    world.publish(&mut stream, &[b"hello"]);
    read_all(&mut guests);
    for guest in &guests {
        assert_eq!(guest.client.seen, [seen("hello", 1)]);
        assert_eq!(guest.client.wire.borrow().writes, 1);
    }
    assert_eq!(world.metrics.deliveries.get(), 3);
    assert_eq!(world.metrics.bytes.get(), bytes_sent(&guests.iter().collect::<Vec<_>>()));
    world.check();
}

#[test]
fn batches_that_came_together_go_out_with_one_write_and_only_the_last_says_that_it_is_all() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Json);
    let mut guest = world.arrive(&stream, 0);
    for message in [b"1", b"2", b"3"] {
        stream.push(&[message]);
        stream.feed.ring();
    }
    world.hear();
    guest.client.read();
    let more = |data, next| Seen { up_to_date: false, ..seen(data, next) };
    assert_eq!(guest.client.seen, [more("[1]", 1), more("[2]", 2), seen("[3]", 3)]);
    assert_eq!(guest.client.wire.borrow().writes, 1);
}

#[test]
fn a_bell_that_rings_for_nothing_new_sends_nothing() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive(&stream, 0);
    stream.marks(3);
    stream.feed.ring();
    stream.feed.ring();
    assert_eq!(world.shard.rung().len(), 1, "rung twice, heard once");
    stream.feed.ring();
    world.hear();
    guest.client.read();
    assert!(guest.client.seen.is_empty());
    world.publish(&mut stream, &[b"a"]);
    guest.client.read();
    assert_eq!(guest.client.seen, [seen("a", 4)]);
}

#[test]
fn a_stream_knows_what_its_readers_have_been_given() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    assert_eq!(stream.feed.taken(), u64::MAX, "nobody waits for anything");
    let guests = [world.arrive(&stream, 0), world.arrive(&stream, 0)];
    stream.push(&[b"a", b"b"]);
    stream.feed.ring();
    assert_eq!(stream.feed.taken(), 0, "the bell rings, and nobody has heard it");
    world.hear();
    assert_eq!(stream.feed.taken(), 2);
    guests[0].client.wire.borrow_mut().room = 3;
    world.publish(&mut stream, &[b"c"]);
    assert_eq!(stream.feed.taken(), 3, "whoever is slow keeps nothing from going");
    stream.feed.turn();
    world.hear();
    assert_eq!(stream.feed.taken(), u64::MAX, "who is in the middle of a chunk looks no more");
    assert_eq!((stream.feed.listeners(), world.shard.departures().len()), (1, 1));
}

#[test]
fn a_shard_that_sleeps_is_woken_once() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let _guest = world.arrive(&stream, 0);
    stream.push(&[b"a"]);
    stream.feed.ring();
    assert_eq!(world.woken.load(Ordering::Relaxed), 0, "it is awake");
    world.hear();
    world.shard.bell.doze();
    stream.push(&[b"b"]);
    stream.feed.ring();
    stream.feed.ring();
    assert_eq!(world.woken.load(Ordering::Relaxed), 1);
    assert!(world.shard.bell.has_rung());
}

#[test]
fn the_end_comes_with_the_last_messages_or_alone() {
    for last in [&[b"x".as_slice(), b"y"][..], &[]] {
        for cursor in [0, CURSOR + 7] {
            let mut world = World::new();
            let mut stream = world.stream(ContentKind::Text);
            stream.push(&[b"a"]);
            let mut guest = world.arrive_as(&stream, 0, &Coming { cursor, ..Coming::default() });
            stream.close(last);
            stream.feed.ring();
            world.hear();
            guest.client.read();
            assert!(guest.client.has_ended && guest.client.last().closed, "{last:?}");
            assert_eq!(guest.client.at, 1 + last.len() as u64);
            let departures = world.shard.departures();
            assert!(matches!(departures[..], [Departure::Ended { reason: End::Closed, .. }]));
            world.assert_empty(&[&stream]);
        }
    }
}

#[test]
fn who_arrives_at_a_closed_stream_is_given_the_rest_and_the_end() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"a"]);
    stream.close(&[]);
    stream.marks(2);
    for seq in 0..=stream.next {
        let mut guest = world.arrive_as(&stream, seq, &greeted());
        guest.client.read();
        assert!(guest.id.is_none() && guest.client.has_ended && guest.client.last().closed, "{seq}");
        assert_eq!((guest.client.seen.len(), guest.client.at), (1, 1));
    }
    world.assert_empty(&[&stream]);
}

#[test]
fn a_greeting_is_for_those_who_were_sent_nothing() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"a"]);
    stream.marks(2);
    let table = [(1, true, vec![seen("", 1)]), (3, true, vec![seen("", 1)]), (1, false, vec![])];
    for (seq, greet, expected) in table {
        let guest = world.arrive_as(&stream, seq, &Coming { greet, ..Coming::default() });
        assert_eq!(guest.client.seen, expected, "{seq} {greet}");
    }
    let guest = world.arrive_as(&stream, 0, &greeted());
    assert_eq!(guest.client.seen, [seen("a", 1)], "what it had not had is greeting enough");
}

#[test]
fn who_arrives_in_the_middle_of_a_batch_gets_the_rest_of_it() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Json);
    stream.add(&[b"0", b"1", b"2"], 2, false);
    stream.push(&[b"5"]);
    for (seq, first) in [(0, "[0,1,2]"), (1, "[1,2]"), (2, "[2]"), (3, "[5]"), (4, "[5]"), (5, "[5]")] {
        let guest = world.arrive(&stream, seq);
        assert_eq!(guest.client.seen[0].data, first, "{seq}");
        assert_eq!(guest.client.last(), &seen("[5]", 6));
    }
    world.check();
}

#[test]
fn a_cursor_of_ones_own_never_goes_back_and_the_others_keep_theirs() {
    for own in [0, CURSOR, CURSOR + 1, 9_999_999, 10_000_000, u64::MAX] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Binary);
        let mut guest = world.arrive_as(&stream, 0, &Coming { cursor: own, greet: true, ..Coming::default() });
        let mut other = world.arrive(&stream, 0);
        world.publish(&mut stream, &[b"a"]);
        stream.push(&[b"b"]);
        stream.push(&[b"c"]);
        stream.feed.ring();
        world.hear();
        world.jump(Duration::from_millis(2 * INTERVAL_MS));
        world.publish(&mut stream, &[b"d"]);
        guest.client.read();
        other.client.read();
        let cursors: Vec<u64> = guest.client.seen.iter().filter_map(|seen| seen.cursor).collect();
        let floor = |now: u64| now.max(own);
        let expected = [CURSOR, CURSOR, CURSOR, CURSOR, CURSOR + 2].map(floor);
        assert_eq!(cursors, expected, "{own}");
        assert_eq!(
            (other.client.last(), guest.client.wire.borrow().writes),
            (&Seen { cursor: Some(CURSOR + 2), ..seen("d", 4) }, 4)
        );
        world.check();
    }
}

#[test]
fn a_clock_that_is_set_back_moves_no_cursor_back() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guests = [world.arrive(&stream, 0), world.arrive_as(&stream, 0, &Coming { room: 0, ..greeted() })];
    world.publish(&mut stream, &[b"a"]);
    world.now.unix_ms -= 5 * INTERVAL_MS;
    world.publish(&mut stream, &[b"b"]);
    let [_, slow] = &mut guests;
    world.make_room(slow, usize::MAX);
    world.pass(Duration::from_secs(16));
    read_all(&mut guests);
    assert!(guests.iter().all(|guest| guest.client.seen.iter().all(|seen| seen.cursor == Some(CURSOR))));
    stream.feed.turn();
    world.hear();
    for departure in world.shard.departures() {
        assert!(matches!(departure, Departure::Behind { cursor: CURSOR, .. }), "nor elsewhere");
    }
}

#[test]
fn a_character_that_batches_share_comes_out_whole_and_nobody_is_told_that_this_is_all_meanwhile() {
    for parts in [&[&b"a\xf0\x9f"[..], b"\x98\x80b"][..], &[b"a\xf0", b"\x9f", b"\x98\x80b"]] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        let mut guests = vec![world.arrive_as(&stream, 0, &greeted())];
        for part in &parts[..parts.len() - 1] {
            world.publish(&mut stream, &[part]);
            guests.push(world.arrive_as(&stream, 0, &greeted()));
        }
        world.pass(Duration::from_secs(16));
        read_all(&mut guests);
        let not_all = Seen { up_to_date: false, ..seen("", 0) };
        assert_eq!(guests[0].client.seen, [seen("", 0), not_all.clone()]);
        assert_eq!(guests[1].client.seen, [not_all.clone(), not_all]);
        world.publish(&mut stream, &[parts[parts.len() - 1]]);
        read_all(&mut guests);
        for guest in &guests {
            assert_eq!(guest.client.last(), &seen("a😀b", parts.len() as u64));
            assert_eq!(guest.client.seen.len(), 3, "in one chunk");
        }
        world.check();
    }
}

#[test]
fn what_is_held_back_goes_out_when_the_stream_is_closed_or_too_much_has_come_behind_it() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut guest = world.arrive(&stream, 0);
    world.publish(&mut stream, &[b"a\xe2"]);
    let long = [vec![b'b'; MAX_HELD - 1], vec![0xe2]].concat();
    world.publish(&mut stream, &[&long]);
    guest.client.read();
    assert!(guest.client.seen.is_empty(), "one more byte may come");
    world.publish(&mut stream, &[b"\xe2"]);
    guest.client.read();
    assert_eq!((guest.client.at, guest.client.seen.len()), (3, 1));
    assert!(guest.client.last().up_to_date);
    world.publish(&mut stream, &[b"c\xe2\x82"]);
    stream.close(&[]);
    stream.feed.ring();
    world.hear();
    guest.client.read();
    assert_eq!((guest.client.last().data.as_str(), guest.client.last().closed), ("c\u{fffd}", true));
}

#[test]
fn what_is_not_text_is_not_held_back() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Binary);
    let mut guest = world.arrive(&stream, 0);
    world.publish(&mut stream, &[b"a\xe2"]);
    guest.client.read();
    assert_eq!(guest.client.seen, [seen("a\u{fffd}", 1)]);
}

#[test]
fn who_arrives_before_the_others_in_a_batch_that_is_held_back_loses_nothing() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.push(&[b"0"]);
    stream.push(&[b"1", b"2", b"3\xe2"]);
    let mut guests: Vec<Guest> = [2, 1, 0, 3, 4].map(|seq| world.arrive_as(&stream, seq, &greeted())).into();
    for guest in &guests {
        assert_eq!(guest.client.last().up_to_date, guest.client.at == 4, "{:?}", guest.client.seen);
    }
    world.pass(Duration::from_secs(16));
    world.publish(&mut stream, &[b"\x82\xac."]);
    read_all(&mut guests);
    for (guest, data) in guests.iter().zip(["23€.", "123€.", "123€.", "3€.", "\u{fffd}\u{fffd}."]) {
        assert_eq!(guest.client.last(), &seen(data, 5), "the client has checked what came before");
    }
    world.check();
}

#[test]
fn what_a_client_sends_is_kept_up_to_a_point() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let guests = [world.arrive(&stream, 0), world.arrive(&stream, 0), world.arrive(&stream, 0)];
    let [quiet, noisy, gone] = &guests;
    quiet
        .client
        .wire
        .borrow_mut()
        .incoming
        .extend([b"GET /".as_slice(), b"x"].map(|part| Some(Bytes::from_static(part))));
    noisy.client.wire.borrow_mut().incoming.push_back(Some(vec![b'x'; MAX_UNREAD + 1].into()));
    gone.client.wire.borrow_mut().incoming.extend([Some(Bytes::from_static(b"x")), None]);
    for guest in &guests {
        world.shard.on_ready(guest.id.unwrap(), world.now);
    }
    let departures = world.shard.departures();
    assert!(matches!(departures[0], Departure::Lost { reason: Loss::Noisy, luggage: 1, .. }));
    assert!(matches!(departures[1], Departure::Lost { reason: Loss::Left, luggage: 2, .. }));
    stream.feed.turn();
    world.hear();
    let departures = world.shard.departures();
    assert!(matches!(&departures[..], [Departure::Behind { unread, luggage: 0, .. }] if unread == "GET /x"));
    world.assert_empty(&[&stream]);
}

#[test]
fn streams_do_not_mix() {
    let mut world = World::new();
    let mut streams = [world.stream(ContentKind::Text), world.stream(ContentKind::Json)];
    let mut guests: Vec<Guest> = (0..6).map(|n| world.arrive(&streams[n % 2], 0)).collect();
    for n in 0..4_usize {
        streams[n % 2].push(&[n.to_string().as_bytes()]);
        streams[n % 2].feed.ring();
    }
    world.hear();
    read_all(&mut guests);
    for (n, guest) in guests.iter().enumerate() {
        let expected = [["0", "2"], ["[1]", "[3]"]][n % 2];
        assert_eq!(guest.client.seen.iter().map(|seen| seen.data.as_str()).collect::<Vec<_>>(), expected);
    }
    world.check();
}
