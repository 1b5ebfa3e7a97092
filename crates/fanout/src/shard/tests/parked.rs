//! Long-polls: who wakes them, with what, and that nothing is ever written to them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tailwater_protocol::{ContentKind, Offset};

use super::{
    super::{Departure, Loss, MAX_UNREAD, PAGE, Wake, Wants, slot::Place},
    script::Socket,
    world::{BIRTH, Coming, Guest, Stream, World},
};
use crate::reader::Delivery;

/// A long-poll that was woken.
struct Woken {
    number: usize,
    wake: Wake,
    at: Offset,
    unread: Bytes,
}

/// How long the polls of these tests wait.
const WAIT: Duration = Duration::from_secs(30);
/// How exactly a deadline is kept.
const QUARTER: Duration = Duration::from_millis(250);

fn polls() -> Coming {
    Coming { wants: Some(Wants::Answer), lasts: WAIT, room: 0, ..Coming::default() }
}

fn poll(world: &mut World, stream: &Stream, seq: u64) -> Guest {
    world.arrive_as(stream, seq, &polls())
}

/// Those who were woken since the last time, by number; nobody else has departed.
fn woken(world: &mut World) -> Vec<Woken> {
    let mut all: Vec<_> = world.shard.departures().into_iter().map(woken_by).collect();
    all.sort_by_key(|woken| woken.number);
    all
}

fn woken_by(departure: Departure<Socket, usize>) -> Woken {
    let Departure::Woken { wake, socket, stands, unread, luggage } = departure else {
        panic!("it is to be answered: {departure:?}")
    };
    assert_eq!(socket.0.borrow().writes, 0, "its response is for others to write");
    Woken { number: luggage, wake, at: stands.position(), unread }
}

fn news(woken: &Woken) -> &Arc<Delivery> {
    let Wake::News(delivery) = &woken.wake else { panic!("nothing came: {:?}", woken.wake) };
    delivery
}

fn offset(seq: u64) -> Offset {
    Offset { birth: BIRTH, seq }
}

/// What an answer says: the messages, the next position, whether this is all, and whether it is the end.
fn said(woken: &Woken) -> (Vec<u8>, u64, bool, bool) {
    let delivery = news(woken);
    assert_eq!(delivery.next.birth, BIRTH);
    (delivery.messages.concat(), delivery.next.seq, delivery.up_to_date, delivery.closed)
}

#[test]
fn the_first_message_wakes_all_who_wait_with_one_and_the_same_delivery() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Json);
    for _ in 0..3 {
        poll(&mut world, &stream, 0);
    }
    world.check();
    world.publish(&mut stream, &[b"1", b"2"]);
    let woken = woken(&mut world);
    assert_eq!(woken.iter().map(|woken| woken.number).collect::<Vec<_>>(), [0, 1, 2]);
    for one in &woken {
        assert_eq!(
            (said(one), one.at),
            ((b"12".to_vec(), 2, true, false), offset(0)),
            "it stands before what it is given"
        );
        assert!(Arc::ptr_eq(news(one), news(&woken[0])));
    }
    world.assert_empty(&[&stream]);
}

#[test]
fn a_closure_wakes_with_the_last_messages_or_alone() {
    for (last, data) in [(&[b"x".as_slice(), b"y"][..], b"xy".as_slice()), (&[], b"")] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        stream.push(&[b"a"]);
        poll(&mut world, &stream, 1);
        stream.close(last);
        stream.feed.ring();
        world.hear();
        let woken = woken(&mut world);
        assert_eq!((woken.len(), said(&woken[0])), (1, (data.to_vec(), 1 + last.len() as u64, true, true)));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn who_arrives_behind_what_is_there_is_woken_at_once_by_what_it_has_not_had() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    stream.add(&[b"0", b"1", b"2"], 2, false);
    stream.push(&[b"5"]);
    for (seq, data) in [(0, "0125"), (1, "125"), (2, "25"), (3, "5"), (4, "5"), (5, "5")] {
        assert_eq!(poll(&mut world, &stream, seq).id, None);
        let woken = woken(&mut world);
        assert_eq!((woken.len(), said(&woken[0])), (1, (data.into(), 6, true, false)), "{seq}");
    }
    stream.close(&[]);
    poll(&mut world, &stream, 6);
    assert_eq!(said(&woken(&mut world)[0]), (vec![], 6, true, true));
    world.assert_empty(&[&stream]);
}

#[test]
fn an_answer_is_a_page_at_most_and_says_that_there_is_more() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Binary, 16 * PAGE);
    poll(&mut world, &stream, 0);
    let half = vec![b'x'; PAGE / 2];
    for _ in 0..3 {
        stream.push(&[&half]);
    }
    stream.close(&[b"end"]);
    stream.feed.ring();
    world.hear();
    let first = woken(&mut world);
    let (data, next, up_to_date, closed) = said(&first[0]);
    assert_eq!((data.len(), next, up_to_date, closed), (PAGE, 2, false, false));
    poll(&mut world, &stream, next);
    let (data, next, up_to_date, closed) = said(&woken(&mut world)[0]);
    assert_eq!((data.len(), next, up_to_date, closed), (PAGE / 2 + 3, 4, true, true));
}

