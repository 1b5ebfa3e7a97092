//! Basins: made on the first append, looked at when somebody else made them; and what is listed from them.

use std::net::SocketAddr;

use s2_sdk::{
    S2,
    types::{BasinConfig, CreateBasinInput, RetentionPolicy, S2Config, S2Endpoints, StreamConfig, TimestampingMode},
};
use tailwater_s2::{EmbeddedStoreConfig, Exposure, Placement, S2Upstream, Storage, UnfitBasin};
use tailwater_upstream::{AppendError, StreamKey, Upstream as _};

use crate::harness::{Harness, Proxy, bodies, eventually, key, messages, meter, upstream_to};

const BASIN: &str = "tailwater-project";

/// S2's own client, for what the gateway never does.
fn native(h: &Harness) -> S2 {
    let url = format!("http://{}", h.addr());
    let config = S2Config::new(h.store.token().reveal())
        .with_endpoints(S2Endpoints::for_endpoint(&url).unwrap())
        .with_insecure_skip_cert_verification(true);
    S2::new(config).unwrap()
}

async fn create(h: &Harness, config: BasinConfig) {
    native(h).create_basin(CreateBasinInput::new(BASIN.parse().unwrap()).with_config(config)).await.unwrap();
}

fn unfit(error: &AppendError) -> Option<&UnfitBasin> {
    let AppendError::Refused { cause } = error else { return None };
    cause.downcast_ref()
}

#[tokio::test]
async fn the_first_append_makes_a_basin_that_keeps_what_it_is_given() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["first"])).await.unwrap();
    let config = native(&h).get_basin_config(BASIN.parse().unwrap()).await.unwrap();
    let stream = config.default_stream_config.unwrap();
    assert_eq!(stream.retention_policy, Some(RetentionPolicy::Infinite));
    assert_eq!(stream.timestamping.unwrap().mode, Some(TimestampingMode::Arrival));
    assert_eq!(stream.delete_on_empty.unwrap().min_age_secs, 24 * 60 * 60);
    assert!(config.create_stream_on_append);
    assert!(!config.create_stream_on_read);
}

#[tokio::test]
async fn many_first_appends_at_once_all_land() {
    let h = Harness::start().await;
    let appends = (0..32).map(|i| {
        let upstream = h.upstream.clone();
        async move { upstream.append(&StreamKey::new("project", &format!("s{}", i % 4)), messages(&["x"])).await }
    });
    for result in futures_util::future::join_all(appends).await {
        result.unwrap();
    }
    let mut total = 0;
    for i in 0..4 {
        total += h.upstream.check_tail(&StreamKey::new("project", &format!("s{i}"))).await.unwrap().seq;
    }
    assert_eq!(total, 32);
}

#[tokio::test]
async fn a_basin_whose_records_expire_is_not_written_to() {
    let h = Harness::start().await;
    let stream = StreamConfig::new().with_retention_policy(RetentionPolicy::Age(3600));
    let config = BasinConfig::new().with_default_stream_config(stream).with_create_stream_on_append(true);
    create(&h, config.clone()).await;
    let refused = h.append(&key(), messages(&["x"])).await.unwrap_err();
    let expected = UnfitBasin::FiniteRetention { basin: BASIN.to_owned(), seconds: 3600 };
    assert_eq!(unfit(&refused), Some(&expected), "{refused:?}");
    let after = native(&h).get_basin_config(BASIN.parse().unwrap()).await.unwrap();
    let retention = after.default_stream_config.and_then(|c| c.retention_policy);
    assert_eq!(retention, Some(RetentionPolicy::Age(3600)), "what somebody configured stays as it is");
}

#[tokio::test]
async fn a_basin_whose_records_expire_is_written_to_on_request() {
    let h = Harness::start().await;
    create(&h, BasinConfig::new().with_create_stream_on_append(true)).await;
    let mut config = h.store.upstream_config(crate::harness::placement());
    config.accept_finite_retention = true;
    let upstream = S2Upstream::new(config, meter().1).unwrap();
    assert_eq!(upstream.append(&key(), messages(&["x"])).await.unwrap().end.seq, 1);
}

