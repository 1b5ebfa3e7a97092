//! A store that goes away and comes back: refusals in time, readers that stay, and nothing twice.

use std::time::Duration;

use futures_util::future::join_all;
use tailwater_s2::{EmbeddedStoreConfig, Endpoint, Exposure, S2UpstreamConfig, Secret, Storage};
use tailwater_testkit::sse::Payload;
use tokio::time::Instant;

use crate::{
    client::Client,
    fixture::{Pod, Remote, Settings, Store, eventually, placement},
    follow::Follow,
    proxy::Proxy,
};

const TOKEN: &str = "a token that survives";

fn impatient() -> Settings {
    let mut settings = Settings::server(|config| config.keep_alive = Duration::from_millis(200));
    settings.fanout.settle = Duration::from_secs(2);
    settings.append_timeout = Duration::from_secs(1);
    settings
}

/// A store that others can find again: its data in a directory, and a token of its own.
async fn store_in(directory: &std::path::Path) -> Store {
    let mut config = EmbeddedStoreConfig::new(Storage::Directory(directory.to_owned()));
    let token = Some(Secret::from(TOKEN));
    config.expose = Some(Exposure { addr: "127.0.0.1:0".parse().unwrap(), token });
    Store::start(config).await
}

#[tokio::test]
async fn a_store_that_is_restarted_is_missed_by_nobody_who_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path()).await;
    let proxy = Proxy::to(store.embedded.exposed_addr().unwrap()).await;
    let endpoint = Endpoint::Url(format!("http://{}", proxy.addr));
    let pod = Pod::start(S2UpstreamConfig::new(endpoint, TOKEN.into(), placement()), impatient()).await;
    let client = &pod.client;
    client.create("s", "text/plain").await;
    let tail = client.append("s", "before,").await;
    let mut readers = join_all((0..5).map(|_| client.get("s?offset=-1&live=sse").follow(Payload::Text))).await;
    join_all(readers.iter_mut().map(|reader| reader.until_data("before,"))).await;

    proxy.cut();
    store.embedded.shutdown().await.unwrap();
    refuses_in_time(client, &tail).await;
    eventually("readiness says what is wrong", || async {
        client.get("/readyz").send().await.text().contains("suspended")
    })
    .await;
    for reader in &mut readers {
        let control = reader.control().await;
        assert_eq!(control.next, tail, "it stays, and is kept alive");
    }

    let store = store_in(directory.path()).await;
    proxy.lead_to(store.embedded.exposed_addr().unwrap());
    eventually("the gateway is ready", || async { client.get("/readyz").send().await.status == 200 }).await;
    eventually("appends land", || async {
        let answer = client.post("s").text("after.").producer("p", 0, 0).send().await;
        assert!([200, 204, 503].contains(&answer.status), "{}", answer.status);
        answer.status != 503
    })
    .await;
    join_all(readers.iter_mut().map(|reader| reader.until_data("after."))).await;
    assert!(readers.iter().all(|reader| reader.text() == "before,after."));
    assert_eq!(client.read("s").await, "before,after.");
    store.sessions.until_open(1).await;
}

async fn refuses_in_time(client: &Client, tail: &str) {
    let event_source = [("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let began = Instant::now();
    let asks = [
        client.post("s").text("lost").send(),
        client.put("new").text("lost").send(),
        client.get("unknown").send(),
        client.get("s").send(),
        client.get(&format!("s?offset={tail}&live=long-poll")).send(),
        client.get("unknown?offset=-1&live=sse").send(),
    ];
    for answer in join_all(asks).await {
        answer.expect(503);
    }
    let told = client.get("unknown?offset=-1&live=sse").headers(&event_source).send().await.expect(200);
    assert!(told.text().starts_with("id: refused\nretry: "), "{}", told.text());
    assert!(began.elapsed() < Duration::from_secs(40), "no hang: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_way_to_the_store_that_is_cut_again_and_again_loses_nothing_and_repeats_nothing() {
    const WRITERS: usize = 4;
    const EACH: u64 = 150;
    const CUTS: usize = 6;
    let remote = Remote::with(impatient()).await;
    let client = remote.client();
    client.create("s", "application/json").await;
    let mut readers = join_all((0..3).map(|_| client.get("s?offset=-1&live=sse").follow(Payload::Json))).await;
    join_all(readers.iter_mut().map(Follow::until_up_to_date)).await;

    let writers = (0..WRITERS).map(|writer| async move {
        for seq in 0..EACH {
            let append =
                || client.post("s").json(format!("\"{writer}.{seq}\"")).producer(&format!("p{writer}"), 0, seq);
            eventually("it is taken", || async {
                let answer = append().send().await;
                assert!([200, 204, 503].contains(&answer.status), "{}", String::from_utf8_lossy(&answer.body));
                answer.status != 503
            })
            .await;
        }
    });
    let cuts = async {
        for cut in 1..=CUTS {
            let enough = cut * WRITERS * usize::try_from(EACH).unwrap() / (CUTS + 1);
            eventually("some are written", || async {
                let answer = client.get("s").send().await;
                answer.status == 200 && answer.json().as_array().unwrap().len() >= enough
            })
            .await;
            remote.proxy.cut();
            remote.proxy.lead_to(remote.store.addr());
        }
    };
    let ((), _) = tokio::join!(cuts, join_all(writers));
    eventually("it is closed", || async {
        client.post("s").header("stream-closed", "true").send().await.status == 204
    })
    .await;
    join_all(readers.iter_mut().map(Follow::until_closed)).await;

    let whole = client.read("s").await;
    for reader in &readers {
        assert_eq!(format!("[{}]", reader.text()), whole);
    }
    let messages: Vec<String> = serde_json::from_str(&whole).unwrap();
    for writer in 0..WRITERS {
        let own: Vec<_> = messages.iter().filter(|text| text.starts_with(&format!("{writer}."))).cloned().collect();
        let sent: Vec<_> = (0..EACH).map(|seq| format!("{writer}.{seq}")).collect();
        assert_eq!(own, sent, "each once, and in order");
    }
}
