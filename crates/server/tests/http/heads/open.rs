//! Where everybody may do everything: streams of every kind, from every place, by every way of asking.

use tailwater_testkit::fault::Outage;
use tailwater_upstream::StreamKey;

use super::{Both, get, get_by, patient};

const NATIVE: &str = "native";
/// Some minutes after the time of the tests, so that an answer may be kept for less long than by itself.
const SOON: &str = "2024-10-09T05:38:00Z";

/// A kind of stream: its name, what it is created with, and what stands in it then.
type Kind = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// All but the native one, which nobody creates. What is forked stands above its forks.
const KINDS: [Kind; 18] = [
    ("text", &[("content-type", "text/plain")], "a"),
    ("empty", &[("content-type", "text/plain")], ""),
    ("charset", &[("content-type", "Text/HTML; charset=\"utf-8\"")], "a"),
    ("json", &[("content-type", "application/json")], "[1]"),
    ("json-charset", &[("content-type", "application/json; charset=utf-8")], "[1]"),
    ("binary", &[("content-type", "application/octet-stream")], "a"),
    ("image", &[("content-type", "image/png")], "a"),
    ("public", &[("content-type", "text/plain"), ("stream-visibility", "public")], "a"),
    ("private", &[("content-type", "text/plain"), ("stream-visibility", "private")], "a"),
    ("ttl", &[("content-type", "text/plain"), ("stream-ttl", "3600")], "a"),
    ("expires", &[("content-type", "text/plain"), ("stream-expires-at", "2099-01-01T00:00:00Z")], "a"),
    ("expires-soon", &[("content-type", "application/json"), ("stream-expires-at", SOON)], "[1]"),
    ("fork", &[("stream-forked-from", "/v1/stream/text")], ""),
    ("fork-of-a-fork", &[("stream-forked-from", "/v1/stream/fork"), ("stream-ttl", "60")], ""),
    ("fork-of-json", &[("stream-forked-from", "/v1/stream/json"), ("stream-visibility", "private")], ""),
    ("fork-of-binary", &[("stream-forked-from", "/v1/stream/binary")], ""),
    ("closed", &[("content-type", "text/plain"), ("stream-closed", "true")], "a"),
    ("closed-json", &[("content-type", "application/json"), ("stream-closed", "true")], "[1]"),
];

/// A way to ask: a version, fields, and whether the response may leave then.
type Way = (&'static str, &'static [(&'static str, &'static str)], bool);

const WAYS: [Way; 10] = [
    ("HTTP/1.1", &[], true),
    ("HTTP/1.1", &[("connection", "keep-alive")], true),
    ("HTTP/1.1", &[("connection", "close")], false),
    ("HTTP/1.0", &[], false),
    ("HTTP/1.0", &[("connection", "keep-alive")], false),
    ("HTTP/1.1", &[("origin", "https://app.example")], true),
    ("HTTP/1.1", &[("origin", "http://h"), ("sec-fetch-site", "same-origin"), ("cookie", "a=b")], true),
    ("HTTP/1.1", &[("accept", "text/event-stream"), ("cache-control", "no-cache")], true),
    ("HTTP/1.1", &[("authorization", "Bearer junk"), ("accept-encoding", "gzip")], true),
    ("HTTP/1.1", &[("content-length", "0"), ("if-none-match", "\"other\"")], true),
];

/// A gateway whose readers find everything in the ring, and one whose readers find nothing there: who is behind is brought to
/// the shard by an escort, and who waits there has to look anew.
fn rings() -> [tailwater_fanout::Config; 2] {
    let some = tailwater_fanout::Config::default();
    [some.clone(), tailwater_fanout::Config { ring_bytes: 1, page_bytes: 64, ..some }]
}

async fn with_streams(fanout: tailwater_fanout::Config) -> Both {
    let both = Both::with(patient(), fanout).await;
    for (name, headers, body) in KINDS {
        let created = both.stays.fixture.send("PUT", &path(name), headers, body).await;
        assert_eq!(created.status, 201, "{name}: {:?}", created.body);
    }
    both.store.append_native(&StreamKey::new("default", NATIVE), ["a"]);
    both
}

