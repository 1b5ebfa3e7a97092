//! What caches and conditional requests get: `ETag`, `Cache-Control`, cursors (protocol, sections 8 and 10.1; RFC 9110,
//! section 13.1.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tailwater_protocol::{Lifetime, cursor};
use tailwater_testkit::sse::Payload;

use crate::fixture::{House, Settings};

const PUBLIC: &str = "public, max-age=60, stale-while-revalidate=300";

fn interval() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    cursor::interval(u64::try_from(since.as_millis()).unwrap())
}

#[tokio::test]
async fn a_known_tag_is_answered_304_in_every_spelling() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    let first = client.get("s?offset=-1").send().await.expect(200);
    let tag = first.header("etag").unwrap();
    let known =
        [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), format!("\"x\",W/{tag} , \"y\""), "*".to_owned()];
    for sent in known {
        let answer = client.get("s?offset=-1").header("if-none-match", &sent).send().await.expect(304);
        assert_eq!(answer.header("etag"), Some(tag), "{sent}");
        assert_eq!(answer.header("stream-next-offset"), first.header("stream-next-offset"));
        assert_eq!(answer.header("cache-control"), first.header("cache-control"));
    }
    let lines = [("if-none-match", "\"x\""), ("if-none-match", tag)];
    client.get("s?offset=-1").headers(&lines).send().await.expect(304);
    for sent in ["\"x\"", "W/\"x\"", "x", "", &tag.replace('"', ""), &format!("{tag}x"), "\"*\""] {
        let answer = client.get("s?offset=-1").header("if-none-match", sent).send().await.expect(200);
        assert_eq!(answer.text(), "a", "{sent}");
    }
}

#[tokio::test]
async fn a_tag_changes_with_data_with_closure_with_the_offset_and_with_the_incarnation() {
    let house = House::start().await;
    let client = house.client();
    let start = client.create("s", "text/plain").await;
    let tag =
        |target: String| async move { client.get(&target).send().await.expect(200).header("etag").unwrap().to_owned() };
    let whole = || tag("s?offset=-1".to_owned());
    let mut tags = vec![whole().await];
    let middle = client.append("s", "a").await;
    tags.push(whole().await);
    tags.push(tag(format!("s?offset={start}")).await);
    tags.push(tag(format!("s?offset={middle}")).await);
    client.close("s").await;
    tags.push(whole().await);
    tags.push(tag(format!("s?offset={middle}")).await);
    client.delete("s").send().await.expect(204);
    client.put("s").text("a").send().await.expect(201);
    tags.push(whole().await);
    for (index, tag) in tags.iter().enumerate() {
        assert!(!tags[..index].contains(tag), "{tag} twice in {tags:?}");
        let status = if index + 1 == tags.len() { 304 } else { 200 };
        client.get("s?offset=-1").header("if-none-match", tag).send().await.expect(status);
    }
}

#[tokio::test]
async fn now_has_no_tag_and_is_never_304() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    for sent in ["*", "\"x\""] {
        let answer = client.get("s?offset=now").header("if-none-match", sent).send().await.expect(200);
        assert_eq!((answer.header("etag"), answer.text()), (None, ""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("stream-up-to-date"), Some("true"));
    }
}

#[tokio::test]
async fn every_answer_says_who_may_keep_it() {
    let settings = Settings::server(|config| config.long_poll_timeout = Duration::from_millis(50));
    let house = House::with(settings).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let tail = client.append("s", "a").await;
    client.put("closed").text("a").header("stream-closed", "true").send().await.expect(201);
    let end = client.head("closed").send().await.next();
    client.put("ttl").text("a").header("stream-ttl", "3600").send().await.expect(201);
    client.put("far").text("a").header("stream-expires-at", "2999-01-01T00:00:00Z").send().await.expect(201);
    let table = [
        ("s".to_owned(), 200, PUBLIC),
        ("s?offset=-1".to_owned(), 200, PUBLIC),
        ("s?offset=-1&live=long-poll".to_owned(), 200, PUBLIC),
        (format!("s?offset={tail}"), 200, "no-store"),
        ("s?offset=now".to_owned(), 200, "no-store"),
        (format!("s?offset={tail}&live=long-poll"), 204, "no-store"),
        ("closed".to_owned(), 200, PUBLIC),
        (format!("closed?offset={end}"), 200, PUBLIC),
        (format!("closed?offset={end}&live=long-poll"), 204, "no-store"),
        ("ttl".to_owned(), 200, "private, no-cache"),
        ("far".to_owned(), 200, PUBLIC),
        ("missing".to_owned(), 404, "no-store"),
        ("s?offset=x".to_owned(), 400, "no-store"),
    ];
    for (target, status, rule) in table {
        let answer = client.get(&target).send().await.expect(status);
        assert_eq!(answer.header("cache-control"), Some(rule), "{target}");
    }
    assert_eq!(client.head("s").send().await.header("cache-control"), Some("no-store"));
    let live = client.get("closed?offset=-1&live=sse").send().await.expect(200);
    assert_eq!(live.header("cache-control"), Some("no-cache, no-transform"));
}

