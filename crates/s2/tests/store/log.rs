//! The semantics of the log: conditions, fencing, trims, reads and sessions.

use bytes::Bytes;
use futures_util::future::join_all;
use tailwater_log::{Command, Header, MAX_BATCH_BYTES, NewRecord};
use tailwater_upstream::{Append, AppendError, Fate, ReadError, ReadFrom, StreamKey, Upstream as _};

use crate::harness::{Follower, Harness, bodies, eventually, key, message, messages};

fn with_token(token: &str, append: Append) -> Append {
    Append { token: Some(token.to_owned()), ..append }
}

fn at(seq: u64, append: Append) -> Append {
    Append { match_seq: Some(seq), ..append }
}

#[tokio::test]
async fn creation_is_a_compare_and_swap() {
    let h = Harness::start().await;
    let open = || at(0, Append::new(vec![message("open"), NewRecord::fence("o.1")]));
    let ack = h.append(&key(), open()).await.unwrap();
    assert_eq!((ack.start.seq, ack.end.seq), (0, 2));
    let second = h.append(&key(), open()).await.unwrap_err();
    assert!(matches!(second, AppendError::SeqMismatch { actual: 2 }), "{second:?}");
    assert_eq!(second.fate(), Fate::NotAppended);
}

#[tokio::test]
async fn an_append_with_another_token_learns_the_one_in_force() {
    let h = Harness::start().await;
    h.append(&key(), with_token("", messages(&["native"]))).await.unwrap();
    h.append(&key(), with_token("", Append::new(vec![NewRecord::fence("o.1")]))).await.unwrap();
    h.append(&key(), with_token("o.1", messages(&["ours"]))).await.unwrap();
    let refused = h.append(&key(), with_token("o.2", messages(&["theirs"]))).await.unwrap_err();
    assert!(matches!(&refused, AppendError::TokenMismatch { actual } if actual == "o.1"), "{refused:?}");
    assert_eq!(bodies(&h.read(&key(), 2).await), ["ours"]);
}

#[tokio::test]
async fn a_close_and_its_fence_land_together_or_not_at_all() {
    let h = Harness::start().await;
    h.append(&key(), Append::new(vec![message("open"), NewRecord::fence("o.1")])).await.unwrap();
    let close = || Append::new(vec![message("close"), NewRecord::fence("c.1")]);
    let elsewhere = h.append(&key(), at(9, with_token("o.1", close()))).await.unwrap_err();
    assert!(matches!(elsewhere, AppendError::SeqMismatch { actual: 2 }), "{elsewhere:?}");
    assert_eq!(h.read(&key(), 2).await, [], "no part of a refused batch lands");
    h.append(&key(), with_token("o.1", close())).await.unwrap();
    let late = h.append(&key(), with_token("o.1", messages(&["late"]))).await.unwrap_err();
    assert!(matches!(&late, AppendError::TokenMismatch { actual } if actual == "c.1"), "{late:?}");
}

#[tokio::test]
async fn a_trimmed_stream_opened_again_goes_on_counting() {
    let h = Harness::start().await;
    h.append(&key(), Append::new(vec![message("open"), NewRecord::fence("o.1")])).await.unwrap();
    h.append(&key(), messages(&["a", "b", "c"])).await.unwrap();
    let gone = Append::new(vec![message("gone"), NewRecord::fence("g.1"), NewRecord::trim(8)]);
    assert_eq!(h.append(&key(), with_token("o.1", gone)).await.unwrap().end.seq, 8);
    eventually("the stream is empty", || async { h.read(&key(), 0).await.is_empty() }).await;
    assert_eq!(h.upstream.check_tail(&key()).await.unwrap().seq, 8);
    let open = Append::new(vec![message("open again"), NewRecord::fence("o.2")]);
    let ack = h.append(&key(), at(8, with_token("g.1", open))).await.unwrap();
    assert_eq!(ack.start.seq, 8);
    assert_eq!(h.read(&key(), 0).await[0].seq, 8, "what was trimmed does not come back");
}

