//! Stores that are away, or do not answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tailwater_log::{MAX_BATCH_BYTES, NewRecord};
use tailwater_s2::{Endpoint, NamingError, Placement, S2Upstream, S2UpstreamConfig, S2UpstreamError};
use tailwater_upstream::{Append, AppendError, Fate, ReadError, ReadFrom, StreamKey, Upstream as _};
use tokio::{net::TcpSocket, time::timeout};

use crate::harness::{Harness, PATIENCE, Proxy, bodies, config_to, eventually, key, messages, meter, upstream_to};

/// An address where nobody listens, for as long as the socket is held.
fn nowhere() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

#[tokio::test]
async fn a_store_that_is_away_has_appended_nothing() {
    let (_socket, url) = nowhere();
    let upstream = upstream_to(&url);
    let append = timeout(PATIENCE, upstream.append(&key(), messages(&["a"]))).await.unwrap().unwrap_err();
    assert!(matches!(append, AppendError::Unavailable { fate: Fate::NotAppended, .. }), "{append:?}");
    let read = timeout(PATIENCE, upstream.read(&key(), ReadFrom::Seq(0), 1)).await.unwrap().unwrap_err();
    assert!(matches!(read, ReadError::Unavailable { .. }), "{read:?}");
    let tail = timeout(PATIENCE, upstream.check_tail(&key())).await.unwrap().unwrap_err();
    assert!(matches!(tail, ReadError::Unavailable { .. }), "{tail:?}");
    let ready = upstream.ready(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(ready, ReadError::Unavailable { .. }), "{ready:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_connect_does_not_wait_for_ever() {
    let (_socket, url) = nowhere();
    let upstream = upstream_to(&url);
    let session = timeout(PATIENCE, upstream.read_session(&key(), 0)).await.unwrap().err().unwrap();
    assert!(matches!(session, ReadError::Unavailable { .. }), "{session:?}");
}

#[tokio::test]
async fn an_append_goes_out_again_once_the_store_is_there() {
    let h = Harness::start().await;
    assert!(h.upstream.ready(PATIENCE).await.is_ok());
    let (_socket, nowhere) = nowhere();
    let mut config = config_to(&nowhere);
    let away = S2Upstream::new(config.clone(), meter().1).unwrap();
    assert!(away.append(&key(), messages(&["a"])).await.unwrap_err().is_retryable());
    config.endpoint = h.store.endpoint();
    config.token = h.store.token().clone();
    let back = S2Upstream::new(config, meter().1).unwrap();
    assert_eq!(back.append(&key(), messages(&["a"])).await.unwrap().start.seq, 0);
}

#[tokio::test]
async fn an_append_without_an_answer_ends_in_time_and_may_have_landed() {
    let h = Harness::start().await;
    let proxy = Proxy::to(h.addr()).await;
    let mut config = config_to(&format!("http://{}", proxy.addr));
    config.token = h.store.token().clone();
    config.append_timeout = Duration::from_secs(2);
    let upstream = S2Upstream::new(config, meter().1).unwrap();
    upstream.append(&key(), messages(&["a"])).await.unwrap();

    proxy.hold.send_replace(true);
    let error = timeout(PATIENCE, upstream.append(&key(), messages(&["b"]))).await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { fate: Fate::Unknown, .. }), "{error:?}");
    eventually("the append is there all the same", || async { h.read(&key(), 0).await.len() == 2 }).await;
    proxy.hold.send_replace(false);
    eventually("appends are answered again", || async { upstream.append(&key(), messages(&["c"])).await.is_ok() })
        .await;
    let read = h.read(&key(), 0).await;
    assert_eq!(bodies(&read)[..2], ["a", "b"]);
    assert_eq!(bodies(&read).iter().filter(|body| **body == "b").count(), 1, "no attempt was repeated");
}

#[tokio::test]
async fn what_s2_would_refuse_is_refused_before_it_is_sent() {
    let (_socket, url) = nowhere();
    let upstream = upstream_to(&url);
    let over = NewRecord::message(Bytes::from(vec![0; MAX_BATCH_BYTES - 7]));
    assert_eq!(over.metered_bytes(), MAX_BATCH_BYTES + 1);
    let long_token = Append { token: Some("t".repeat(37)), ..messages(&["a"]) };
    let batches =
        [Append::new(vec![over]), Append::new(vec![NewRecord::default(); 1001]), Append::new(vec![]), long_token];
    for append in batches {
        let error = upstream.append(&key(), append).await.unwrap_err();
        assert!(matches!(error, AppendError::Refused { .. }), "{error:?}");
    }
    for key in
        [StreamKey::new("pro/ject", "s"), StreamKey::new("project", ".."), StreamKey::new("project", &"x".repeat(513))]
    {
        let AppendError::Refused { cause } = upstream.append(&key, messages(&["a"])).await.unwrap_err() else {
            panic!("{key} was not refused")
        };
        assert!(cause.is::<NamingError>());
        assert!(matches!(upstream.check_tail(&key).await, Err(ReadError::Refused { .. })));
    }
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused_at_once() {
    let placement = Placement::basin_per_project("tailwater").unwrap();
    let config = S2UpstreamConfig::new(Endpoint::Url("http://not a host".to_owned()), "t".into(), placement);
    let refused = S2Upstream::new(config, meter().1).err().unwrap();
    assert!(matches!(refused, S2UpstreamError::Endpoint { .. }), "{refused:?}");
    let shared = Arc::new(refused);
    assert!(shared.to_string().contains("not a host"));
}