fn path(name: &str) -> String {
    format!("/v1/stream/{name}")
}

fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, ..)| *name).chain([NATIVE])
}

fn is_closed(name: &str) -> bool {
    name.starts_with("closed")
}

#[tokio::test]
async fn events_that_leave_have_the_head_of_those_that_stay_whatever_the_stream_and_wherever_they_begin() {
    for fanout in rings() {
        let both = with_streams(fanout).await;
        let (mut open, mut leave) = (Vec::new(), 0);
        for name in names() {
            let path = path(name);
            let tail = both.tail(&path, &[]).await;
            let places: [(String, &[(&str, &str)]); 6] = [
                ("offset=-1".to_owned(), &[]),
                ("offset=now".to_owned(), &[]),
                (format!("offset={tail}"), &[]),
                (format!("offset={tail}&cursor=7"), &[]),
                ("offset=-1&cursor=5000".to_owned(), &[]),
                ("offset=-1".to_owned(), &[("last-event-id", &tail)]),
            ];
            for (place, fields) in places {
                let mut asked = both.ask(get(&format!("{path}?{place}&live=sse"), fields)).await;
                let seen = asked.compare().await;
                // An `EventSource` that has had everything is told so, or it would come back for ever.
                assert_eq!(
                    seen.status,
                    if is_closed(name) && !fields.is_empty() { 204 } else { 200 },
                    "{}",
                    asked.head
                );
                if !is_closed(name) {
                    leave += 1;
                    open.push(asked);
                }
            }
        }
        both.follow(leave, leave).await;
    }
}

#[tokio::test]
async fn events_have_the_same_head_by_every_way_of_asking_for_them() {
    let both = with_streams(rings()[0].clone()).await;
    let (mut open, mut readers, mut leave) = (Vec::new(), 0, 0);
    for (version, fields, may_leave) in WAYS {
        for name in ["text", "json", "binary", "private", "closed"] {
            let mut asked = both.ask(get_by(version, &format!("{}?offset=-1&live=sse", path(name)), fields)).await;
            assert_eq!(asked.compare().await.status, 200, "{}", asked.head);
            if !is_closed(name) {
                readers += 1;
                leave += usize::from(may_leave);
                open.push(asked);
            }
        }
    }
    both.follow(readers, leave).await;
}

#[tokio::test]
async fn a_long_poll_that_leaves_is_answered_as_one_that_stays_whatever_the_stream_and_wherever_it_begins() {
    for fanout in rings() {
        let both = with_streams(fanout).await;
        let mut polls = Vec::new();
        for name in names().filter(|name| !is_closed(name)) {
            let path = path(name);
            let tail = both.tail(&path, &[]).await;
            let mut places = vec![format!("offset={tail}"), format!("offset={tail}&cursor=7"), "offset=now".to_owned()];
            places.extend((name == "empty").then(|| "offset=-1".to_owned()));
            for place in &places {
                for known in [None, Some("\"other\""), Some("*")] {
                    let fields: Vec<_> = known.map(|known| ("if-none-match", known)).into_iter().collect();
                    let has_it = known == Some("*") && place != "offset=now";
                    let asked = both.ask(get(&format!("{path}?{place}&live=long-poll"), &fields)).await;
                    polls.push((asked, if has_it { 304 } else { 200 }));
                }
            }
        }
        both.park(polls.len()).await;
        wake(&both).await;
        for (mut asked, status) in polls {
            assert_eq!(asked.compare().await.status, status, "{}", asked.head);
            asked.compare_the_rest().await;
        }
    }
}

