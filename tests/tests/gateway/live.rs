//! Live readers: rotation, silence, resumption, deletion, drain (protocol, section 5.8; HTML, section 9.2).

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use tailwater_testkit::sse::{DurableEvent, DurableSse, Payload};
use tokio::time::{Instant, timeout};

use crate::{
    fixture::{House, PATIENCE, Settings, eventually},
    follow::Follow,
};

#[tokio::test]
async fn a_response_ends_after_its_lifetime_with_a_retry_and_the_reader_goes_on_without_loss_or_repeat() {
    let house = House::with(Settings::server(|config| config.sse_lifetime = Duration::from_millis(150))).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let writes = async {
        for n in 0..200 {
            client.append("s", &format!("{n},")).await;
        }
        client.close("s").await;
    };
    let reads = async {
        let (mut seen, mut rotations, mut last_event_id) = (String::new(), 0, None);
        loop {
            let mut ask = client.get("s?offset=-1&live=sse");
            if let Some(id) = &last_event_id {
                ask = ask.header("last-event-id", id);
            }
            // Where the closure came between two responses.
            let Some(mut reader) = ask.follow_unless_over(Payload::Text).await else { return (seen, rotations) };
            let events = reader.until_end().await;
            seen.push_str(reader.text());
            if events.iter().any(|event| matches!(event, DurableEvent::Control(control) if control.closed)) {
                return (seen, rotations);
            }
            assert!((50..=550).contains(&reader.retry_ms().expect("a retry")), "{:?}", reader.retry_ms());
            last_event_id = Some(reader.last_event_id());
            rotations += 1;
        }
    };
    let ((), (seen, rotations)) = tokio::join!(writes, reads);
    assert_eq!(seen, (0..200).map(|n| format!("{n},")).collect::<String>());
    assert!(rotations >= 3, "{rotations}");
}

#[tokio::test]
async fn readers_that_came_together_are_not_sent_away_together() {
    let lifetime = Duration::from_millis(1000);
    let house = House::with(Settings::server(|config| config.sse_lifetime = lifetime)).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let began = Instant::now();
    let ends = (0..30).map(|_| async {
        let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
        reader.until_end().await;
        (began.elapsed(), reader.retry_ms().unwrap())
    });
    let ends = join_all(ends).await;
    let retries: HashSet<_> = ends.iter().map(|(_, retry)| *retry).collect();
    assert!(retries.len() > 10, "{retries:?}");
    let (first, last) = (ends.iter().map(|end| end.0).min().unwrap(), ends.iter().map(|end| end.0).max().unwrap());
    assert!(first >= lifetime.mul_f64(0.9), "{first:?}");
    assert!(last - first > Duration::from_millis(50), "{first:?} to {last:?}");
}

#[tokio::test]
async fn a_silent_stream_sends_control_events_that_say_that_nothing_is_missing() {
    let house = House::with(Settings::server(|config| config.keep_alive = Duration::from_millis(50))).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let tail = client.append("s", "a").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_data("a").await;
    for _ in 0..5 {
        let control = reader.control().await;
        assert!(control.up_to_date && control.next == tail && !control.closed);
    }
    assert_eq!(reader.text(), "a");
}

#[tokio::test]
async fn a_last_event_id_overrides_the_offset_of_the_url_in_server_sent_events_only() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let middle = client.append("s", "a").await;
    client.append("s", "b").await;
    let resumed = client.get("s?offset=-1&live=sse").header("last-event-id", &middle);
    let mut reader = resumed.follow(Payload::Text).await;
    reader.until_up_to_date().await;
    assert_eq!(reader.text(), "b");
    for foreign in ["", "-1", "now", "7", "other"] {
        let mut reader =
            client.get("s?offset=-1&live=sse").header("last-event-id", foreign).follow(Payload::Text).await;
        reader.until_up_to_date().await;
        assert_eq!(reader.text(), "ab", "{foreign:?}");
    }
    assert_eq!(client.get("s?offset=-1").header("last-event-id", &middle).send().await.text(), "ab");
}

#[tokio::test]
async fn a_reader_that_starts_now_sees_nothing_of_before() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let tail = client.append("s", "before").await;
    let mut reader = client.get("s?offset=now&live=sse").follow(Payload::Text).await;
    let first = reader.next().await;
    assert!(matches!(&first, Some(DurableEvent::Control(control)) if control.up_to_date && control.next == tail));
    client.append("s", "after").await;
    reader.until_data("after").await;
    assert_eq!(reader.text(), "after");
}

