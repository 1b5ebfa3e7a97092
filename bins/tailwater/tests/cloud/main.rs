//! The program on what looks like managed S2: TLS, a sub-domain for each basin, a token, a limit on the rate.
//!
//! What answers is a real store behind a front of the test's own ([`front`]); [`gateway`] is the program on it. The
//! service itself was never asked.

#![allow(clippy::unwrap_used, reason = "what is missing in a test is a failed test")]

mod front;
mod gateway;

use crate::{
    front::{ACCOUNT, Front, Mood, TOKEN, authority},
    gateway::{Gateway, Trust},
};

/// Two names of basins that are addresses of this machine, too (see [`front`]).
const BASIN: &str = "0x0000000000007f";
const OTHER_BASIN: &str = "00000000000177";

#[tokio::test]
async fn streams_are_written_read_and_followed_through_the_sub_domain_of_their_basin() {
    let front = Front::start().await;
    let gateway = Gateway::start(&front, BASIN, TOKEN, &Trust::Front).await;
    gateway.send("PUT", "s", "first ").await.expect(201);
    let mut reader = gateway.follow("s").await;
    reader.until("first ").await;
    gateway.send("POST", "s", "second").await.expect(204);
    reader.until("second").await;
    assert_eq!(gateway.send("GET", "s", "").await.expect(200).body, "first second");
    assert_eq!(gateway.path("/readyz").await.status, 200);

    let seen = front.seen();
    assert!(seen.iter().any(|request| request.name == BASIN && request.path.ends_with("/records")));
    for request in seen {
        let of_the_account = request.path.starts_with("/v1/basins");
        assert_eq!(request.name, if of_the_account { ACCOUNT } else { BASIN }, "{request:?}");
        assert_eq!(request.host, authority(&request.name, front.port), "{request:?}");
        assert_eq!(request.authorization.as_deref(), Some("Bearer the-token-of-the-account"), "{request:?}");
    }
    assert!(gateway.log().contains("TRACE") && !gateway.log().contains(TOKEN), "the token is for the store alone");
}

#[tokio::test]
async fn each_basin_is_a_place_of_its_own() {
    let front = Front::start().await;
    let one = Gateway::start(&front, BASIN, TOKEN, &Trust::Front).await;
    let other = Gateway::start(&front, OTHER_BASIN, TOKEN, &Trust::Front).await;
    one.send("PUT", "s", "one").await.expect(201);
    other.send("GET", "s", "").await.expect(404);
    other.send("PUT", "s", "other").await.expect(201);
    assert_eq!(one.send("GET", "s", "").await.body, "one");
    assert_eq!(other.send("GET", "s", "").await.body, "other");
    assert!([BASIN, OTHER_BASIN].iter().all(|basin| front.seen().iter().any(|request| request.name == *basin)));
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_no_fault_of_the_client() {
    let front = Front::start().await;
    let gateway = Gateway::start(&front, BASIN, "of-somebody-else", &Trust::Front).await;
    let refused = gateway.send("PUT", "s", "a").await.expect(502);
    assert!(refused.body.contains("store_refused"), "{refused:?}");
    assert!(!refused.body.contains("of-somebody-else") && !gateway.log().contains("of-somebody-else"));
    assert_ne!(gateway.path("/readyz").await.status, 200);
    assert_eq!(gateway.path("/health").await.status, 200);
}

#[tokio::test]
async fn a_limited_rate_is_503_with_a_time_to_come_back_and_nothing_was_written() {
    let front = Front::start().await;
    let gateway = Gateway::start(&front, BASIN, TOKEN, &Trust::Front).await;
    gateway.send("PUT", "s", "a").await.expect(201);
    front.feel(Mood::Overloaded);
    let limited = gateway.send("POST", "s", "b").await.expect(503);
    let seconds: u64 = limited.retry_after.as_deref().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{limited:?}");
    assert!(limited.body.contains("store_unavailable"), "{limited:?}");
    front.feel(Mood::Open);
    gateway.send("POST", "s", "c").await.expect(204);
    assert_eq!(gateway.send("GET", "s", "").await.body, "ac");
}

#[tokio::test]
async fn a_store_with_a_certificate_of_nobody_known_is_told_nothing() {
    let front = Front::start().await;
    let gateway = Gateway::start(&front, BASIN, TOKEN, &Trust::SomebodyElse).await;
    gateway.send("PUT", "s", "a").await.expect(503);
    assert_ne!(gateway.path("/readyz").await.status, 200);
    assert!(front.seen().is_empty(), "the token was never sent");
}