#[test]
fn text_that_ends_inside_a_character_wakes_polls_at_once_while_those_who_read_events_wait() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let mut events = world.arrive(&stream, 0);
    for (seq, piece) in [b"a\xf0".as_slice(), b"\x9f", b"\x98"].into_iter().enumerate() {
        let seq = seq as u64;
        let guest = poll(&mut world, &stream, seq);
        let place = if seq == 0 { Place::Parked } else { Place::Waiting };
        assert_eq!(world.shard.slots[guest.id.unwrap()].place, place, "the line stands at the beginning");
        world.publish(&mut stream, &[piece]);
        let woken = woken(&mut world);
        assert_eq!((woken.len(), said(&woken[0])), (1, (piece.to_vec(), seq + 1, true, false)));
        events.client.read();
        assert_eq!((events.client.seen.len(), events.client.at), (0, 0));
        world.check();
    }
    world.publish(&mut stream, &[b"\x80"]);
    events.client.read();
    assert_eq!((events.client.last().data.as_str(), events.client.at), ("a😀", 4));
}

#[test]
fn marks_wake_nobody_and_those_who_wait_stand_behind_them() {
    let mut world = World::new();
    // A ring this small holds one message: who still stood before the marks would be behind it.
    let mut stream = world.stream_of(ContentKind::Text, 1);
    stream.push(&[b"a"]);
    let guest = poll(&mut world, &stream, 1);
    stream.marks(3);
    stream.feed.ring();
    world.hear();
    assert!(world.shard.departures().is_empty());
    assert_eq!(world.shard.stand_of(guest.id.unwrap()).seq, 4);
    let late = poll(&mut world, &stream, 1);
    assert_eq!(world.shard.slots[late.id.unwrap()].place, Place::Parked, "with the others");
    world.check();
    world.publish(&mut stream, &[b"b"]);
    let woken = woken(&mut world);
    assert_eq!(woken.len(), 2);
    for one in &woken {
        assert_eq!((said(one), one.at), ((b"b".to_vec(), 5, true, false), offset(1)));
    }
}

#[test]
fn a_wait_ends_in_time_and_says_whether_it_is_known_that_nothing_came() {
    for alive in [true, false] {
        let mut world = World::new();
        let mut stream = world.stream(ContentKind::Text);
        stream.push(&[b"a"]);
        poll(&mut world, &stream, 1);
        stream.feed.pulse().set_alive(alive);
        world.pass(WAIT - Duration::from_millis(31));
        assert!(world.shard.departures().is_empty());
        world.pass(QUARTER + Duration::from_millis(62));
        let woken = woken(&mut world);
        assert!(matches!(woken[..], [Woken { wake: Wake::TimedOut { is_fresh }, .. }] if is_fresh == alive));
        assert_eq!(woken[0].at, offset(1));
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn what_came_before_the_end_of_the_wait_is_given_out_though_its_bell_was_not_heard() {
    let mut world = World::new();
    let mut streams = [world.stream(ContentKind::Text), world.stream(ContentKind::Text)];
    for stream in &streams {
        poll(&mut world, stream, 0);
    }
    let [gets_news, is_moved] = &mut streams;
    gets_news.push(&[b"a"]);
    is_moved.feed.turn();
    world.jump(WAIT);
    for _ in 0..8 {
        world.shard.on_timer(world.now);
    }
    let woken = woken(&mut world);
    assert_eq!(said(&woken[0]), (b"a".to_vec(), 1, true, false));
    assert!(matches!(woken[1].wake, Wake::Moved));
}

#[test]
fn silence_is_not_broken_for_those_who_wait_for_an_answer() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let guests: Vec<Guest> = (0..20).map(|_| poll(&mut world, &stream, 0)).collect();
    assert!(world.shard.config.keep_alive < WAIT);
    world.pass(WAIT - QUARTER);
    assert!(guests.iter().all(|guest| guest.client.wire.borrow().writes == 0));
    assert_eq!(world.shard.readers(), 20);
    world.pass(2 * QUARTER);
    assert_eq!(woken(&mut world).len(), 20);
}

#[test]
fn a_drain_ends_all_waits_within_its_window_and_spreads_them_over_it() {
    const POLLS: usize = 1000;
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    for _ in 0..POLLS {
        poll(&mut world, &stream, 0);
    }
    world.shard.drain(Duration::from_secs(10), world.now.at);
    let mut ended = Vec::new();
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
        let woken = woken(&mut world);
        assert!(woken.iter().all(|woken| matches!(woken.wake, Wake::TimedOut { is_fresh: true })));
        ended.push(woken.len());
    }
    world.pass(QUARTER);
    assert_eq!(ended.iter().sum::<usize>() + woken(&mut world).len(), POLLS);
    assert!(ended[1..].iter().all(|count| count.abs_diff(POLLS / 10) < POLLS / 40), "{ended:?}");
    world.assert_empty(&[&stream]);
}

