//! What a plain `EventSource` gets instead of a refusal that will pass (HTML, section 9.2).
//!
//! Any status but `200` ends an `EventSource` for good, and the page never learns why. So when it is refused for a
//! passing reason, it gets a `200` that tells it when to come back, and ends. Clients of the protocol get the `503` and
//! its `Retry-After`.
//!
//! | client | sends | gets |
//! |---|---|---|
//! | browsers' `EventSource` | `Accept: text/event-stream`, `Cache-Control: no-cache`, later `Last-Event-ID` | `200`, `id:`, `retry:` |
//! | npm `eventsource` 4 | the same, by way of `fetch` with `cache: "no-store"` | `200`, `id:`, `retry:` |
//! | npm `@durable-streams/client` | `Accept: */*` | `503` |
//! | PyPI `durable-streams` | `Accept: text/event-stream` and nothing about caches | `503` |
//! | curl | `Accept: */*` | `503` |
//!
//! One that has no id yet is given one there, so that it does not come back as for the first time: a ticket would be too late
//! after a minute. A browser keeps an id that came without an event (HTML, section 9.2.6). npm `eventsource` 4 does not; with a
//! ticket it is told `401` then, and its page needs a new one.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use tailwater_protocol::{headers, sse};

use crate::{app::Ambient, problem::Problem, quota::SPREAD};

/// The content type of Server-Sent Events. It must have no parameters: clients compare it as a whole.
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What an `EventSource` without an id is given for one. It is no offset, so that the query's counts as before; but by it one
/// that comes back is known to be none that comes for the first time, which a ticket allows for a minute only.
const REFUSED_ID: &[u8] = b"id: refused\n";

/// Marks an answer as a refusal, whatever its status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused;

/// Between these an `EventSource` that was refused comes back.
const REFUSED_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The same where the store is away: it has waited for that here, and is to do so again.
const STORE_AWAY_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1500));

/// The answer to a refused request for Server-Sent Events.
pub(crate) fn refuse(problem: Problem, request: &HeaderMap, ambient: Ambient) -> Response {
    if !problem.is_passing() || !is_event_source(request) {
        return problem.into_response();
    }
    let retry = match problem.room_in() {
        Some(wait) => (wait, wait + SPREAD),
        None if problem.is_of_the_store() => STORE_AWAY_RETRY,
        None => REFUSED_RETRY,
    };
    let told = match request.get(headers::LAST_EVENT_ID) {
        Some(id) if !id.is_empty() => retry_after(ambient, retry),
        Some(_) | None => [REFUSED_ID, &retry_after(ambient, retry)].concat(),
    };
    let mut response = told.into_response();
    if problem.ends_connection() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.extensions_mut().insert(Refused);
    response.headers_mut().insert(header::CONTENT_TYPE, EVENT_STREAM);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A `retry:` line with a jittered time between the two.
pub(crate) fn retry_after(ambient: Ambient, (least, most): (Duration, Duration)) -> Vec<u8> {
    let wait = ambient.between(least, most).as_millis();
    let mut out = Vec::new();
    sse::write_retry(&mut out, u64::try_from(wait).unwrap_or(u64::MAX));
    out
}

pub(crate) fn is_event_source(headers: &HeaderMap) -> bool {
    let mentions = |name: &str, word: &str| {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.into_iter().any(|line| line.to_ascii_lowercase().contains(word))
    };
    let uncached = mentions(header::CACHE_CONTROL.as_str(), "no-cache") || headers.contains_key(headers::LAST_EVENT_ID);
    mentions(header::ACCEPT.as_str(), "text/event-stream") && uncached
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, StatusCode};
    use http_body_util::BodyExt as _;
    use tailwater_fanout::OpError;
    use tailwater_protocol::{BadRequest, ReadQuery};

    use super::*;
    use crate::drain::Draining;

    const AMBIENT: Ambient = Ambient { now_ms: || 0, random: || 500, secret: |_| {} };

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_an_event_source_is_told_to_come_back_in_band() {
        let table: [(&[_], u16); 6] = [
            (&[("accept", "text/event-stream"), ("cache-control", "no-cache")], 200),
            (&[("accept", "text/event-stream"), ("last-event-id", "1")], 200),
            (&[("accept", "TEXT/EVENT-STREAM, */*"), ("cache-control", "max-age=0, No-Cache")], 200),
            (&[("accept", "text/event-stream")], 503),
            (&[("accept", "*/*"), ("cache-control", "no-cache")], 503),
            (&[], 503),
        ];
        for (pairs, status) in table {
            let response = refuse(Draining.into(), &headers(pairs), AMBIENT);
            assert_eq!(response.status(), status, "{pairs:?}");
            assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        }
    }

    #[test]
    fn a_refusal_that_will_not_pass_is_one_for_everybody() {
        let event_source = headers(&[("accept", "text/event-stream"), ("cache-control", "no-cache")]);
        let response = refuse(BadRequest::MissingOffset.into(), &event_source, AMBIENT);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn who_has_waited_for_the_store_comes_back_sooner() {
        let event_source = headers(&[("accept", "text/event-stream"), ("last-event-id", "1")]);
        let told = async |problem: Problem| {
            let body = refuse(problem, &event_source, AMBIENT).into_body();
            body.collect().await.unwrap().to_bytes()
        };
        assert_eq!(told(Draining.into()).await, "retry: 3000\n\n");
        let away = OpError::Unavailable { retry_after: None, cause: None };
        assert_eq!(told(away.into()).await, "retry: 1000\n\n");
    }

    #[tokio::test]
    async fn who_has_no_id_to_come_back_with_gets_one_that_is_no_offset() {
        let table = [(None, true), (Some(""), true), (Some("1"), false), (Some("refused"), false)];
        for (id, gets) in table {
            let mut request = headers(&[("accept", "text/event-stream"), ("cache-control", "no-cache")]);
            if let Some(id) = id {
                request.insert("last-event-id", HeaderValue::from_static(id));
            }
            let told = refuse(Draining.into(), &request, AMBIENT).into_body().collect().await.unwrap().to_bytes();
            let wanted = if gets { "id: refused\nretry: 3000\n\n" } else { "retry: 3000\n\n" };
            assert_eq!(told, wanted, "{id:?}");
        }
        let query = "offset=now&live=sse";
        assert_eq!(ReadQuery::parse(Some(query), Some("refused")), ReadQuery::parse(Some(query), None));
    }

    #[test]
    fn the_time_to_come_back_is_jittered() {
        let least = retry_after(Ambient { random: || 0, ..AMBIENT }, REFUSED_RETRY);
        assert_eq!(least, b"retry: 1000\n\n");
        assert_eq!(retry_after(AMBIENT, REFUSED_RETRY), b"retry: 3000\n\n");
    }
}
