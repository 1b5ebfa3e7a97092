//! Two gateways on one store: whichever is asked answers of the present, and readers of both see the same.

use std::collections::HashSet;

use futures_util::future::{join, join_all};
use tailwater_testkit::sse::Payload;

use crate::{
    client::Client,
    fixture::{Pair, eventually},
};

/// How often each back-and-forth is repeated: a stale answer would be a matter of luck.
const ROUNDS: usize = 20;

fn both_ways(pair: &Pair) -> impl Iterator<Item = (usize, &Client, &Client)> {
    (0..ROUNDS).map(|round| match round % 2 {
        0 => (round, &pair.a.client, &pair.b.client),
        _ => (round, &pair.b.client, &pair.a.client),
    })
}

#[tokio::test]
async fn what_one_has_written_the_other_shows_at_once() {
    let pair = Pair::start().await;
    pair.a.client.create("s", "text/plain").await;
    let mut expected = String::new();
    for (round, writer, reader) in both_ways(&pair) {
        expected.push_str(&format!("{round},"));
        let next = writer.append("s", &format!("{round},")).await;
        assert_eq!(reader.head("s").send().await.expect(200).next(), next);
        assert_eq!(reader.read("s").await, expected);
        assert_eq!(reader.get("s?offset=now").send().await.expect(200).next(), next);
        reader.get(&format!("s?offset={next}")).send().await.expect(200);
    }
}

#[tokio::test]
async fn what_one_has_created_deleted_or_created_again_the_other_knows_at_once() {
    let pair = Pair::start().await;
    let mut old = None;
    for (round, one, other) in both_ways(&pair) {
        let content_type = format!("text/x-{round}");
        one.put("s").body(&content_type, round.to_string()).send().await.expect(201);
        let head = other.head("s").send().await.expect(200);
        assert_eq!(head.header("content-type"), Some(content_type.as_str()));
        assert_eq!(other.read("s").await, round.to_string());
        other.put("s").body("text/y", "z").send().await.refused(409, "content_type_conflict");
        if let Some(old) = &old {
            other.get(&format!("s?offset={old}")).send().await.refused(410, "offset_gone");
        }
        old = Some(head.next());

        one.delete("s").send().await.expect(204);
        other.head("s").send().await.expect(404);
        other.get("s").send().await.refused(404, "stream_not_found");
        other.post("s").body(&content_type, "late").send().await.refused(404, "stream_not_found");
        other.delete("s").send().await.refused(404, "stream_not_found");
    }
}

#[tokio::test]
async fn a_producers_retry_through_the_other_is_the_same_append() {
    let pair = Pair::start().await;
    pair.a.client.create("s", "text/plain").await;
    for (round, one, other) in both_ways(&pair) {
        let seq = u64::try_from(round).unwrap();
        let append =
            |client: &Client, epoch, seq| client.post("s").text(format!("{seq},")).producer("p", epoch, seq).send();
        append(one, 1, seq).await.expect(200);
        let again = append(other, 1, seq).await.expect(204);
        assert_eq!(again.header("producer-seq"), Some(seq.to_string().as_str()));
        let gap = append(other, 1, seq + 2).await.refused(409, "producer_gap");
        assert_eq!(gap.header("producer-expected-seq"), Some((seq + 1).to_string().as_str()));
        append(other, 0, seq + 1).await.refused(403, "stale_epoch");
    }
    let expected: String = (0..ROUNDS).map(|round| format!("{round},")).collect();
    assert_eq!(pair.b.client.read("s").await, expected);
}

#[tokio::test]
async fn a_close_through_one_holds_for_the_other_at_once() {
    let pair = Pair::start().await;
    for (round, one, other) in both_ways(&pair) {
        let stream = format!("s{round}");
        one.create(&stream, "text/plain").await;
        other.append(&stream, "a").await;
        let end = one.close(&stream).await;
        let refused = other.post(&stream).text("late").send().await.refused(409, "stream_closed");
        assert_eq!(refused.next(), end);
        assert!(other.get(&stream).send().await.expect(200).is_closed());
        assert_eq!(other.close(&stream).await, end, "to close again is to agree");
        assert_eq!(one.read(&stream).await, "a");
    }
}