#[test]
fn who_has_to_look_anew_is_told_so_wherever_it_waits() {
    let deeds: [fn(&mut Stream); 3] = [
        |stream| stream.feed.turn(),
        |stream| {
            stream.feed.restart(stream.next, false);
            stream.feed.turn();
        },
        // The bell is heard so late that the ring has nothing of what the line has had.
        |stream| {
            stream.push(&[b"a"]);
            stream.push(&[b"b"]);
        },
    ];
    for (n, deed) in deeds.into_iter().enumerate() {
        let mut world = World::new();
        let mut stream = world.stream_of(ContentKind::Text, 1);
        let _events = world.arrive_as(&stream, 0, &Coming { room: 3, ..Coming::default() });
        world.publish(&mut stream, &[b"\xe2"]);
        let (parked, waiting) = (world.arrive_as(&stream, 0, &polls()), poll(&mut world, &stream, 1));
        assert!(parked.id.is_none(), "the message that the events wait behind is there for it");
        assert_eq!(world.shard.slots[waiting.id.unwrap()].place, Place::Waiting);
        world.shard.departures();
        deed(&mut stream);
        stream.feed.ring();
        world.hear();
        let departures = world.shard.departures();
        assert_eq!(departures.len(), 2, "{n}");
        let woken: Vec<_> =
            departures.into_iter().filter(|departure| matches!(departure, Departure::Woken { .. })).collect();
        for departure in woken {
            let woken = woken_by(departure);
            assert!(matches!(woken.wake, Wake::Moved) && woken.at == offset(1), "{n}");
        }
        world.assert_empty(&[&stream]);
    }
}

#[test]
fn who_arrives_behind_a_turn_or_behind_the_ring_is_sent_back_at_once() {
    let mut world = World::new();
    let mut stream = world.stream_of(ContentKind::Text, 1);
    stream.push(&[b"a"]);
    stream.push(&[b"b"]);
    assert_eq!(poll(&mut world, &stream, 0).id, None);
    assert!(matches!(woken(&mut world)[..], [Woken { wake: Wake::Moved, .. }]));
    world.assert_empty(&[&stream]);
    assert_eq!(world.metrics.fell_behind.get(), 0, "it was not given events");
}

#[test]
fn what_a_client_sends_while_it_waits_goes_along_and_too_much_of_it_or_its_end_is_the_end() {
    let mut world = World::new();
    let mut stream = world.stream(ContentKind::Text);
    let [talks, leaves, shouts] = [(); 3].map(|()| poll(&mut world, &stream, 0));
    let mut tell = |guest: &Guest, said: Option<Vec<u8>>| {
        guest.client.wire.borrow_mut().incoming.push_back(said.map(Bytes::from));
        world.shard.on_ready(guest.id.unwrap(), world.now);
    };
    tell(&talks, Some(b"GET /a ".to_vec()));
    tell(&talks, Some(b"HTTP/1.1".to_vec()));
    tell(&leaves, None);
    tell(&shouts, Some(vec![b'x'; MAX_UNREAD]));
    tell(&shouts, Some(b"x".to_vec()));
    let lost: Vec<_> = world
        .shard
        .departures()
        .iter()
        .map(|departure| match departure {
            Departure::Lost { reason, luggage, .. } => (*luggage, *reason),
            other @ (Departure::Behind { .. } | Departure::Ended { .. } | Departure::Woken { .. }) => {
                panic!("{other:?}")
            }
        })
        .collect();
    assert_eq!(lost, [(1, Loss::Left), (2, Loss::Noisy)]);
    world.check();
    world.publish(&mut stream, &[b"a"]);
    assert_eq!(woken(&mut world)[0].unread, "GET /a HTTP/1.1");
    world.assert_empty(&[&stream]);
}

#[test]
fn a_shard_that_closes_gives_up_those_who_wait() {
    let mut world = World::new();
    let stream = world.stream(ContentKind::Text);
    let guests: Vec<Guest> = (0..3).map(|_| poll(&mut world, &stream, 0)).collect();
    world.shard.close();
    let departures = world.shard.departures();
    assert!(departures.iter().all(|departure| matches!(departure, Departure::Lost { reason: Loss::Closed, .. })));
    assert_eq!(departures.len(), guests.len());
    assert!(guests.iter().all(|guest| guest.client.wire.borrow().writes == 0));
    world.assert_empty(&[&stream]);
}
