//! `GET` without `live`.

use tailwater_fanout::Config as FanoutConfig;

use crate::fixture::{Answer, Fixture};

const PATH: &str = "/v1/stream/s";
const CACHEABLE: &str = "public, max-age=60, stale-while-revalidate=300";

fn flags(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("stream-up-to-date"), answer.header("stream-closed"))
}

async fn get(fixture: &Fixture, query: &str) -> Answer {
    fixture.get(&format!("{PATH}?{query}")).await
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_from_every_offset_without_loss_or_repeat() {
    let fixture = Fixture::new();
    let mut offsets = vec![fixture.put(PATH, "text/plain", "").await.header("stream-next-offset").to_owned()];
    for part in ["a", "b", "c"] {
        offsets.push(fixture.post(PATH, "text/plain", part).await);
    }
    assert!(offsets.is_sorted_by(|a, b| a < b));
    for (offset, rest) in offsets.iter().zip(["abc", "bc", "c", ""]) {
        let read = get(&fixture, &format!("offset={offset}&unknown=1")).await;
        assert_eq!((flags(&read), &read.body[..]), ((200, "true", ""), rest.as_bytes()));
        assert_eq!(read.header("stream-next-offset"), offsets[3]);
    }
    assert_eq!(get(&fixture, "").await.body, "abc");
    assert_eq!(get(&fixture, "offset=-1").await.body, "abc");
}

#[tokio::test(start_paused = true)]
async fn the_content_type_is_exactly_the_streams_own() {
    let fixture = Fixture::new();
    for content_type in ["text/plain", "APPLICATION/JSON", "text/html; charset=iso-8859-1", "image/png"] {
        let path = format!("/v1/stream/{}", content_type.len());
        fixture.put(&path, content_type, "").await;
        assert_eq!(fixture.get(&path).await.header("content-type"), content_type);
    }
    fixture.send("PUT", PATH, &[], "\u{1}").await;
    assert_eq!(fixture.get(PATH).await.header("content-type"), "application/octet-stream");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_ends_before_the_tail_says_neither_up_to_date_nor_closed() {
    let fixture = Fixture::with(Default::default(), FanoutConfig { page_bytes: 1, ..FanoutConfig::default() });
    fixture.put(PATH, "application/json", "").await;
    fixture.post(PATH, "application/json", "1").await;
    fixture.post(PATH, "application/json", "2").await;
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    let first = get(&fixture, "offset=-1").await;
    assert_eq!((flags(&first), &first.body[..]), ((200, "", ""), &b"[1]"[..]));
    assert_eq!(first.header("cache-control"), CACHEABLE);
    let last = get(&fixture, &format!("offset={}", first.header("stream-next-offset"))).await;
    assert_eq!((flags(&last), &last.body[..]), ((200, "true", "true"), &b"[2]"[..]));
    let end = get(&fixture, &format!("offset={}", last.header("stream-next-offset"))).await;
    assert_eq!((flags(&end), &end.body[..]), ((200, "true", "true"), &b"[]"[..]));
}

#[tokio::test(start_paused = true)]
async fn now_is_empty_and_never_kept() {
    let fixture = Fixture::new();
    fixture.put(PATH, "application/json", "[1]").await;
    fixture.put("/v1/stream/t", "text/plain", "x").await;
    for (path, body) in [(PATH, "[]"), ("/v1/stream/t", "")] {
        let now = fixture.get(&format!("{path}?offset=now")).await;
        assert_eq!((flags(&now), &now.body[..]), ((200, "true", ""), body.as_bytes()));
        assert_eq!((now.header("cache-control"), now.header("etag")), ("no-store", ""));
        let head = fixture.send("HEAD", path, &[], "").await;
        assert_eq!(now.header("stream-next-offset"), head.header("stream-next-offset"));
    }
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    assert_eq!(flags(&get(&fixture, "offset=now").await), (200, "true", "true"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_has_it_gets_304_until_data_or_closure_come() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "a").await;
    let read = fixture.get(PATH).await;
    assert_eq!(read.header("cache-control"), CACHEABLE);
    let etag = read.header("etag").to_owned();
    let known = async |tags: &str| fixture.send("GET", PATH, &[("if-none-match", tags)], "").await;
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let same = known(&tags).await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, etag.as_str()), "{tags}");
        assert_eq!(same.header("cache-control"), CACHEABLE);
        assert_eq!(same.header("stream-next-offset"), read.header("stream-next-offset"));
    }
    assert_eq!(known("\"x\"").await.status, 200);
    fixture.post(PATH, "text/plain", "b").await;
    let grown = known(&etag).await;
    assert_eq!((grown.status, &grown.body[..]), (200, &b"ab"[..]));
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    let closed = known(grown.header("etag")).await;
    assert_eq!((closed.status, closed.header("stream-closed")), (200, "true"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_at_an_open_tail_is_not_kept() {
    let fixture = Fixture::new();
    let tail = fixture.put(PATH, "text/plain", "a").await.header("stream-next-offset").to_owned();
    let empty = get(&fixture, &format!("offset={tail}")).await;
    assert_eq!((empty.header("cache-control"), empty.header("etag").is_empty()), ("no-store", false));
}

#[tokio::test(start_paused = true)]
async fn an_offset_of_a_deleted_stream_is_gone_and_says_what_is_left() {
    let fixture = Fixture::new();
    let old = fixture.put(PATH, "text/plain", "a").await.header("stream-next-offset").to_owned();
    fixture.send("DELETE", PATH, &[], "").await;
    fixture.upstream.clock().advance(std::time::Duration::from_secs(1));
    fixture.put(PATH, "text/plain", "b").await;
    let gone = get(&fixture, &format!("offset={old}")).await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset_gone"));
    let earliest = gone.header("stream-earliest-offset").to_owned();
    assert_eq!(get(&fixture, &format!("offset={earliest}")).await.body, "b");
}
