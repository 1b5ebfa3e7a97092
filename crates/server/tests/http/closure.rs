//! `POST`: appends, producers, closure.

use crate::fixture::{Answer, Fixture};

const PATH: &str = "/v1/stream/s";
const TEXT: (&str, &str) = ("content-type", "text/plain");

fn producer<'v>(epoch: &'v str, seq: &'v str) -> [(&'static str, &'v str); 4] {
    [("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", seq), TEXT]
}

fn echoed(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("producer-epoch"), answer.header("producer-seq"))
}

#[tokio::test(start_paused = true)]
async fn a_producer_is_answered_with_what_was_accepted() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "").await;
    assert_eq!(echoed(&fixture.send("POST", PATH, &producer("0", "0"), "a").await), (200, "0", "0"));
    assert_eq!(echoed(&fixture.send("POST", PATH, &producer("0", "1"), "b").await), (200, "0", "1"));
    assert_eq!(echoed(&fixture.send("POST", PATH, &producer("0", "0"), "a").await), (204, "0", "1"), "a duplicate");
    let gap = fixture.send("POST", PATH, &producer("0", "5"), "c").await;
    assert_eq!((gap.status, gap.header("producer-expected-seq"), gap.header("producer-received-seq")), (409, "2", "5"));
    assert_eq!(fixture.send("POST", PATH, &producer("1", "1"), "c").await.status, 400);
    assert_eq!(echoed(&fixture.send("POST", PATH, &producer("1", "0"), "c").await), (200, "1", "0"));
    assert_eq!(echoed(&fixture.send("POST", PATH, &producer("0", "2"), "x").await), (403, "1", ""));
    assert_eq!(fixture.get(PATH).await.body, "abc");
}

#[tokio::test(start_paused = true)]
async fn a_stream_seq_is_compared_byte_by_byte() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "").await;
    for (seq, status) in [("09", 204), ("10", 204), ("10", 409), ("2", 204), ("10", 409), ("a", 204), ("B", 409)] {
        let answer = fixture.send("POST", PATH, &[TEXT, ("stream-seq", seq)], "x").await;
        assert_eq!(answer.status, status, "{seq}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_data_needs_no_content_type_and_can_be_repeated() {
    for spelling in ["true", "TRUE"] {
        let fixture = Fixture::new();
        let tail = fixture.put(PATH, "text/plain", "a").await.header("stream-next-offset").to_owned();
        for _ in 0..2 {
            let closed = fixture.send("POST", PATH, &[("stream-closed", spelling), ("content-type", "x")], "").await;
            assert_eq!((closed.status, closed.header("stream-closed")), (204, "true"));
            assert_eq!(closed.header("stream-next-offset"), tail);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_closed_takes_nothing_and_says_where_it_ends_before_all_else() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "a").await;
    let closed = fixture.send("POST", PATH, &[TEXT, ("stream-closed", "true")], "b").await;
    assert_eq!((closed.status, closed.header("stream-closed")), (204, "true"));
    let end = closed.header("stream-next-offset").to_owned();
    for headers in [&[TEXT][..], &[("content-type", "image/png")], &[TEXT, ("stream-closed", "true")]] {
        let late = fixture.send("POST", PATH, headers, "c").await;
        assert_eq!((late.status, late.code().as_str()), (409, "stream_closed"));
        assert_eq!((late.header("stream-closed"), late.header("stream-next-offset")), ("true", end.as_str()));
    }
    assert_eq!(fixture.get(PATH).await.body, "ab");
}

#[tokio::test(start_paused = true)]
async fn closure_is_part_of_the_configuration() {
    let fixture = Fixture::new();
    let close = ("stream-closed", "true");
    let created = fixture.send("PUT", PATH, &[TEXT, close], "all").await;
    assert_eq!((created.status, created.header("stream-closed")), (201, "true"));
    assert_eq!(fixture.send("PUT", PATH, &[TEXT, close], "").await.status, 200);
    assert_eq!(fixture.send("PUT", PATH, &[TEXT], "").await.code(), "closed_conflict");
    fixture.put("/v1/stream/open", "text/plain", "").await;
    assert_eq!(fixture.send("PUT", "/v1/stream/open", &[TEXT, close], "").await.code(), "closed_conflict");
    for value in ["false", "yes", "1", ""] {
        let open = fixture.send("PUT", "/v1/stream/open", &[TEXT, ("stream-closed", value)], "").await;
        assert_eq!((open.status, open.header("stream-closed")), (200, ""), "{value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_close_of_a_producer_can_be_retried_by_it_alone() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "").await;
    let close = |seq| [&producer("0", seq)[..], &[("stream-closed", "true")]].concat();
    let closed = fixture.send("POST", PATH, &close("0"), "end").await;
    assert_eq!((echoed(&closed), closed.header("stream-closed")), ((200, "0", "0"), "true"));
    let retried = fixture.send("POST", PATH, &close("0"), "other").await;
    assert_eq!((echoed(&retried), retried.header("stream-closed")), ((204, "0", "0"), "true"));
    assert_eq!(fixture.send("POST", PATH, &close("1"), "x").await.code(), "stream_closed");
    assert_eq!(fixture.get(PATH).await.body, "end");
}