#[tokio::test]
async fn a_basin_that_creates_no_streams_is_named_as_the_reason() {
    let h = Harness::start().await;
    let stream = StreamConfig::new().with_retention_policy(RetentionPolicy::Infinite);
    create(&h, BasinConfig::new().with_default_stream_config(stream)).await;
    let refused = h.append(&key(), messages(&["x"])).await.unwrap_err();
    assert_eq!(unfit(&refused), Some(&UnfitBasin::NoCreateOnAppend { basin: BASIN.to_owned() }), "{refused:?}");
}

#[tokio::test]
async fn a_basin_that_went_missing_is_made_again() {
    let shown = || {
        let mut config = EmbeddedStoreConfig::new(Storage::Memory);
        config.expose = Some(Exposure { addr: SocketAddr::from(([127, 0, 0, 1], 0)), token: None });
        config
    };
    let before = Harness::with(shown()).await;
    let proxy = Proxy::to(before.store.exposed_addr().unwrap()).await;
    let upstream = upstream_to(&format!("http://{}", proxy.addr));
    upstream.append(&key(), messages(&["before"])).await.unwrap();
    // The basin that the upstream knows of is not in the store that takes the other's place.
    let after = Harness::with(shown()).await;
    proxy.target.send_replace(after.store.exposed_addr().unwrap());
    before.store.shutdown().await.unwrap();
    eventually("an append lands again", || async {
        match upstream.append(&key(), messages(&["after"])).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                false
            }
        }
    })
    .await;
    assert_eq!(bodies(&after.read(&key(), 0).await), ["after"]);
}

#[tokio::test]
async fn streams_are_listed_by_project_prefix_and_page() {
    let h = Harness::start().await;
    let shared = Placement::shared("everything", "tw/").unwrap();
    let shared = h.store.upstream(shared, meter().1).unwrap();
    for upstream in [&h.upstream, &shared] {
        assert_eq!(upstream.list("p", "", "", 10).await.unwrap(), [""; 0], "an unknown project has no streams");
        for (project, stream) in [("p", "a/1"), ("p", "a/2"), ("p", "a/3"), ("p", "b"), ("px", "a/4"), ("P", "a/5")] {
            upstream.append(&StreamKey::new(project, stream), messages(&["x"])).await.unwrap();
        }
        assert_eq!(upstream.list("p", "", "", 10).await.unwrap(), ["a/1", "a/2", "a/3", "b"]);
        assert_eq!(upstream.list("p", "a/", "", 2).await.unwrap(), ["a/1", "a/2"]);
        assert_eq!(upstream.list("p", "a/", "a/2", 2).await.unwrap(), ["a/3"]);
        assert_eq!(upstream.list("p", "b", "a/1", 2).await.unwrap(), ["b"]);
        assert_eq!(upstream.list("P", "", "", 10).await.unwrap(), ["a/5"]);
        assert_eq!(upstream.list("p", "", "", 0).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn projects_that_share_a_basin_do_not_share_streams() {
    let h = Harness::start().await;
    let upstream = h.store.upstream(Placement::shared("everything", "").unwrap(), meter().1).unwrap();
    for project in ["one", "two"] {
        let ack = upstream.append(&StreamKey::new(project, "s"), messages(&[project])).await.unwrap();
        assert_eq!(ack.start.seq, 0);
    }
}

#[tokio::test]
async fn a_project_too_many_is_refused_and_those_that_are_there_go_on() {
    let h = Harness::start().await;
    let placement = Placement::basin_per_project("tailwater").unwrap();
    let mut config = h.store.upstream_config(placement);
    config.max_projects = 2;
    let upstream = S2Upstream::new(config, meter().1).unwrap();
    for project in ["a", "b"] {
        upstream.append(&StreamKey::new(project, "s"), messages(&["x"])).await.unwrap();
    }
    let third = StreamKey::new("c", "s");
    let refused = upstream.append(&third, messages(&["x"])).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooManyProjects { limit: 2 }), "{refused:?}");
    assert!(!refused.is_retryable());
    assert!(matches!(upstream.check_tail(&third).await, Err(tailwater_upstream::ReadError::NotFound)));
    upstream.append(&StreamKey::new("a", "other"), messages(&["x"])).await.unwrap();
}