#[tokio::test]
async fn a_read_below_the_trim_point_starts_at_the_first_record_left() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a", "b", "c"])).await.unwrap();
    h.append(&key(), Append::new(vec![NewRecord::trim(2)])).await.unwrap();
    eventually("the trim is done", || async { h.read(&key(), 0).await[0].seq == 2 }).await;
    assert_eq!(h.read(&key(), 1).await[0].seq, 2);
}

#[tokio::test]
async fn a_unary_read_ends_at_the_tail_and_at_its_limit() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a", "b", "c"])).await.unwrap();
    let read = async |from, limit| h.upstream.read(&key(), from, limit).await.unwrap().records;
    assert_eq!(bodies(&read(ReadFrom::Seq(0), 2).await), ["a", "b"]);
    assert_eq!(bodies(&read(ReadFrom::TailOffset(1), 10).await), ["c"]);
    assert_eq!(bodies(&read(ReadFrom::TailOffset(1000), 10).await), ["a", "b", "c"], "a short stream from its start");
    assert_eq!(read(ReadFrom::TailOffset(0), 10).await, []);
    assert_eq!(read(ReadFrom::Seq(3), 10).await, [], "at the tail");
    assert_eq!(read(ReadFrom::Seq(4), 10).await, [], "beyond the tail");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_not_created_by_looking() {
    let h = Harness::start().await;
    let look = async || {
        assert!(matches!(h.upstream.read(&key(), ReadFrom::Seq(0), 10).await, Err(ReadError::NotFound)));
        assert!(matches!(h.upstream.check_tail(&key()).await, Err(ReadError::NotFound)));
        assert!(matches!(h.upstream.read_session(&key(), 0).await, Err(ReadError::NotFound)));
    };
    look().await;
    let sibling = StreamKey::new("project", "sibling");
    h.append(&sibling, messages(&["the basin exists now"])).await.unwrap();
    look().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_make_a_stream_at_once_none_is_told_that_there_is_none() {
    let h = Harness::start().await;
    for stream in 0..30 {
        let key = StreamKey::new("project", &format!("s{stream}"));
        let look = join_all((0..8).map(|_| h.upstream.check_tail(&key)));
        let append = join_all((0..8).map(|_| h.append(&key, messages(&["a"]))));
        let (_, appended) = tokio::join!(look, append);
        let refused: Vec<_> = appended.into_iter().filter_map(Result::err).collect();
        assert!(refused.is_empty(), "{stream}: {refused:?}");
        assert_eq!(h.read(&key, 0).await.len(), 8);
    }
}

#[tokio::test]
async fn a_session_refused_on_a_missing_stream_opens_after_the_first_append() {
    let h = Harness::start().await;
    assert!(matches!(h.upstream.read_session(&key(), 0).await, Err(ReadError::NotFound)));
    h.append(&key(), messages(&["first"])).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(1).await;
    assert_eq!(bodies(&follower.records), ["first"]);
}

#[tokio::test]
async fn a_session_yields_commands_and_says_when_it_has_caught_up() {
    let h = Harness::start().await;
    h.append(&key(), Append::new(vec![message("open"), NewRecord::fence("o.1")])).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(2).await;
    assert_eq!(follower.records[1].command(), Some(Command::Fence("o.1".to_owned())));

    let ack = h.append(&key(), Append::new(vec![message("live"), NewRecord::trim(1)])).await.unwrap();
    follower.until_caught_up_at(4).await;
    assert_eq!(follower.seqs(), [0, 1, 2, 3]);
    assert_eq!(follower.records[3].command(), Some(Command::Trim(1)));
    assert_eq!(follower.tails.last(), Some(&ack.end));
}

#[tokio::test]
async fn a_session_at_the_tail_has_caught_up_with_nothing_to_yield() {
    let h = Harness::start().await;
    let ack = h.append(&key(), messages(&["a", "b"])).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 2).await.unwrap());
    follower.until_caught_up_at(2).await;
    assert_eq!(follower.records, []);
    assert_eq!(follower.tails, [ack.end]);
}