#[tokio::test]
async fn no_copy_outlives_its_stream() {
    let house = House::start().await;
    let client = house.client();
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(100);
    let at_ms = u64::try_from(soon.as_millis()).unwrap();
    let (name, stamp) = Lifetime::ExpiresAt { at_ms }.to_header().unwrap();
    client.put("s").text("a").header(name, stamp).send().await.expect(201);
    let rule = client.get("s").send().await.expect(200).header("cache-control").unwrap().to_owned();
    let number = |name: &str| -> u64 {
        let (_, rest) = rule.split_once(name).unwrap_or_else(|| panic!("no {name} in {rule}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let lives = number("max-age=") + number("stale-while-revalidate=");
    assert!((60..=100).contains(&lives), "{rule}");
}

#[tokio::test]
async fn a_page_that_ends_before_the_tail_is_cacheable_and_says_neither_closed_nor_up_to_date() {
    let house = House::with(Settings::fanout(|config| config.page_bytes = 100)).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    for _ in 0..10 {
        client.append("s", &"x".repeat(30)).await;
    }
    client.close("s").await;
    let (mut offset, mut pages, mut bytes) = ("-1".to_owned(), 0, 0);
    loop {
        let page = client.get(&format!("s?offset={offset}")).send().await.expect(200);
        (offset, pages, bytes) = (page.next(), pages + 1, bytes + page.body.len());
        assert_eq!(page.header("cache-control"), Some(PUBLIC));
        assert_eq!(page.is_closed(), page.header("stream-up-to-date").is_some());
        if page.is_closed() {
            break;
        }
        assert!(!page.body.is_empty() && page.body.len() < 100 + 30);
    }
    assert!(pages >= 3, "{pages}");
    assert_eq!(bytes, 300);
}

#[tokio::test]
async fn a_cursor_is_the_interval_and_always_beyond_the_clients() {
    let settings = Settings::server(|config| config.long_poll_timeout = Duration::from_millis(20));
    let house = House::with(settings).await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    let poll = |cursor: String| {
        let target = format!("s?offset={tail}&live=long-poll&cursor={cursor}");
        async move { client.get(&target).send().await.expect(204).header("stream-cursor").unwrap().parse::<u64>().unwrap() }
    };
    let before = interval();
    let present = poll(String::new()).await;
    assert!((before..=interval()).contains(&present));
    for behind in ["0", "abc", "-5", "1.5"] {
        let answer = poll(behind.to_owned()).await;
        // Looked at behind the answer: an interval may begin while that is under way.
        assert!((before..=interval()).contains(&answer), "{behind}");
    }
    for ahead in [interval(), interval() + 1, interval() + 100_000] {
        let answer = poll(ahead.to_string()).await;
        assert!((ahead + 1..=ahead + cursor::MAX_JITTER).contains(&answer), "{answer} for {ahead}");
    }
    let ahead = interval() + 50;
    let mut reader = client.get(&format!("s?offset=-1&live=sse&cursor={ahead}")).follow(Payload::Text).await;
    let first = reader.until_up_to_date().await.cursor.unwrap();
    client.append("s", "a").await;
    let second = reader.until_data("a").await.cursor.unwrap();
    assert!(first > ahead && second >= first);
}