/// Something comes to every stream that is open.
async fn wake(both: &Both) {
    for name in names().filter(|name| !is_closed(name) && *name != NATIVE) {
        let content_type =
            both.stays.fixture.send("HEAD", &path(name), &[], "").await.header("content-type").to_owned();
        both.stays.fixture.post(&path(name), &content_type, "[2]").await;
    }
    both.store.append_native(&StreamKey::new("default", NATIVE), ["[2]"]);
}

#[tokio::test]
async fn a_long_poll_has_the_same_answer_by_every_way_of_asking_for_it() {
    let both = with_streams(rings()[0].clone()).await;
    let mut polls = Vec::new();
    let mut leave = 0;
    for (version, fields, may_leave) in WAYS {
        for name in ["text", "json", "binary", "private"] {
            polls.push(both.ask(get_by(version, &format!("{}?offset=now&live=long-poll", path(name)), fields)).await);
            leave += usize::from(may_leave);
        }
    }
    both.have_left(leave).await;
    wake(&both).await;
    for mut asked in polls {
        assert_eq!(asked.compare().await.status, 200, "{}", asked.head);
        asked.compare_the_rest().await;
    }
}

#[tokio::test]
async fn what_is_answered_at_once_is_the_same_where_live_responses_leave() {
    let both = with_streams(rings()[0].clone()).await;
    let gone = [("stream-forked-from", "/v1/stream/gone")];
    both.stays.fixture.put(&path("gone"), "text/plain", "a").await;
    assert_eq!(both.stays.fixture.send("PUT", &path("keeps"), &gone, "").await.status, 201);
    assert_eq!(both.stays.fixture.send("DELETE", &path("gone"), &[], "").await.status, 204);
    let end = both.tail(&path("closed"), &[]).await;
    let beyond = format!("{}_{:016}", &end[..16], 99);
    type Row<'r> = (&'r str, String, &'r [(&'r str, &'r str)], [u16; 2]);
    let table: [Row<'_>; 10] = [
        ("text", "offset=-1".to_owned(), &[], [200, 200]),
        ("text", "offset=-1".to_owned(), &[("if-none-match", "*")], [200, 304]),
        ("closed", format!("offset={end}"), &[], [200, 204]),
        ("closed", format!("offset={end}"), &[("last-event-id", &end)], [204, 204]),
        ("closed-json", "offset=-1".to_owned(), &[], [200, 200]),
        ("text", format!("offset={beyond}"), &[], [400, 400]),
        ("text", "offset=somewhere".to_owned(), &[], [400, 400]),
        ("text", String::new(), &[], [400, 400]),
        ("none", "offset=-1".to_owned(), &[("origin", "https://app.example")], [404, 404]),
        ("gone", "offset=-1".to_owned(), &[], [410, 410]),
    ];
    for (name, place, fields, statuses) in table {
        for (live, status) in ["sse", "long-poll"].into_iter().zip(statuses) {
            let head = get(&format!("{}?{place}&live={live}", path(name)), fields);
            assert_eq!(both.compare(head.clone()).await.status, status, "{head}");
            let only_the_head = head.replacen("GET", "HEAD", 1);
            both.compare(only_the_head).await;
        }
    }
    both.store.set_outage(Outage::Refusing);
    refused(&both, "empty", "store_unavailable").await;
    both.store.set_outage(Outage::Over);
    for pod in [&both.stays, &both.leaves] {
        pod.fixture.app.drain().begin();
    }
    refused(&both, "text", "draining").await;
}

/// Live requests are told to come back, each in the way that its client understands.
async fn refused(both: &Both, name: &str, code: &str) {
    for live in ["sse", "long-poll"] {
        let target = format!("{}?offset=-1&live={live}", path(name));
        let seen = both.compare(get(&target, &[])).await;
        assert!(seen.status == 503 && seen.body.is_some_and(|body| body.contains(code)), "{live}");
    }
    let event_source = [("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let seen = both.compare(get(&format!("{}?offset=-1&live=sse", path(name)), &event_source)).await;
    assert!(seen.status == 200 && seen.body.is_some_and(|body| body.starts_with("id: refused\nretry: ")));
}