#[tokio::test]
async fn a_session_resumes_where_another_ended() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a", "b", "c"])).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 1).await.unwrap());
    follower.until_caught_up_at(3).await;
    assert_eq!(bodies(&follower.records), ["b", "c"]);
}

#[tokio::test]
async fn a_session_beyond_the_tail_has_lost_its_log() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a"])).await.unwrap();
    assert!(matches!(h.upstream.read_session(&key(), 2).await, Err(ReadError::NotFound)));
}

#[tokio::test]
async fn headers_and_bodies_come_back_as_they_went() {
    let h = Harness::start().await;
    let header = |name: &'static [u8], value: &'static [u8]| Header {
        name: Bytes::from_static(name),
        value: Bytes::from_static(value),
    };
    let headers = vec![header(b"k", b""), header(b"\xff", b"\0\xfe"), header(b"k", b"again")];
    let sent = NewRecord { headers, body: Bytes::from_static(b"\0\xff") };
    let ack = h.append(&key(), Append::new(vec![sent.clone(), NewRecord::default()])).await.unwrap();
    let read = h.read(&key(), 0).await;
    assert_eq!(read, [sent.at(0, ack.start.timestamp), NewRecord::default().at(1, ack.end.timestamp)]);
}

#[tokio::test]
async fn the_records_of_a_batch_share_the_time_of_its_ack() {
    let h = Harness::start().await;
    let mut last = 0;
    for _ in 0..3 {
        let ack = h.append(&key(), messages(&["a", "b", "c"])).await.unwrap();
        let times: Vec<u64> = h.read(&key(), ack.start.seq).await.iter().map(|r| r.timestamp).collect();
        assert_eq!(times, [ack.start.timestamp; 3]);
        assert_eq!(ack.end.timestamp, ack.start.timestamp);
        assert_eq!(h.upstream.check_tail(&key()).await.unwrap(), ack.end);
        assert!(ack.start.timestamp >= last, "time does not go back");
        last = ack.start.timestamp;
    }
}

#[tokio::test]
async fn a_batch_of_exactly_a_mebibyte_is_taken_and_one_byte_more_is_not() {
    let h = Harness::start().await;
    let header = Header { name: Bytes::from_static(b"name"), value: Bytes::from_static(b"value") };
    let filled = |size: usize| {
        let mut last = NewRecord { headers: vec![header.clone()], body: Bytes::new() };
        let rest = size - message("first").metered_bytes() - last.metered_bytes();
        last.body = vec![b'x'; rest].into();
        Append::new(vec![message("first"), last])
    };
    let full = filled(MAX_BATCH_BYTES);
    assert_eq!(full.metered_bytes(), MAX_BATCH_BYTES);
    assert_eq!(h.append(&key(), full).await.unwrap().end.seq, 2);
    let over = h.append(&key(), filled(MAX_BATCH_BYTES + 1)).await.unwrap_err();
    assert!(matches!(over, AppendError::Refused { .. }), "{over:?}");
    assert_eq!(h.metric("tailwater_upstream_append_bytes_total"), MAX_BATCH_BYTES as f64);
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a", "bc"])).await.unwrap();
    h.append(&key(), at(0, messages(&["late"]))).await.unwrap_err();
    h.read(&key(), 0).await;
    h.upstream.check_tail(&key()).await.unwrap();
    let session = h.upstream.read_session(&key(), 0).await.unwrap();
    assert_eq!(h.metric("tailwater_upstream_read_sessions"), 1.0);
    drop(session);
    assert_eq!(h.metric("tailwater_upstream_read_sessions"), 0.0);
    assert_eq!(h.metric("tailwater_upstream_appends_total"), 1.0);
    assert_eq!(h.metric("tailwater_upstream_append_records_total"), 2.0);
    assert_eq!(h.metric("tailwater_upstream_append_bytes_total"), 19.0);
    assert_eq!(h.metric("tailwater_upstream_reads_total"), 1.0);
    assert_eq!(h.metric("tailwater_upstream_tail_checks_total"), 1.0);
    assert_eq!(h.metric("tailwater_upstream_errors_total"), 1.0);
}
