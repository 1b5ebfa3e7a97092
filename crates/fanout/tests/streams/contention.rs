//! Contention: whoever wants to write gets a turn, within a bounded time and number of tries.

use std::time::Duration;

use futures_util::future::{join, join3};
use tailwater_fanout::{Appended, Create};
use tailwater_protocol::{Lifetime, ReadOffset};
use tailwater_testkit::{
    ScriptedUpstream,
    fault::{AppendFault, Pause},
};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::*;

/// How long an append takes to arrive.
const WAY: Duration = Duration::from_millis(5);

/// Gives every append a way to go, on which others can overtake it.
fn far_away(store: &ScriptedUpstream) {
    store.on_append(|_, _| Some(AppendFault::PauseBefore(Pause::For(WAY))));
}

/// A plain native writer at 50 appends a second, for as long as `work` takes.
async fn beside_a_native_writer<T>(store: &ScriptedUpstream, key: &StreamKey, work: impl Future<Output = T>) -> T {
    let writes = async {
        for n in 0_u64.. {
            store.append_native(key, [format!("native {n}")]);
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        biased;
        () = writes => unreachable!("it writes until it is dropped"),
        result = timeout(LONG, work) => result.expect("nobody waits for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn two_pods_with_producers_on_one_stream_take_turns() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    far_away(&store);
    let produce = |pod: &Pod, id: &'static str| {
        let (gateway, key) = (pod.gateway(), key.clone());
        async move {
            let mut slowest = Duration::ZERO;
            for n in 0..100 {
                let since = Instant::now();
                landed(gateway.append(&key, by(claim(id, 0, n), tell(&format!("{id} {n}")))).await);
                slowest = slowest.max(since.elapsed());
            }
            slowest
        }
    };
    let before = store.counts().appends;
    let (one, two) = in_time(join(produce(&pod, "p"), produce(&other, "q"))).await;
    assert!(one.max(two) < Duration::from_secs(3), "the slowest took {:?}", one.max(two));
    let tries = store.counts().appends - before;
    assert!(tries < 200 * 6, "{tries} appends for 200 messages");
    let all = read(&pod, &key).await;
    for id in ["p", "q"] {
        let own: Vec<&String> = all.iter().filter(|body| body.starts_with(id)).collect();
        assert_eq!(own.len(), 100);
        assert!(own.iter().enumerate().all(|(n, body)| **body == format!("{id} {n}")));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_lives_by_the_token_alone_is_not_held_up_by_a_native_writer() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    for round in 0..5 {
        pod.create(&key, plain()).await.unwrap();
        far_away(&store);
        let before = store.counts().appends;
        let since = Instant::now();
        beside_a_native_writer(&store, &key, async {
            landed(pod.append(&key, tell("a")).await);
            let closed = other.append(&key, close()).await.unwrap();
            assert!(matches!(closed, Appended::Landed { closed: true, .. }));
            assert!(pod.head(&key).await.unwrap().closed);
            pod.delete(&key).await.unwrap();
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(2), "round {round}: {:?}", since.elapsed());
        assert!(store.counts().appends - before <= 12, "{}", store.counts().appends - before);
        store.on_append(|_, _| None);
        rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_beside_a_native_writer_lands() {
    for follows in [false, true] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        far_away(&store);
        // With a live reader the pod knows the log as it grows; without one it has to look each time.
        let reader = if follows { Some(pod.follow(&key, ReadOffset::Now).await.unwrap()) } else { None };
        let mut slowest = Duration::ZERO;
        beside_a_native_writer(&store, &key, async {
            for n in 0..50 {
                let since = Instant::now();
                landed(pod.append(&key, by(claim("p", 0, n), tell(&n.to_string()))).await);
                slowest = slowest.max(since.elapsed());
            }
        })
        .await;
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        drop(reader);
        let own: Vec<String> = read(&pod, &key).await.into_iter().filter(|body| !body.starts_with("native")).collect();
        assert_eq!(own, numbered(0..50));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_and_a_fork_do_not_wait_for_a_native_writer() {
    let store = store();
    let (pod, key, fork) = (Pod::new(&store), key("s"), key("fork"));
    let lifetime = Some(Lifetime::Ttl { seconds: 2 });
    pod.create(&key, Create { lifetime, ..plain() }).await.unwrap();
    far_away(&store);
    beside_a_native_writer(&store, &key, async {
        for _ in 0..20 {
            sleep(Duration::from_millis(500)).await;
            pod.read(&key, ReadOffset::Now).await.unwrap();
        }
        let from = tailwater_fanout::ForkFrom {
            source: key.clone(),
            at: tailwater_fanout::ForkPoint::Tail,
            sub_offset: 0,
            access: tailwater_fanout::SourceAccess::Any,
        };
        let create = Create { fork: Some(from), lifetime: Some(Lifetime::Forever), ..plain() };
        assert!(pod.create(&fork, create).await.unwrap().fresh);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn plain_writers_of_two_pods_do_not_contend_at_all() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    far_away(&store);
    let before = store.counts().appends;
    let write = |pod: &Pod| {
        let (gateway, key) = (pod.gateway(), key.clone());
        async move {
            for n in 0..100 {
                landed(gateway.append(&key, tell(&n.to_string())).await);
            }
        }
    };
    in_time(join(write(&pod), write(&other))).await;
    assert_eq!(store.counts().appends - before, 200);
    assert_eq!(read(&pod, &key).await.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn producers_and_plain_writers_of_two_pods_all_get_on() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    far_away(&store);
    let produce = async {
        for n in 0..50 {
            landed(pod.append(&key, by(claim("p", 0, n), tell(&format!("p{n}")))).await);
        }
    };
    let write = async {
        for n in 0..200 {
            landed(other.append(&key, tell(&format!("w{n}"))).await);
        }
    };
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    let (.., seen) = in_time(join3(produce, write, take(&mut reader, 250))).await;
    for (id, count) in [("p", 50), ("w", 200)] {
        let own: Vec<&String> = seen.iter().filter(|body| body.starts_with(id)).collect();
        assert!(own.len() == count && own.iter().enumerate().all(|(n, body)| **body == format!("{id}{n}")));
    }
}