#[tokio::test]
async fn a_reader_that_is_cut_off_at_any_byte_goes_on_without_loss_or_repeat() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    for text in ["one,", "zwei ", "drei\n", "vier€"] {
        client.append("s", text).await;
        reader.until_data(text).await;
    }
    let whole = client.read("s").await;
    for cut in 0..=reader.raw.len() {
        let mut sse = DurableSse::new(Payload::Text);
        sse.push(&reader.raw[..cut]);
        // Data count only once their control event has come: that is what says where to go on.
        let (mut confirmed, mut pending) = (Vec::new(), Vec::new());
        while let Some(event) = sse.pop() {
            match event.unwrap() {
                DurableEvent::Data(data) => pending.extend_from_slice(&data),
                DurableEvent::Control(_) => confirmed.append(&mut pending),
                end @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                    panic!("{end:?}")
                }
            }
        }
        let rest = client.read_from("s", sse.offset().unwrap_or("-1")).await;
        assert_eq!(String::from_utf8([confirmed, rest].concat()).unwrap(), whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn readers_that_join_while_others_write_all_see_the_same() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/json").await;
    let writers = (0..4).map(|writer| async move {
        for n in 0..100 {
            client.post("s").json(format!("\"{writer}-{n}\"")).send().await.expect(204);
        }
    });
    let readers = (0..20).map(|reader: usize| async move {
        // Each comes at a moment of its own: when the stream has grown so far.
        let target = format!("s?offset={}&live=sse", if reader.is_multiple_of(2) { "-1" } else { "now" });
        eventually("it has grown", || async {
            client.get("s").send().await.json().as_array().unwrap().len() >= reader * 15
        })
        .await;
        let mut follow = client.get(&target).follow(Payload::Json).await;
        follow.until_closed().await;
        follow.text().to_owned()
    });
    let closes = async {
        join_all(writers).await;
        client.close("s").await;
    };
    let ((), seen) = tokio::join!(closes, join_all(readers));
    let whole = client.read("s").await;
    let whole = whole.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    assert_eq!(whole.split(',').collect::<HashSet<_>>().len(), 400);
    for (index, text) in seen.iter().enumerate() {
        assert!(whole.ends_with(text.as_str()) && (!index.is_multiple_of(2) || text == whole), "reader {index}");
    }
}

#[tokio::test]
async fn a_reader_that_reads_nothing_for_long_still_gets_everything_and_holds_up_nobody() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/octet-stream").await;
    let mut slow = client.get("s?offset=-1&live=sse").follow(Payload::Binary).await;
    let mut quick = client.get("s?offset=-1&live=sse").follow(Payload::Binary).await;
    let mut written = 0;
    for n in 0..40_u8 {
        let body = vec![n; 256 * 1024];
        written += body.len();
        client.post("s").body("application/octet-stream", body).send().await.expect(204);
        quick.until_bytes(written).await;
    }
    slow.until_bytes(written).await;
    assert!(slow.data == quick.data);
}

#[tokio::test]
async fn a_deleted_stream_tells_its_readers_and_ends_them() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    client.delete("s").send().await.expect(204);
    client.put("s").text("anew").send().await.expect(201);
    assert_eq!(reader.until_end().await, [DurableEvent::Gone]);
    assert!(reader.retry_ms().is_some());
    let resumed = client.get("s?offset=-1&live=sse").header("last-event-id", reader.last_event_id());
    resumed.send().await.refused(410, "offset_gone");
}

#[tokio::test]
async fn a_live_reader_keeps_its_stream_from_expiring_and_an_abandoned_one_expires() {
    let house = House::start().await;
    let client = house.client();
    client.put("s").text("a").header("stream-ttl", "1").send().await.expect(201);
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    let began = Instant::now();
    // HEAD is no use, so it is the reader alone who keeps the stream.
    eventually("three lifetimes have passed", || async {
        client.head("s").send().await.expect(200);
        began.elapsed() > Duration::from_secs(3)
    })
    .await;
    client.append("s", "b").await;
    reader.until_data("ab").await;
    drop(reader);
    eventually("it expires", || async { client.head("s").send().await.status == 404 }).await;
}

#[tokio::test]
async fn a_long_poll_that_waits_in_vain_is_answered_204_with_the_tail() {
    let wait = Duration::from_millis(300);
    let house = House::with(Settings::server(|config| config.long_poll_timeout = wait)).await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    for offset in [tail.as_str(), "now", "-1"] {
        let began = Instant::now();
        let answer = client.get(&format!("s?offset={offset}&live=long-poll")).send().await.expect(204);
        assert!(began.elapsed() >= wait);
        assert_eq!((answer.next(), answer.header("stream-up-to-date")), (tail.clone(), Some("true")));
        assert!(answer.header("stream-cursor").is_some());
    }
    client.close("s").await;
    let began = Instant::now();
    let answer = client.get(&format!("s?offset={tail}&live=long-poll")).send().await.expect(204);
    assert!(answer.is_closed() && answer.header("stream-cursor").is_none());
    assert!(began.elapsed() < wait, "there is nothing to wait for");
}

#[tokio::test]
async fn a_gateway_that_ends_sends_its_readers_away_one_by_one_and_in_time() {
    let window = Duration::from_millis(500);
    let house = House::with(Settings::server(|config| config.drain = window)).await;
    let client = house.client().clone();
    let tail = client.create("s", "text/plain").await;
    let open = (0..20).map(|_| client.get("s?offset=-1&live=sse").follow(Payload::Text));
    let mut readers = join_all(open).await;
    join_all(readers.iter_mut().map(Follow::until_up_to_date)).await;
    let poll = tokio::spawn(client.get(&format!("s?offset={tail}&live=long-poll")).send());
    eventually("it waits", || async { client.metric("tailwater_http_long_polls").await == 1.0 }).await;

    let began = Instant::now();
    let ends = join_all(readers.iter_mut().map(|reader| async move {
        reader.until_end().await;
        (Instant::now(), reader.retry_ms().expect("a retry"))
    }));
    let (ends, ended) = tokio::join!(ends, timeout(PATIENCE, house.pod.shut_down()));
    ended.expect("it ends in time");
    poll.await.unwrap().expect(204);
    let times: Vec<_> = ends.iter().map(|(at, _)| at.duration_since(began)).collect();
    assert!(times.iter().all(|at| *at < window + Duration::from_secs(2)), "{times:?}");
    assert!(times.iter().max().unwrap().saturating_sub(*times.iter().min().unwrap()) > window / 10, "{times:?}");
}