#[tokio::test]
async fn of_two_creates_at_once_one_creates_and_the_other_agrees_or_conflicts() {
    let pair = Pair::start().await;
    for (round, one, other) in both_ways(&pair) {
        let (same, different) = (format!("same-{round}"), format!("different-{round}"));
        let put = |client: &Client, stream: &str, content_type| client.put(stream).body(content_type, "x").send();
        let (first, second) = join(put(one, &same, "text/a"), put(other, &same, "text/a")).await;
        assert_eq!(sorted([first.status, second.status]), [200, 201]);
        assert_eq!(first.next(), second.next());
        assert_eq!(one.read(&same).await, "x", "the first content is there once");
        let (first, second) = join(put(one, &different, "text/a"), put(other, &different, "text/b")).await;
        assert_eq!(sorted([first.status, second.status]), [201, 409]);
    }
}

#[tokio::test]
async fn of_writers_with_the_same_stream_seq_exactly_one_is_taken() {
    let pair = Pair::start().await;
    pair.a.client.create("s", "text/plain").await;
    for (round, one, other) in both_ways(&pair) {
        let seq = format!("{round:04}");
        let append = |client: &Client| client.post("s").text(".").header("stream-seq", &seq).send();
        let answers = join_all([append(one), append(other), append(one), append(other)]).await;
        let taken = answers.iter().filter(|answer| answer.status == 204).count();
        assert_eq!(taken, 1, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| answer.status == 204 || answer.status == 409));
    }
    assert_eq!(pair.b.client.read("s").await.len(), ROUNDS);
}

#[tokio::test]
async fn live_readers_of_both_see_one_sequence_while_both_write() {
    const WRITERS: usize = 8;
    const EACH: usize = 400;
    let pair = Pair::start().await;
    let pods = [&pair.a.client, &pair.b.client];
    pair.a.client.create("s", "application/json").await;
    let writers = (0..WRITERS).map(|writer| {
        let client = pods[writer % 2];
        async move {
            for n in 0..EACH {
                let ask = client.post("s").json(format!("\"{writer}.{n}\""));
                // Half of the writers are producers, so that both kinds of condition meet.
                if writer >= WRITERS / 2 {
                    let seq = u64::try_from(n).unwrap();
                    ask.producer(&format!("p{writer}"), 0, seq).send().await.expect(200);
                } else {
                    ask.send().await.expect(204);
                }
            }
        }
    });
    let readers = pods.map(|client| async move {
        let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Json).await;
        reader.until_closed().await;
        reader.text().to_owned()
    });
    let writes = async {
        join_all(writers).await;
        pair.b.client.close("s").await;
    };
    let ((), seen) = join(writes, join_all(readers)).await;

    assert_eq!(seen[0], seen[1]);
    let messages: Vec<&str> = seen[0].split(',').collect();
    assert_eq!(messages.len(), WRITERS * EACH);
    assert_eq!(messages.iter().collect::<HashSet<_>>().len(), messages.len());
    for writer in 0..WRITERS {
        let own = messages.iter().filter(|text| text.starts_with(&format!("\"{writer}.")));
        let in_order = (0..EACH).map(|n| format!("\"{writer}.{n}\""));
        assert!(own.zip(in_order).all(|(seen, sent)| **seen == sent), "writer {writer} in its own order");
    }
    eventually("nobody reads any more", || async {
        pods[0].metric("tailwater_live_readers").await + pods[1].metric("tailwater_live_readers").await == 0.0
    })
    .await;
    assert!(pair.store.sessions.counts().opened >= 2, "each gateway has a session of its own");
}

#[tokio::test]
async fn a_reader_of_one_is_told_of_a_deletion_through_the_other() {
    let pair = Pair::start().await;
    pair.a.client.create("s", "text/plain").await;
    let mut reader = pair.b.client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    pair.a.client.append("s", "last").await;
    reader.until_data("last").await;
    pair.a.client.delete("s").send().await.expect(204);
    let events = reader.until_end().await;
    assert!(matches!(events.as_slice(), [tailwater_testkit::sse::DurableEvent::Gone]), "{events:?}");
}

#[tokio::test]
async fn a_fork_made_through_one_reads_the_same_through_the_other() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.client, &pair.b.client);
    a.put("s").text("abc").send().await.expect(201);
    b.put("f").header("stream-forked-from", "/v1/stream/s").send().await.expect(201);
    a.append("f", "d").await;
    b.append("s", "x").await;
    assert_eq!((a.read("f").await.as_str(), b.read("f").await.as_str()), ("abcd", "abcd"));
    b.delete("s").send().await.expect(204);
    a.get("s").send().await.refused(410, "stream_deleted");
    assert_eq!(a.read("f").await, "abcd");
    a.delete("f").send().await.expect(204);
    eventually("the source goes", || async { b.head("s").send().await.status == 404 }).await;
}

fn sorted(mut statuses: [u16; 2]) -> [u16; 2] {
    statuses.sort_unstable();
    statuses
}
