//! A stream's life: created, appended to, read, closed, deleted, created again (protocol sections 5.1 to 5.6).

use tailwater_fanout::{Appended, Config, Create, NewVisibility, OpError, Post};
use tailwater_log::{ConfigField, Misplaced, Refusal, Visibility};
use tailwater_protocol::{ContentType, Lifetime, Offset, ReadOffset};

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn what_was_appended_is_read_in_order_and_at_the_offsets_that_were_answered() {
    for store in [store(), own_store()] {
        let (pod, key) = (Pod::new(&store), key("s"));
        let created = pod.create(&key, holding(&["a"])).await.unwrap();
        assert!(created.fresh);
        let first = created.head.tail;
        let second = landed(pod.append(&key, say(&["b", "c"])).await);
        let third = landed(pod.append(&key, tell("d")).await);
        assert!(first < second && second < third);

        assert_eq!(read(&pod, &key).await, ["a", "b", "c", "d"]);
        assert_eq!(read_from(&pod, &key, ReadOffset::At(first)).await.unwrap(), ["b", "c", "d"]);
        assert_eq!(read_from(&pod, &key, ReadOffset::At(second)).await.unwrap(), ["d"]);
        assert_eq!(pod.read(&key, ReadOffset::At(third)).await.unwrap().next, third);
        assert_eq!(pod.read(&key, ReadOffset::Now).await.unwrap().next, third);
        assert_eq!(pod.head(&key).await.unwrap().tail, third);
        let page = pod.read(&key, ReadOffset::Start).await.unwrap();
        assert_eq!(pod.read(&key, ReadOffset::At(page.start)).await.unwrap().messages, page.messages);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_exist_is_not_found_by_anyone() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    let not_found = |error: OpError| assert!(matches!(error, OpError::Refused(Refusal::NotFound)), "{error:?}");
    not_found(pod.head(&key).await.unwrap_err());
    not_found(pod.read(&key, ReadOffset::Start).await.unwrap_err());
    not_found(pod.append(&key, tell("a")).await.unwrap_err());
    not_found(pod.append(&key, close()).await.unwrap_err());
    not_found(pod.delete(&key).await.unwrap_err());
    not_found(pod.follow(&key, ReadOffset::Start).await.err().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_create_with_the_same_configuration_finds_the_stream_and_another_conflicts() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    assert!(pod.create(&key, holding(&["a"])).await.unwrap().fresh);
    for pod in [&pod, &other] {
        assert!(!pod.create(&key, holding(&["b"])).await.unwrap().fresh);
        let with_charset = Some(ContentType::parse("text/plain; charset=utf-8").unwrap());
        assert!(!pod.create(&key, Create { content_type: with_charset, ..plain() }).await.unwrap().fresh);
        let expect = |create: Create, expected: ConfigField| async move {
            let error = pod.create(&crate::harness::key("s"), create).await.unwrap_err();
            assert!(matches!(error, OpError::Conflict { field } if field == expected), "{error:?}");
        };
        expect(Create { content_type: None, ..plain() }, ConfigField::ContentType).await;
        expect(Create { lifetime: Some(Lifetime::Ttl { seconds: 60 }), ..plain() }, ConfigField::Lifetime).await;
        expect(Create { closed: true, ..plain() }, ConfigField::Closed).await;
        let private = NewVisibility::Declared(Visibility::Private);
        expect(Create { visibility: private, ..plain() }, ConfigField::Visibility).await;
        for same in [NewVisibility::Declared(Visibility::Public), NewVisibility::Default(Visibility::Private)] {
            assert!(!pod.create(&key, Create { visibility: same, ..plain() }).await.unwrap().fresh, "{same:?}");
        }
        assert_eq!(pod.head(&key).await.unwrap().visibility, Visibility::Public);
    }
    assert_eq!(read(&pod, &key).await, ["a"], "a create that finds a stream appends nothing");
}

#[tokio::test(start_paused = true)]
async fn of_creates_at_the_same_time_one_creates() {
    let store = store();
    let pods = [Pod::new(&store), Pod::new(&store)];
    let creates = (0..10).map(|n| {
        let gateway = pods[n % 2].gateway();
        async move { gateway.create(&key("s"), holding(&["a"])).await.unwrap().fresh }
    });
    let fresh = in_time(futures_util::future::join_all(creates)).await;
    assert_eq!(fresh.into_iter().filter(|fresh| *fresh).count(), 1);
    assert_eq!(read(&pods[0], &key("s")).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_content_type_that_is_not_the_streams_is_refused() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let error = pod.append(&key, Post { content_type: Some(json()), ..tell("1") }).await.unwrap_err();
    assert!(matches!(error, OpError::Refused(Refusal::ContentType { actual }) if actual == "text/plain"));
    assert!(read(&pod, &key).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_takes_nothing_and_can_be_closed_again() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    let Appended::Landed { next, closed: true } = pod.append(&key, last(&["b"])).await.unwrap() else {
        panic!("it should have been closed");
    };
    for pod in [&pod, &other] {
        assert_eq!(pod.append(&key, close()).await.unwrap(), Appended::AlreadyClosed { next });
        for post in [tell("c"), last(&["c"]), by(claim("p", 0, 0), tell("c")), by(claim("p", 0, 0), close())] {
            let error = pod.append(&key, post).await.unwrap_err();
            assert!(matches!(error, OpError::Refused(Refusal::Closed { tail }) if tail == next), "{error:?}");
        }
        let head = pod.head(&key).await.unwrap();
        assert!(head.closed);
        assert_eq!(head.tail, next);
        assert_eq!(read(pod, &key).await, ["a", "b"]);
        assert!(!pod.create(&key, Create { closed: true, ..plain() }).await.unwrap().fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_data_ends_at_the_tail() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    let tail = pod.create(&key, holding(&["a"])).await.unwrap().head.tail;
    assert_eq!(pod.append(&key, close()).await.unwrap(), Appended::Landed { next: tail, closed: true });
    assert_eq!(pod.head(&key).await.unwrap().tail, tail);
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_created_closed() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    let created = pod.create(&key, Create { closed: true, ..holding(&["a", "b"]) }).await.unwrap();
    assert!(created.fresh && created.head.closed);
    assert_eq!(read(&pod, &key).await, ["a", "b"]);
    assert!(matches!(pod.append(&key, tell("c")).await, Err(OpError::Refused(Refusal::Closed { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_closure_is_answered_before_the_content_type_and_that_before_the_producer() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let wrong = Post { content_type: Some(json()), ..by(claim("p", 0, 7), after("1", tell("x"))) };
    let error = pod.append(&key, wrong.clone()).await.unwrap_err();
    assert!(matches!(error, OpError::Refused(Refusal::ContentType { .. })));
    landed(pod.append(&key, after("5", tell("a"))).await);
    let gap = by(claim("p", 0, 7), after("1", tell("x")));
    assert!(matches!(pod.append(&key, gap).await, Err(OpError::Refused(Refusal::ProducerGap { .. }))));
    pod.append(&key, close()).await.unwrap();
    assert!(matches!(pod.append(&key, wrong).await, Err(OpError::Refused(Refusal::Closed { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_is_not_found_and_its_name_is_free_at_once() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    let old = pod.create(&key, holding(&["a", "b"])).await.unwrap().head;
    assert_eq!(read(&other, &key).await, ["a", "b"]);
    pod.delete(&key).await.unwrap();
    for pod in [&pod, &other] {
        assert!(matches!(pod.head(&key).await, Err(OpError::Refused(Refusal::NotFound))));
        assert!(matches!(pod.delete(&key).await, Err(OpError::Refused(Refusal::NotFound))));
        assert!(matches!(pod.append(&key, tell("x")).await, Err(OpError::Refused(Refusal::NotFound))));
    }
    tokio::time::advance(std::time::Duration::from_millis(5)).await;
    let new = pod.create(&key, Create { content_type: Some(json()), ..plain() }).await.unwrap();
    assert!(new.fresh);
    assert!(new.head.birth > old.birth);
    landed(pod.append(&key, Post { content_type: Some(json()), ..tell("1") }).await);
    for pod in [&pod, &other] {
        assert_eq!(read(pod, &key).await, ["1"]);
        let error = pod.read(&key, ReadOffset::At(old.tail)).await.unwrap_err();
        assert!(matches!(error, OpError::Misplaced(Misplaced::Gone { .. })), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_can_be_used_again_and_again_within_one_millisecond() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    let mut before: Option<Offset> = None;
    for n in 0..5 {
        let body = n.to_string();
        let head = pod.create(&key, holding(&[&body])).await.unwrap().head;
        assert_eq!(read(&pod, &key).await, [body]);
        if let Some(before) = before {
            assert!(pod.read(&key, ReadOffset::At(before)).await.is_err(), "an offset of another life");
        }
        before = Some(head.tail);
        pod.delete(&key).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_leaves_nothing_but_its_trim_in_the_store() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a", "b"])).await.unwrap();
    pod.delete(&key).await.unwrap();
    rest().await;
    assert!(store.records(&key).len() <= 1, "{:?}", store.records(&key));
    assert!(store.token(&key).unwrap().starts_with("g."));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_emptied_log_was_reaped_can_be_created_again() {
    for settled in [false, true] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, holding(&["a", "b", "c"])).await.unwrap();
        assert_eq!(read(&other, &key).await.len(), 3);
        pod.delete(&key).await.unwrap();
        rest().await;
        if settled {
            assert!(other.head(&key).await.is_err());
        }
        // The trim that emptied the log stands there still; S2 reaps once that has gone too.
        let trim = tailwater_log::NewRecord::trim(u64::MAX);
        store.land(&key, tailwater_upstream::Append::new(vec![trim])).unwrap();
        assert!(store.reap(&key));
        assert!(matches!(in_time(pod.head(&key)).await, Err(OpError::Refused(Refusal::NotFound))));
        assert!(in_time(pod.create(&key, holding(&["d"]))).await.unwrap().fresh);
        for pod in [&pod, &other] {
            assert_eq!(read(pod, &key).await, ["d"]);
            landed(in_time(pod.append(&key, tell("e"))).await);
            pod.delete(&key).await.unwrap();
            pod.create(&key, holding(&["d"])).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reaped_log_that_another_pod_has_begun_anew_and_filled_is_recognised() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    pod.delete(&key).await.unwrap();
    assert!(pod.head(&key).await.is_err());
    let trim = tailwater_log::NewRecord::trim(u64::MAX);
    store.land(&key, tailwater_upstream::Append::new(vec![trim])).unwrap();
    assert!(store.reap(&key));
    other.create(&key, plain()).await.unwrap();
    let expected = numbered(0..20);
    for body in &expected {
        landed(other.append(&key, tell(body)).await);
    }
    assert_eq!(read(&pod, &key).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_offset_beyond_the_tail_is_no_offset_of_this_stream() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    let tail = pod.create(&key, holding(&["a"])).await.unwrap().head.tail;
    for beyond in [Offset { seq: tail.seq + 1, ..tail }, Offset { birth: tail.birth + 1, ..tail }] {
        let error = pod.read(&key, ReadOffset::At(beyond)).await.unwrap_err();
        assert!(matches!(error, OpError::Misplaced(Misplaced::Beyond)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_bounded_and_a_message_larger_than_it_is_served_alone() {
    let config = Config { page_bytes: 10, ring_bytes: 200, ..Config::default() };
    let (pod, key) = (Pod::with(&store(), config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let bodies = ["12345", "12345", "a body of more than ten bytes", "x", "12345678", "y"];
    for body in bodies {
        landed(pod.append(&key, tell(body)).await);
    }
    assert_eq!(read(&pod, &key).await, bodies);
    let page = pod.read(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(strings(&page.messages), ["12345", "12345"]);
    assert!(!page.up_to_date);
    let page = pod.read(&key, ReadOffset::At(page.next)).await.unwrap();
    assert_eq!(strings(&page.messages), [bodies[2]]);
}

#[tokio::test(start_paused = true)]
async fn no_more_streams_are_active_than_may_be_and_idle_ones_make_room() {
    let config = Config { max_streams: 2, ..Config::default() };
    let pod = Pod::with(&store(), config);
    pod.create(&key("a"), plain()).await.unwrap();
    pod.create(&key("b"), plain()).await.unwrap();
    assert!(matches!(pod.create(&key("c"), plain()).await, Err(OpError::TooManyStreams)));
    tokio::time::sleep(Config::default().idle * 2).await;
    pod.create(&key("c"), plain()).await.unwrap();
}
